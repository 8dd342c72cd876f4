"""By which command a job goes on: said by everything that stops it, and by whoever looks at what it left.

In: the words of a command, or the ``config.yaml`` in a folder that it writes into. Out: the command as it is typed, and
a block in which signals and failures of the machine name it.
"""

import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from synclones.base.errors import HOW_TO_RESUME, InputError, MachineError, as_synclones_error
from synclones.base.yaml_file import read_yaml

CONFIG = "config.yaml"
"""The settings that a folder was begun with, as ``--config`` takes them."""
_ADVICE = re.compile(r"\bsame command( again)?( to resume)?$")
_URL = re.compile(r"[a-z][a-z0-9]+:/")


def typed(words: Sequence[str]) -> str:
    """Return a command of ours as it is typed into a shell, in characters that a terminal shows as they are."""
    return " ".join(map(quoted, ["synclones", *words]))


def quoted(word: str) -> str:
    """Return a word as bash and zsh read it: what does not print, as a line's end, is written by its bytes."""
    if word.isprintable():
        return shlex.quote(word)
    marks = {"\\": "\\\\", "'": "\\'"}
    inner = (marks.get(c, c) if c.isprintable() else "".join(f"\\{byte:03o}" for byte in os.fsencode(c)) for c in word)
    return f"$'{''.join(inner)}'"


def by_settings(words: Sequence[str], folder: Path) -> list[str]:
    """Return the words of the command that goes on in ``folder`` by the settings in it; none where there are none.

    Args:
        words: stage and verb.
    """
    config = Path(folder) / CONFIG
    if not config.is_file():
        return []
    command = [*words, "--config", str(config)]
    return [*command, "--out", str(folder)] if _has_moved(Path(folder), config) else command


def going_on(words: Sequence[str], folder: Path) -> str:
    """Return the command that goes on in ``folder`` by the settings in it, as it is typed here; empty without settings.

    The settings' paths are relative to where the command was run: seen from elsewhere, it goes there first.
    """
    command = by_settings(words, folder)
    if "--out" not in command:
        return typed(command) if command else ""
    try:
        settings = {name: given.plain() for name, given in read_yaml(Path(folder) / CONFIG).items()}
    except InputError:
        return typed(command)
    own, out = Path(os.path.realpath(folder)), Path(str(settings.pop("out", "")))
    base = Path(*own.parts[: -len(out.parts)]) if out.parts and own.parts[-len(out.parts) :] == out.parts else Path()
    texts = [text for value in settings.values() for text in (value if isinstance(value, list) else [value])]
    if _paths_from(base, texts) <= _paths_from(Path(), texts):
        return typed(command)
    return f"cd {quoted(str(base))} && {typed([*words, '--config', str(out / CONFIG)])}"


def _paths_from(folder: Path, texts: Sequence[object]) -> int:
    """Return how many of the texts, or what stands in them before a comma or colon, are paths from a folder."""
    paths = (re.split("[,:]", text)[0] for text in texts if isinstance(text, str))
    return sum(bool(path) and os.path.exists(folder / path) for path in paths)


def _has_moved(folder: Path, config: Path) -> bool:
    """Whether the folder that the settings name, from here, is another one: then it must be named again."""
    try:
        out = str(read_yaml(config)["out"].value)
    except (InputError, KeyError):
        return True
    return _URL.match(out) is None and os.path.realpath(out) != os.path.realpath(folder)


@contextlib.contextmanager
def resumed_by(command: str, *, as_typed: bool = False) -> Iterator[None]:
    """Name the command in the line of a signal, or of a failing machine, that ends the block.

    Args:
        as_typed: whether it is the very command that runs, and no shorter one; of nested blocks the inner one speaks.
    """
    named = f": `{command}`" if as_typed else f", or `{command}`"
    HOW_TO_RESUME.append(f"{HOW_TO_RESUME[0]}{named}")
    try:
        yield
    except KeyboardInterrupt as stop:
        vars(stop).setdefault("how_to_resume", HOW_TO_RESUME[-1])  # the blocks end before the process says so
        raise
    except Exception as error:
        known = as_synclones_error(error)
        if not isinstance(known, MachineError):
            raise
        if not known.names_command:
            text, known.names_command = str(known), True
            if HOW_TO_RESUME[-1] not in text and not text.endswith("`"):  # which is a command already
                known.args = (f"{text}{named if _ADVICE.search(text) else f'; go on with `{command}`'}",)
        raise known from error if known is not error else None
    finally:
        HOW_TO_RESUME.pop()
