"""Read the file formats of captions, each in chunks of about a megabyte that can be read independently.

In: txt (a caption a line), CSV, TSV, JSONL, Parquet, or tars of another program. Out: tables of ``caption``, ``class``
and ``source_key`` as stored, unchecked; a chunk's position is all that is needed to read it again.
"""

import codecs
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from synclones.base.errors import InputError
from synclones.base.json_file import parse_json
from synclones.prompts.captions.chunks import ALIASES, BadRow, Format, Position, as_text, match_columns, renamed
from synclones.prompts.schema import DAMAGED
from synclones.shards.sources.files import list_files, listing_sha256, tar_key
from synclones.shards.sources.tars import read_texts

CHUNK_BYTES = 1 << 20
MAX_RECORD_BYTES = 1 << 26
SAMPLES_PER_CHUNK = 500


def _end_of_text(path: Path) -> int:
    """Return the bytes of a file without the empty lines at its end, which are no records."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for start in reversed(range(0, size, CHUNK_BYTES)):
            file.seek(start)
            if text := file.read(CHUNK_BYTES).rstrip(b" \t\r\n"):
                file.seek(start + len(text))
                return start + len(text) + len(file.readline())
    return 0


class Lines(Format):
    """One record a line; subclasses define where records end and how they are parsed."""

    def __init__(self, path: Path):
        super().__init__(path)
        with path.open("rb") as file:  # a byte order mark is no part of the first record
            self.header_bytes = len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0

    def positions(self) -> Iterator[Position]:
        start, end_of_text = self.header_bytes, _end_of_text(self.path)
        with self.path.open("rb") as file:
            file.seek(start)
            rest = b""
            while block := file.read(max(0, min(CHUNK_BYTES, end_of_text - file.tell()))):
                rest += block
                end = self.last_end(rest)
                if end:
                    yield (start, end)
                    start, rest = start + end, rest[end:]
                elif len(rest) > MAX_RECORD_BYTES:
                    raise InputError(
                        f"{self.path}: a record of over 64 MB begins at byte {start}; is a quote not closed?"
                    )
            if rest:
                yield (start, len(rest))

    def last_end(self, data: bytes) -> int:
        """Return the bytes up to the last end of a record; 0 when there is none."""
        return data.rfind(b"\n") + 1

    def bytes_at(self, position: Position) -> bytes:
        start, size = position
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(size)

    def where(self, row: int, position: Position) -> str:
        return f"{self.path}:{row + 1}"


class Text(Lines):
    """A caption a line."""

    def read(self, position: Position) -> pa.Table:
        lines = self.bytes_at(position).removesuffix(b"\n").split(b"\n")
        return pa.table({"caption": as_text(pa.array([line.removesuffix(b"\r") for line in lines], pa.binary()))})


class Jsonl(Lines):
    """An object a line."""

    def __init__(self, path: Path):
        super().__init__(path)
        with path.open("rb") as file:
            file.seek(self.header_bytes)
            first = _object(file.readline(MAX_RECORD_BYTES), f"{path}:1")
        self._names = match_columns(path, list(first))
        self._types = {
            name: pa.int64() if isinstance(first[name], int) else pa.string() for name in self._names.values()
        }

    def read(self, position: Position) -> pa.Table:
        data = self.bytes_at(position)
        options = pa.json.ParseOptions(explicit_schema=pa.schema(self._types), unexpected_field_behavior="ignore")
        whole = pa.json.ReadOptions(use_threads=False, block_size=len(data) + 1)
        try:
            table = pa.json.read_json(io.BytesIO(data), whole, options)
        except pa.ArrowInvalid:
            table = self._slowly(data)
        if len(table) != data.count(b"\n") + (not data.endswith(b"\n")):
            table = self._slowly(data)  # a lone line break is no record to the fast reader
        return renamed(table, self._names)

    def _slowly(self, data: bytes) -> pa.Table:
        """Parse the same in Python, which tells which line is wrong."""
        rows = []
        for number, line in enumerate(data.removesuffix(b"\n").split(b"\n")):
            try:
                row = _object(line, "")
                rows.append({name: pa.scalar(row.get(name), kind).as_py() for name, kind in self._types.items()})
            except (InputError, pa.ArrowInvalid, TypeError, OverflowError) as error:
                raise BadRow(number, f"is no object like the first ({str(error)[:80].strip(': ')})") from None
        return pa.Table.from_pylist(rows, schema=pa.schema(self._types))


class Csv(Lines):
    """Comma or tab separated, with a header; quoted values may hold line breaks."""

    def __init__(self, path: Path):
        super().__init__(path)
        with path.open("rb") as file:
            header = file.readline(MAX_RECORD_BYTES)
        self.header_bytes = len(header)
        self._delimiter = "\t" if path.suffix == ".tsv" else ","
        try:
            names = header.decode("utf-8-sig").strip("\r\n").split(self._delimiter)
        except UnicodeDecodeError:
            raise InputError(f"{path}:1: not UTF-8 text; save it as UTF-8") from None
        self._header = [name.strip('"') for name in names]
        self._names = match_columns(path, self._header)

    def last_end(self, data: bytes) -> int:
        if b'"' not in data:
            return super().last_end(data)
        letters = np.frombuffer(data, dtype=np.uint8)
        # A line break ends a record when the quotes before it are closed: RFC 4180 doubles a quote inside a value.
        outside = np.cumsum(letters == ord('"'), dtype=np.uint32) % 2 == 0
        ends = np.flatnonzero((letters == ord("\n")) & outside)
        return int(ends[-1]) + 1 if len(ends) else 0

    def read(self, position: Position) -> pa.Table:
        # All columns are read as bytes: pyarrow would guess numbers, and name no row for a text that is not UTF-8.
        data = self.bytes_at(position)
        wrong: list[Any] = []

        def note(row: Any) -> str:
            wrong.append(row)
            return "skip"

        parse = pa.csv.ParseOptions(
            delimiter=self._delimiter,
            newlines_in_values=True,
            ignore_empty_lines=False,
            invalid_row_handler=note,
        )
        convert = pa.csv.ConvertOptions(
            column_types=dict.fromkeys(self._header, pa.binary()),
            include_columns=list(self._names.values()),
            strings_can_be_null=False,
        )
        whole = pa.csv.ReadOptions(use_threads=False, column_names=self._header, block_size=len(data) + 1)
        try:
            table = pa.csv.read_csv(io.BytesIO(data), whole, parse, convert)
        except pa.ArrowInvalid as error:
            raise BadRow(0, f"or one after it is not of this file's form ({str(error)[:80]})") from None
        # Rows that were skipped would shift all that follow: the first of them stops the table by its number.
        if wrong:
            first = wrong[0]
            number = 0 if first.number is None else first.number - 1
            raise BadRow(
                number, f"has {first.actual_columns} columns, expected {first.expected_columns}; check its quotes"
            )
        texts = pa.table({name: as_text(table[name].combine_chunks()) for name in table.column_names})
        return renamed(texts, self._names)

    def where(self, row: int, position: Position) -> str:
        return f"{self.path}: row {row} (from 0, below the header)"


class Parquet(Format):
    """A column of captions; a chunk is a row group."""

    def __init__(self, path: Path):
        super().__init__(path)
        try:
            self._file = pq.ParquetFile(path)
        except DAMAGED as error:
            raise InputError(f"{path}: not a Parquet file ({str(error).splitlines()[0][:80]})") from None
        self._names = match_columns(path, self._file.schema_arrow.names)

    def positions(self) -> Iterator[Position]:
        yield from ((group,) for group in range(self._file.num_row_groups))

    def read(self, position: Position) -> pa.Table:
        try:
            table = self._file.read_row_group(position[0], columns=list(self._names.values()), use_threads=False)
            texts = {name: table[name].cast(pa.string()).combine_chunks() for name in table.column_names}
        except DAMAGED as error:
            if isinstance(error, OSError) and error.errno:
                raise  # the disk's fault, not the file's
            raise BadRow(0, f"or one after it cannot be read as text ({str(error)[:80]})") from None
        # Parquet does not check that texts are UTF-8.
        checked = {name: as_text(column.cast(pa.binary())) for name, column in texts.items()}
        return renamed(pa.table(checked), self._names)


class Tars(Format):
    """A folder of WebDataset tars, or one of them: the caption is `txt`, else in `json`; `cls` is the class."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._tars, are_tars = list_files(path, self.passed)
        if not self._tars or not are_tars:
            raise InputError(f"{path}: no *.tar in this folder; give a folder of shards, or a file of captions")
        self._source = listing_sha256(self._tars)[:12]

    def positions(self) -> Iterator[Position]:
        for number, tar in enumerate(self._tars):
            for number_in_tar, sample in enumerate(read_texts(tar, passed=self.passed)):
                if number_in_tar % SAMPLES_PER_CHUNK == 0:
                    yield (number, sample.offset)

    def read(self, position: Position) -> pa.Table:
        number, offset = position
        tar = self._tars[number]
        samples = list(islice(read_texts(tar, offset), SAMPLES_PER_CHUNK))
        texts = pa.array([_caption(sample.members) for sample in samples], pa.binary())
        columns = {"caption": as_text(texts), "source_key": [tar_key(self._source, tar, s.key) for s in samples]}
        if any(sample.label is not None for sample in samples):
            columns["class"] = ["" if sample.label is None else str(sample.label) for sample in samples]
        return pa.table(columns)

    def where(self, row: int, position: Position) -> str:
        return f"{self._tars[position[0]]}: caption {row} of {self.path} (from 0)"


FORMATS: dict[str, type[Format]] = {
    ".txt": Text,
    ".csv": Csv,
    ".tsv": Csv,
    ".jsonl": Jsonl,
    ".parquet": Parquet,
    ".tar": Tars,
}


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = parse_json(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{where}: {str(value)[:40]!r} is no JSON object")
    return value


def _caption(members: dict[str, bytes]) -> bytes:
    if members.get("txt") or not members.get("json"):
        return members.get("txt", b"")
    try:
        value = parse_json(members["json"])
    except ValueError:
        return b""
    names = ALIASES["caption"]
    given = next((value[name] for name in names if value.get(name)), "") if isinstance(value, dict) else ""
    return str(given).encode() if isinstance(given, str | int | float) else b""  # of a list, which one?
