"""Reads the rows that a user has for the images of a set: Parquet, CSV or JSONL with an index, in blocks.

In: a file with a column ``index``, ``key`` or ``source_key`` and others. Out: which image each row is of, and columns
as one of the kinds that side columns have. Of Parquet a row group is in memory at a time; of the others all rows are.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from synclones.base.errors import InputError
from synclones.base.json_file import parse_json
from synclones.shards.column_files import ColumnType
from synclones.shards.schema import MAX_INDEX
from synclones.shards.sources.values import as_values, numbers_in_texts, type_of

By = Literal["index", "key", "source_key"]
KEYS: tuple[By, ...] = ("source_key", "index", "key")
MAX_TEXT_FILE_BYTES = 2**31
_MAX_LINE_BYTES = 2**26
_ALL_AT_ONCE = 2**30  # bytes of a file whose blocks are kept: rows in any order then cost one reading
# Of pyarrow, whose OSError is damage unless it has a number, and whose OverflowError is an integer of over 64 bits.
_DAMAGED = (pa.ArrowException, ValueError, OSError, OverflowError)


class RowFile:
    """A file of rows, opened.

    Attributes:
        names: of its columns.
        num_blocks: how many parts it is read in.
    """

    def __init__(self, path: Path, flag: str = "--from"):
        """Look at a file; ``flag`` is what the user gave it by.

        Raises:
            InputError: none, or of another format.
        """
        self.path = path
        if not path.is_file():
            raise InputError(f"{flag}: no file {str(path)!r}; give a Parquet, CSV or JSONL file")
        readers = {".parquet": self._open_parquet, ".csv": self._open_csv, ".tsv": self._open_csv}
        readers |= {".jsonl": self._open_jsonl, ".ndjson": self._open_jsonl}
        if path.suffix.lower() not in readers:
            raise InputError(f"{flag}: {path} was given, expected a name that ends in {', '.join(readers)}")
        self._table: pa.Table | None = None
        try:
            readers[path.suffix.lower()]()
        except _DAMAGED as error:
            raise self._damaged(error) from None
        twice = next((name for name in self.names if self.names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{path}: the column {twice!r} appears twice; rename one")

    def _damaged(self, error: Exception) -> InputError:
        """Return the line for what a library could not read; the disk's own failures are raised as they are."""
        if isinstance(error, InputError) or (isinstance(error, OSError) and error.errno):
            raise error
        return InputError(f"{self.path}: cannot be read ({' '.join(str(error).split())[:100]}); write it again")

    def _open_parquet(self) -> None:
        self._file = pq.ParquetFile(self.path)
        self.names, self.num_blocks = self._file.schema_arrow.names, self._file.num_row_groups
        sizes = [self._file.metadata.row_group(number).total_byte_size for number in range(self.num_blocks)]
        self.keeps_all = sum(sizes) <= _ALL_AT_ONCE

    def _open_csv(self) -> None:
        self._check_size()
        parse = pyarrow.csv.ParseOptions(
            delimiter="\t" if self.path.suffix.lower() == ".tsv" else ",", newlines_in_values=True
        )
        with pyarrow.csv.open_csv(self.path, parse_options=parse) as reader:
            texts = dict.fromkeys(reader.schema.names, pa.string())
        convert = pyarrow.csv.ConvertOptions(column_types=texts, strings_can_be_null=False)
        table = pyarrow.csv.read_csv(self.path, parse_options=parse, convert_options=convert)
        self._take(numbers_in_texts(set(texts) - set(KEYS), table))

    def _open_jsonl(self) -> None:
        self._check_size()
        rows: list[dict[str, Any]] = []
        with self.path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_BYTES), b""), start=1):
                if not line.strip():
                    continue
                try:
                    row = parse_json(line)
                except ValueError as error:
                    raise InputError(f"{self.path}:{number}: no JSON ({error}); write an object a line") from None
                if not isinstance(row, dict):
                    raise InputError(f"{self.path}:{number}: no JSON object; write an object a line")
                rows.append(row)
        names = list(dict.fromkeys(name for row in rows for name in row))
        self._take(pa.table({name: pa.array([row.get(name) for row in rows]) for name in names}))

    def _check_size(self) -> None:
        size = self.path.stat().st_size
        if size > MAX_TEXT_FILE_BYTES:
            raise InputError(f"{self.path}: {size} bytes, at most {MAX_TEXT_FILE_BYTES} are read; write it as Parquet")

    def _take(self, table: pa.Table) -> None:
        self._table, self.names, self.num_blocks, self.keeps_all = table, table.column_names, 1, True

    def block(self, number: int, columns: Sequence[str]) -> pa.Table:
        """Read some columns of a part.

        Raises:
            InputError: it is damaged.
        """
        if self._table is not None:
            return self._table.select(list(columns))
        try:
            table = self._file.read_row_group(number, columns=list(columns)).select(list(columns))
            table.validate(full=True)
        except _DAMAGED as error:
            raise self._damaged(error) from None
        return table


