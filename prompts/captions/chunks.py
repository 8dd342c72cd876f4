"""What every file format of captions gives: chunks that can be read independently, as texts under our names.

In: a path. Out: tables of ``caption``, ``class`` and ``source_key`` as stored, unchecked.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from synclones.base.errors import InputError
from synclones.shards.sources.files import PassedOver

# The columns that each of ours may be called by, in the order of preference.
ALIASES = {
    "caption": ("caption", "text", "prompt", "TEXT"),
    "class": ("class_id", "class", "label"),
    "source_key": ("source_key", "key", "url", "URL"),
}
Position = tuple[Any, ...]


class BadRow(Exception):
    """A row of a chunk that cannot be read: its number in the chunk, and why."""

    def __init__(self, row: int, why: str):
        super().__init__(why)
        self.row, self.why = row, why


class Format(ABC):
    """One file, or one folder of tars."""

    def __init__(self, path: Path):
        """Look at the beginning of the file.

        Raises:
            InputError: when it is not of this format.
        """
        self.path, self.passed = path, PassedOver()

    @abstractmethod
    def positions(self) -> Iterator[Position]:
        """Yield the position of each chunk, in order."""

    @abstractmethod
    def read(self, position: Position) -> pa.Table:
        """Return the columns of `ALIASES` that the file has, as texts.

        Raises:
            BadRow: for a row that cannot be read.
        """

    def where(self, row: int, position: Position) -> str:
        """Return the name of a row, counted from 0, for a message."""
        return f"{self.path}: row {row} (from 0)"


def match_columns(path: Path, columns: list[str]) -> dict[str, str]:
    """Return our name -> the file's.

    Raises:
        InputError: when no column is a caption, or one that is read stands twice.
    """
    matched = {}
    for ours, aliases in ALIASES.items():
        if present := [name for name in aliases if name in columns]:
            matched[ours] = present[0]
            if columns.count(present[0]) > 1:
                raise InputError(f"{path}: the column {present[0]!r} appears twice; rename one")
    if "caption" not in matched:
        raise InputError(
            f"{path}: the columns are {columns[:8]}, none is {' or '.join(ALIASES['caption'])}; rename one"
        )
    return matched


def as_text(values: pa.Array) -> pa.Array:
    """Return binary values as texts.

    Raises:
        BadRow: for the first that is not UTF-8.
    """
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        bad = next(n for n, value in enumerate(values.to_pylist()) if value is not None and not _is_utf8(value))
        raise BadRow(bad, "is not UTF-8 text; save the file as UTF-8") from None


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def renamed(table: pa.Table, names: dict[str, str]) -> pa.Table:
    """Return the columns ``names`` (ours -> the file's) under our names, as string[n]."""
    return pa.table({ours: table[name].cast(pa.string()).combine_chunks() for ours, name in names.items()})
