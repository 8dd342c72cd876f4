"""Adds columns to a set, shard after shard, by makers of values: any number of processes, and on after a kill.

In: a set of shards, and a `Maker` for each column. Out: the files of `column_files`. Of a folder of this project they
lie beside its tars; of a set that others made, in a folder of their own.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from synclones.base.errors import InputError
from synclones.base.files import remove_dead_temporaries
from synclones.base.manifest import versions
from synclones.base.progress import Progress
from synclones.base.units import format_count
from synclones.shards.column_files import (
    ColumnFiles,
    ColumnType,
    begin_column,
    check_name,
    check_unlike,
    is_written,
    write_values,
)
from synclones.shards.index import Summary
from synclones.shards.lock import claim, remove_locks


class ColumnSet(Protocol):
    """The shards that columns are made of."""

    @property
    def folder(self) -> Path:
        """The folder that holds ``columns/``."""

    @property
    def shards(self) -> Sequence[str]:
        """Names of the shards, in order."""

    @property
    def num_samples(self) -> int:
        """Images of all shards."""

    def open(self, shard: str) -> Any:
        """Open a shard: the images of it."""

    def summary(self, shard: str) -> Summary:
        """Return what a column's shard is compared with: ``name``, ``ok`` and the sha256 of ``tar``."""


@dataclass(frozen=True, kw_only=True)
class Maker(ABC):
    """What makes the values of one column.

    Attributes:
        name: of the column.
        type: of its values.
        made_by: what they depend on, as JSON.
    """

    name: str
    type: ColumnType
    made_by: dict[str, Any]

    @abstractmethod
    def write(self, number: int, shard: Any, files: ColumnFiles, summary: Summary) -> None:
        """Write the values of the shard with this number in the set, whose json is ``summary``.

        Raises:
            ValueError, pa.ArrowException: there are none, or they are not of the column's type.
        """


class ValueMaker(Maker):
    """What makes a value per stored sample."""

    @abstractmethod
    def values(self, number: int, shard: Any) -> pa.Array:
        """Return a value per stored sample of the shard with this number in the set."""

    def write(self, number: int, shard: Any, files: ColumnFiles, summary: Summary) -> None:
        """Write them.

        Raises:
            ValueError, pa.ArrowException: they are not of the column's type.
        """
        write_values(files, summary, shard.index, self.values(number, shard))


def add_columns(shards: ColumnSet, makers: Sequence[Maker], command: str) -> str:
    """Add what makers make to a finished set, shard after shard, and return what was done, in a few lines.

    Any number of processes divide the shards, and the same call goes on after a kill.

    Raises:
        InputError: a name that is none or is taken, before anything is written; values that are not of their type.
        VerificationError: the set is damaged.
    """
    folder = shards.folder
    for maker in makers:
        check_name(maker.name)
        check_unlike(folder, maker.name, maker.type, maker.made_by)
    beside = {"command": command, "versions": versions()}
    columns = [begin_column(folder, m.name, m.type, m.made_by, beside) for m in makers]
    written = _write_all(shards, list(zip(makers, columns, strict=True)))
    for files in columns:
        remove_dead_temporaries(files.folder)
        remove_locks(files.folder)
    lines = (f"{files.folder}: {files.type}, {format_count(shards.num_samples, 'image')}" for files in columns)
    return "\n".join([*lines, f"{written} of {len(shards.shards) * len(columns)} shards written by this process"])


def _write_all(shards: ColumnSet, work: list[tuple[Maker, ColumnFiles]]) -> int:
    """Write what is missing; return how many shards' values this process wrote.

    First those that nobody else works on; then, when others are left, wait for them: a killed process lets go of its
    shard, and somebody has to write it.
    """
    before = sum(is_written(files, name) for _, files in work for name in shards.shards)
    with Progress("shards", len(work) * len(shards.shards), before, folder=shards.folder) as progress:
        for wait in (False, True):
            for number, name in enumerate(shards.shards):
                missing = [(maker, files) for maker, files in work if not is_written(files, name)]
                for maker, files in missing:
                    held = claim(files.folder, name, wait=wait)
                    if held is None:
                        continue
                    with held:
                        if not is_written(files, name):  # else another process finished it since
                            _write_one(shards, number, maker, files)
                            progress.add(1)
    return progress.own


def _write_one(shards: ColumnSet, number: int, maker: Maker, files: ColumnFiles) -> None:
    name = shards.shards[number]
    shard = shards.open(name)
    try:
        maker.write(number, shard, files, shards.summary(name))
    except (ValueError, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{files.folder}: {' '.join(str(error).split())[:200]}") from None