class MatchedRows:
    """The rows of a file by the image that they are of. Safe to use from one thread.

    Attributes:
        by: the column that tells.
        foreign: how many rows are of no stored image.
    """

    def __init__(self, file: RowFile, columns: Sequence[str], by: By, source: str, stored: Sequence[np.ndarray]):
        """Look at all rows once.

        Args:
            by: column of the file.
            source: what ``source_key`` begins with, for images of the set.
            stored: the indices of the stored images of each shard, ascending.

        Raises:
            InputError: a row without a usable index, or no row of any stored image.
        """
        self._file, self._columns, self.by, self._source = file, list(columns), by, source
        # All images of the set by number, so that a row's image is one search away; 16 bytes each.
        index = np.concatenate([np.asarray(part, np.int64) for part in stored] or [np.zeros(0, np.int64)])
        self._order = np.argsort(index, kind="stable")
        self._sorted = index[self._order]
        self._ends = np.cumsum([len(part) for part in stored])
        self.counts = {name: np.zeros(len(index), np.int32) for name in columns}
        self.types: dict[str, ColumnType] = {}
        self._cached = lru_cache(maxsize=None if file.keeps_all else 4)(self._read)
        self._blocks_of_shard: list[list[int]] = [[] for _ in stored]
        # Every value is looked at once: what is wrong is known before anything is written.
        self.foreign, num_rows = 0, 0
        for number in range(file.num_blocks):
            positions, table = self._cached(number)
            self.foreign += int(np.count_nonzero(positions < 0))
            num_rows += len(positions)
            self._count(number, positions, table)
        if self.foreign == num_rows:
            raise InputError(f"{file.path}: none of its {num_rows} rows is of an image of the set by {by!r}")

    def _count(self, number: int, positions: np.ndarray, table: pa.Table) -> None:
        for name in self._columns:
            column = table[name].combine_chunks()
            kind = self._checked(name, column)
            known = self.types.setdefault(name, kind)
            if known != kind:
                raise InputError(f"{self._file.path}: column {name!r} holds {known} and {kind}; make them alike")
            has_value = (positions >= 0) & ~np.asarray(column.is_null())
            np.add.at(self.counts[name], positions[has_value], 1)
        shards = np.unique(np.searchsorted(self._ends, positions[positions >= 0], "right"))
        for shard in shards.tolist():
            self._blocks_of_shard[shard].append(number)

    def _checked(self, name: str, column: pa.Array) -> ColumnType:
        known = self.types.get(name)
        try:
            kind = known if known and column.null_count == len(column) else type_of(column)
            as_values(column, kind)  # every value is looked at before one is written
        except _DAMAGED as error:
            raise InputError(f"{self._file.path}: column {name!r}: {str(error)[:160]}") from None
        return kind

    def _read(self, number: int) -> tuple[np.ndarray, pa.Table]:
        """Return the position of each row's image among all stored ones, or -1, and the values."""
        table = self._file.block(number, [self.by, *(name for name in self._columns if name != self.by)])
        index = self._indices(table[self.by].combine_chunks())
        at = np.searchsorted(self._sorted, index).clip(max=len(self._sorted) - 1)
        return np.where(self._sorted[at] == index, self._order[at], -1), table

    def _indices(self, column: pa.Array) -> np.ndarray:
        """Return the image number that each row names, or -1 for an image of another set."""
        where = f"{self._file.path}: column {self.by!r}"
        if column.null_count:
            raise InputError(f"{where}: a row has none (null); give every row its image, or leave the row out")
        if self.by == "index":
            try:
                numbers = column.cast(pa.int64()).to_numpy()
            except _DAMAGED:
                raise InputError(f"{where}: holds {column.type}, expected whole numbers; or choose --by key") from None
            if len(numbers) and not 0 <= numbers.min() <= numbers.max() < MAX_INDEX:
                raise InputError(f"{where}: {numbers.min()} to {numbers.max()}, expected 0 to 2^32-1")
            return np.asarray(numbers)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise InputError(f"{where}: holds {column.type}, expected texts such as '0000000007'")
        pattern = r"^(?P<head>[^/]*)/(?:[^/]*/)*(?P<key>[0-9]{1,10})$" if self.by == "source_key" else _KEY
        parts = pc.extract_regex(column, pattern)
        keys = pc.fill_null(pc.struct_field(parts, "key").cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
        if self.by == "source_key":
            own = pc.fill_null(pc.equal(pc.struct_field(parts, "head"), self._source), False)
            keys = np.where(own.to_numpy(zero_copy_only=False), keys, -1)
        return np.asarray(keys)

    def of_shard(self, shard: int, name: str) -> tuple[np.ndarray, pa.Array]:
        """Return the rows of a shard's images that have a value: position in the shard, and value, in the file's order.

        Rows of one image follow each other.
        """
        start = int(self._ends[shard - 1]) if shard else 0
        stop, kind = int(self._ends[shard]), self.types[name]
        parts: list[tuple[np.ndarray, pa.Array]] = []
        for number in self._blocks_of_shard[shard]:
            positions, table = self._cached(number)
            column = table[name].combine_chunks()
            rows = np.flatnonzero((positions >= start) & (positions < stop) & ~np.asarray(column.is_null()))
            parts.append((positions[rows] - start, as_values(column.take(pa.array(rows)), kind)))
        if not parts:
            return np.zeros(0, np.int64), pa.array([], kind.arrow)
        positions = np.concatenate([part for part, _ in parts])
        order = np.argsort(positions, kind="stable")
        return positions[order], pa.concat_arrays([values for _, values in parts]).take(pa.array(order))


_KEY = r"^(?P<key>[0-9]{1,10})$"


def key_column(file: RowFile, asked: str, source: str) -> By:
    """Return the column by which rows find their images: the one asked for, else the first that the file has.

    A ``source_key`` counts when its first row is of the set: prompt tables may have those of other images.

    Raises:
        InputError: there is none.
    """
    chosen = [name for name in KEYS if name in file.names and asked in ("auto", name)]
    if asked == "auto" and chosen[:1] == ["source_key"] and len(chosen) > 1 and file.num_blocks:
        first = file.block(0, ["source_key"])["source_key"].slice(0, 1).to_pylist()
        if not str(first[0] if first else "").startswith(f"{source}/"):
            chosen = chosen[1:]
    if not chosen:
        wanted = " or ".join(map(repr, KEYS)) if asked == "auto" else repr(asked)
        raise InputError(
            f"{file.path}: the columns are {file.names[:8]}, none is {wanted}; say which image a row is of"
        )
    return chosen[0]
