"""What a grid's words stand for: references such as `{prompts.recipe}` and `{step.clone}` become values and paths.

In: values as a grid or a world has them, and a function that knows every name. Out: the same values with nothing left
to look up; paths of steps and inputs stay apart, since an address must not depend on where things lie.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from synclones.base.errors import InputError
from synclones.base.yaml_file import Given

REFERENCE = re.compile(r"\{([^{}]+)\}")
MAX_DEPTH = 16


class Source(Protocol):
    """What a flag can point at: the output of a step, or an input from outside."""

    @property
    def identity(self) -> str:
        """What it is known by, wherever it lies."""

    def path(self, out: Path) -> str:
        """Return where it is, for a store in ``out``."""


@dataclass(frozen=True)
class Text:
    """A text with paths in it, as in ``{step.drawn},first=250``."""

    parts: tuple[str | Source, ...]


Lookup = Callable[[str, str], Any]
"""(name without braces, where it stands) -> its value, in which there may be references again."""


def resolve(given: Any, lookup: Lookup, where: str = "", depth: int = 0) -> Any:
    """Return a value without references: scalars, lists, dicts, sources and `Text`; nulls are left out of lists.

    A reference that is the whole text gives the value itself, a list within a list its members.

    Raises:
        InputError: an unknown name, or references in a circle, with file and line.
    """
    value, where = (given.value, given.where) if isinstance(given, Given) else (given, where)
    if depth > MAX_DEPTH:
        raise InputError(f"{where}: references lead in a circle; write one of the values out")
    if isinstance(value, dict):
        return {name: resolve(item, lookup, where, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        items = [resolve(item, lookup, where, depth + 1) for item in value]
        return [one for item in items for one in (item if isinstance(item, list) else [item]) if one is not None]
    if not isinstance(value, str):
        return value
    if whole := REFERENCE.fullmatch(value):
        return resolve(lookup(whole[1], where), lookup, where, depth + 1)
    return _text(value, lookup, where, depth)


def _text(value: str, lookup: Lookup, where: str, depth: int) -> Any:
    parts: list[str | Source] = []
    for number, piece in enumerate(REFERENCE.split(value)):
        if not number % 2:
            parts.append(piece)
            continue
        known = resolve(lookup(piece, where), lookup, where, depth + 1)
        if isinstance(known, list | dict) or known is None:
            raise InputError(f"{where}: {{{piece}}} is no single value, and {value!r} needs one; let it stand alone")
        parts += known.parts if isinstance(known, Text) else [known if hasattr(known, "identity") else as_word(known)]
    if all(isinstance(part, str) for part in parts):
        return "".join(map(str, parts))
    return Text(tuple(part for part in parts if part != ""))


def sources(value: Any) -> list[Any]:
    """Return every source that a resolved value points at, in order."""
    if isinstance(value, dict):
        return [one for item in value.values() for one in sources(item)]
    if isinstance(value, list):
        return [one for item in value for one in sources(item)]
    if isinstance(value, Text):
        return [part for part in value.parts if not isinstance(part, str)]
    return [value] if hasattr(value, "identity") else []


def identity(value: Any) -> Any:
    """Return a resolved value as JSON in which sources are named by what they are known by."""
    if isinstance(value, list):
        return [identity(item) for item in value]
    if isinstance(value, Text):
        return "".join(part if isinstance(part, str) else part.identity for part in value.parts)
    return value.identity if hasattr(value, "identity") else value


def words(value: Any, out: Path) -> list[str]:
    """Return a resolved value as the words that follow its flag, with paths for a store in ``out``."""
    if isinstance(value, list):
        return [word for item in value for word in words(item, out)]
    if isinstance(value, Text):
        return ["".join(part if isinstance(part, str) else part.path(out) for part in value.parts)]
    return [value.path(out) if hasattr(value, "identity") else as_word(value)]


def as_word(value: Any) -> str:
    """Return a scalar as it is typed."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
