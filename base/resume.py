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
    """Return a command of ours as it is typed into a shell."""
    return shlex.join(["synclones", *words])


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
