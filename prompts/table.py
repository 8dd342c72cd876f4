"""Write and read the prompt table: a Parquet file whose row i is the order for image i.

In: blocks of columns from a recipe, or a table that a user wrote. Out: ``*.parquet`` (zstd, row groups of 100,000
rows), read by row group so that 16 M rows need no memory.

Its identity is ``content_sha256`` (`schema.ContentHash`).
"""

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synclones.base.errors import InputError
from synclones.base.files import replaced_file
from synclones.base.json_file import parse_json
from synclones.prompts.characters import UNPRINTABLE
from synclones.prompts.schema import COLUMN_TYPES, DAMAGED, SCHEMA, ContentHash, PromptRow

ROWS_PER_GROUP = 100_000
MAX_ROWS = 2**32
MAX_LABEL = 2**24 - 1  # the names of all classes are in memory
MAX_CHARS = {"prompt": 2000, "class_id": 64, "recipe": 64, "source_key": 500, "detail": 4000}
MAX_GROUP_ROWS = 4_000_000  # a row group is read whole
METADATA_KEY = b"synclones"
_FACTS = {"class_ids": list, "class_names": dict, "sources": dict, "images_per_caption": int, "seed": int}


def check_out(path: Path) -> None:
    """Check the name of the output file.

    Raises:
        InputError: when it does not end in ``.parquet``, which Parquet readers expect.
    """
    if path.suffix != ".parquet":
        raise InputError(f"--out: {path} was given, expected a file name that ends in .parquet")


def write_table(
    path: Path, blocks: Iterable[pa.Table], metadata: dict[str, Any], on_block: Callable[[pa.Table], None] | None = None
) -> str:
    """Write blocks of rows (of `SCHEMA`) to ``path`` atomically; return ``content_sha256``.

    ``metadata`` is stored with ``num_rows`` and ``content_sha256`` as JSON in the file's schema metadata. While a block
    is hashed and compressed, and ``on_block`` is called with it, the next one is made.
    """
    path = Path(path)
    content, num_rows = ContentHash(), 0
    with replaced_file(path) as file:
        with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer, ThreadPoolExecutor(2) as pool:
            pending: list[Future[None]] = []
            for block in blocks:
                num_rows += len(block)
                for earlier in pending:
                    earlier.result()
                pending = [pool.submit(writer.write_table, block, ROWS_PER_GROUP), pool.submit(content.update, block)]
                if on_block is not None:
                    on_block(block)
            for last in pending:
                last.result()
            digest = content.hexdigest()
            record = {"schema_version": 1, **metadata, "num_rows": num_rows, "content_sha256": digest}
            writer.add_key_value_metadata({METADATA_KEY.decode(): json.dumps(record, sort_keys=True)})
    return digest


class PromptTable:
    """A prompt table on disk, opened without reading its rows."""

    def __init__(self, path: Path | str):
        """Open the file and check its columns.

        Raises:
            InputError: when it is missing, not Parquet, or lacks a column.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"--prompts: no file {str(path)!r}; make one with `synclones prompts build`")
        try:
            self._file = pq.ParquetFile(self.path)
        except DAMAGED as error:
            raise InputError(f"{path}: not a Parquet file ({str(error).splitlines()[0][:80]})") from None
        self.num_rows: int = self._file.metadata.num_rows
        self.metadata = self._read_metadata()
        self._starts = np.cumsum(
            [0] + [self._file.metadata.row_group(g).num_rows for g in range(self._file.num_row_groups)]
        )
        self._group = lru_cache(maxsize=2)(self._read_group)
        self._check_schema()

    def _read_metadata(self) -> dict[str, Any]:
        """Return what the builder recorded; nothing of a type that it would not have written."""
        try:
            record = parse_json((self._file.metadata.metadata or {}).get(METADATA_KEY, b"{}"))
        except ValueError:
            record = {}
        known = record if isinstance(record, dict) else {}
        return {name: value for name, value in known.items() if isinstance(value, _FACTS.get(name, object))}

    def _check_schema(self) -> None:
        # Columns by name and kind: other writers may choose other widths.
        stored = self._file.schema_arrow
        for field in SCHEMA:
            if stored.names.count(field.name) != 1:
                problem = "is missing" if field.name not in stored.names else "appears twice"
                raise InputError(f"{self.path}: column {field.name!r} {problem}; expected {', '.join(SCHEMA.names)}")
            kind = stored.field(field.name).type
            same = (
                pa.types.is_integer(kind)
                if field.name in COLUMN_TYPES
                else pa.types.is_string(kind) or pa.types.is_large_string(kind)
            )
            if not same:
                raise InputError(f"{self.path}: column {field.name!r} has type {kind}, expected {field.type}")
        # Then what cannot be drawn, or not read in pieces.
        if self.num_rows == 0:
            raise InputError(f"{self.path}: the table has no rows; build one with `synclones prompts build`")
        if self.num_rows > MAX_ROWS:
            raise InputError(
                f"{self.path}: {self.num_rows} rows, at most 2^32 images have different noise; split the table"
            )
        largest = int(np.diff(self._starts).max())
        if largest > MAX_GROUP_ROWS:
            raise InputError(
                f"{self.path}: a row group has {largest} rows, at most {MAX_GROUP_ROWS} are read at once; "
                f"write it with row_group_size={ROWS_PER_GROUP}"
            )

    def _read_group(self, group: int) -> pa.Table:
        # Files of other writers may hold int32 indices, large strings or nullable columns without nulls.
        try:
            block = self._file.read_row_group(group, columns=SCHEMA.names).select(SCHEMA.names)
        except DAMAGED as error:
            if isinstance(error, OSError) and error.errno:
                raise  # the disk's fault, not the file's
            raise InputError(
                f"{self.path}: damaged in rows {self._starts[group]} to {self._starts[group + 1] - 1} "
                f"({str(error).splitlines()[0][:80]}); copy or build it again"
            ) from None
        self._refuse_broken_text(int(self._starts[group]), block)
        for name in SCHEMA.names:
            nulls = pc.is_null(block.column(name))
            self._refuse(int(self._starts[group]), nulls, block, name, "is empty (null), expected a value")
        self._check_integers(int(self._starts[group]), block)
        return block

    def _refuse_broken_text(self, first: int, block: pa.Table) -> None:
        """Refuse texts that are not UTF-8: Parquet does not check, and lone surrogates would fail only when used."""
        for name in MAX_CHARS:
            column = block.column(name)
            try:
                column.validate(full=True)
            except pa.ArrowInvalid:
                at = next(k for k, value in enumerate(column) if not _is_utf8(value))
                raise InputError(
                    f"{self.path}: row {first + at}: {name} is not UTF-8 (a lone surrogate?); write it again"
                ) from None

    def rows(self, start: int, stop: int) -> list[PromptRow]:
        """Return rows start..stop-1, 0 <= start <= stop <= num_rows."""
        rows: list[PromptRow] = []
        for group in range(int(np.searchsorted(self._starts, start, "right")) - 1, self._file.num_row_groups):
            first = int(self._starts[group])
            if first >= stop:
                break
            part = self._group(group).slice(
                max(0, start - first), min(stop, int(self._starts[group + 1])) - max(start, first)
            )
            rows += [PromptRow(**values) for values in part.to_pylist()]
        return rows

    def blocks(self, num_rows: int | None = None) -> Iterator[tuple[int, pa.Table]]:
        """Yield (first row, columns as `SCHEMA`) of each row group, up to ``num_rows`` rows."""
        limit = self.num_rows if num_rows is None else num_rows
        for group, first in enumerate(self._starts[:-1].tolist()):
            if first < limit:
                yield first, self._read_group(group).slice(0, limit - first)

    def group_of(self, row: int) -> int:
        """Return the number of the row group that holds a row, 0 <= row < num_rows."""
        return int(np.searchsorted(self._starts, row, "right")) - 1

    def rows_of(self, group: int) -> range:
        """Return which rows a row group holds."""
        return range(int(self._starts[group]), int(self._starts[group + 1]))

    def prompts(self, group: int) -> pa.ChunkedArray:
        """Read the prompts of a row group and nothing else, in a tenth of the time of its rows.

        Raises:
            InputError: the file is damaged there.
        """
        try:
            prompts = self._file.read_row_group(group, columns=["prompt"])["prompt"]
            prompts.validate(full=True)
        except DAMAGED as error:
            if isinstance(error, OSError) and error.errno:
                raise
            prompts = None
        if prompts is None or len(prompts) != len(self.rows_of(group)) or prompts.null_count:
            raise InputError(f"{self.path}: row group {group} is damaged; copy or build it again")
        return prompts

    def prefix_sha256(self, num_rows: int) -> str:
        """Return the ``content_sha256`` of the table of the first ``num_rows`` rows."""
        content = ContentHash()
        for _, block in self.blocks(num_rows):
            content.update(block.cast(SCHEMA))
        return content.hexdigest()

    def check(self) -> str:
        """Read all rows once, refuse the first bad one, and return ``content_sha256``.

        Raises:
            InputError: for a bad row, by file, row and column; or when the rows do not match the hash in the file.
        """
        content = ContentHash()
        with ThreadPoolExecutor(2) as pool:  # sixteen million rows are read before every start: hash, check and read
            coming, hashed = pool.submit(self._read_group, 0), pool.submit(content.update, SCHEMA.empty_table())
            for group, first in enumerate(self._starts[:-1].tolist()):
                block = coming.result()
                if group + 1 < self._file.num_row_groups:
                    coming = pool.submit(self._read_group, group + 1)
                self._check_block(first, block)
                hashed.result()
                hashed = pool.submit(content.update, block.cast(SCHEMA))
            hashed.result()
        digest = content.hexdigest()
        stated = str(self.metadata.get("content_sha256", digest))
        if stated != digest:
            raise InputError(
                f"{self.path}: its rows were changed after it was built (content {digest[:12]}, stated {stated[:12]}); "
                "build it again, or write a table without the `synclones` metadata"
            )
        return digest

    def _check_block(self, first: int, block: pa.Table) -> None:
        self._check_texts(first, block)
        index = block.column("index")
        position = pa.array(np.arange(first, first + len(block)))
        prompt, label, class_id = (block.column(name) for name in ("prompt", "label", "class_id"))
        self._refuse(
            first, pc.not_equal(index, position), block, "index", "is not the row's number; number rows from 0"
        )
        self._refuse(first, pc.equal(pc.utf8_trim_whitespace(prompt), ""), block, "prompt", "is empty; write a prompt")
        unnamed = pc.and_(pc.greater_equal(label, 0), pc.equal(class_id, ""))
        self._refuse(first, unnamed, block, "class_id", "is empty although the row has a label; name its class")

    def _check_integers(self, first: int, block: pa.Table) -> None:
        below = pc.less(block.column("label"), -1)
        self._refuse(first, below, block, "label", "is below -1; give a class number, or -1 for none")
        for name, kind in COLUMN_TYPES.items():
            largest, column = MAX_LABEL if name == "label" else 2 ** (kind.bit_width - 1) - 1, block.column(name)
            limit = pa.scalar(largest, pa.uint64() if pa.types.is_uint64(column.type) else pa.int64())
            self._refuse(first, pc.greater(column, limit), block, name, f"is above {largest}; give a smaller number")

    def _check_texts(self, first: int, block: pa.Table) -> None:
        for name, limit in MAX_CHARS.items():
            column = block.column(name)
            too_long = pc.greater(pc.utf8_length(column), limit)
            self._refuse(first, too_long, block, name, f"is longer than {limit} characters; shorten it")
            if not pc.all(pc.ascii_is_printable(column)).as_py():  # most texts need no slow expression
                control = pc.match_substring_regex(column, UNPRINTABLE)
                self._refuse(first, control, block, name, "holds a line break or control character; remove it")

    def _refuse(self, first: int, bad: pa.ChunkedArray, block: pa.Table, column: str, problem: str) -> None:
        if pc.any(bad).as_py():
            at = pc.index(bad, True).as_py()
            given = repr(block.column(column)[at].as_py())
            raise InputError(f"{self.path}: row {first + at}: {column} {given[:60]} {problem}")

    def has_labels(self, num_rows: int) -> bool:
        """Return whether each of the first ``num_rows`` rows has a label."""
        groups = range(int(np.searchsorted(self._starts, num_rows, "left")))
        labels = (self._file.read_row_group(group, columns=["label"])["label"] for group in groups)
        firsts = self._starts[:-1].tolist()
        return all(
            pc.min(own.slice(0, num_rows - first)).as_py() >= 0 for own, first in zip(labels, firsts, strict=False)
        )

    def class_ids(self) -> tuple[str, ...]:
        """Return the class of each label in order: as the builder recorded it, else as the rows do; "" where none does.

        Raises:
            InputError: when two rows give one label different classes.
        """
        recorded = self.metadata.get("class_ids")
        if isinstance(recorded, list):
            return tuple(str(class_id) for class_id in recorded)
        by_label: dict[int, str] = {}
        for _, block in self.blocks():
            for pair in block.select(["label", "class_id"]).group_by(["label", "class_id"]).aggregate([]).to_pylist():
                label, class_id = pair["label"], pair["class_id"]
                if by_label.setdefault(label, class_id) != class_id and label >= 0:
                    raise InputError(
                        f"{self.path}: label {label} is {by_label[label]!r} and {class_id!r}; give each class its label"
                    )
        return tuple(by_label.get(label, "") for label in range(max(by_label, default=-1) + 1))


def class_names(metadata: dict[str, Any]) -> dict[str, str]:
    """Return class_id -> name as recorded by the builder; empty for a user's own table."""
    names = metadata.get("class_names", {})
    return {str(key): str(name) for key, name in names.items()} if isinstance(names, dict) else {}


def _is_utf8(value: pa.Scalar) -> bool:
    try:
        value.as_py()
    except UnicodeDecodeError:
        return False
    return True
