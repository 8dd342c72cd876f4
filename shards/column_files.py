"""The format of side columns: values for the images of a set, in files beside it that leave its identity alone.

In and out: ``columns/NAME/column.json`` (type, and what made it; written first), and for every shard of the set
``train-00000.parquet`` (``index`` and ``value``, row i of stored sample i) with ``train-00000.json`` (its hash, and the
hash of the tar that it belongs to; written last). Everything read is checked against both.
"""

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synclones.base.differences import differences
from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.json_file import pretty_json, read_json, read_regular
from synclones.shards.index import Summary, own_summary
from synclones.shards.lock import claim
from synclones.shards.schema import ShardFiles
from synclones.shards.write import parquet_bytes

COLUMNS, FACTS, FORMAT = "columns", "column.json", 1
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
MAX_VALUES = 2**29  # numbers, or bytes of text, of one shard: all of them are in memory at once
MAX_TEXTS = 2**24  # of one shard
TOKENS: Literal["tokens"] = "tokens"
Kind = Literal["text", "texts", "number", "array", "tokens"]
_DTYPES = {"number": ("int64", "float64"), "array": ("float16", "float32"), TOKENS: ("uint16",)}
_AXES = {"array": (1, 2), TOKENS: (1,)}
_ARROW = {"int64": pa.int64(), "float64": pa.float64(), "float16": pa.float16(), "float32": pa.float32()}


@dataclass(frozen=True)
class ColumnType:
    """What the values of a column are."""

    kind: Kind
    """``text``; ``texts``, several for an image; ``number``; ``array`` of one shape; ``tokens`` (`token_files`)."""
    dtype: str = ""
    """int64 or float64 of numbers, float16 or float32 of arrays, uint16 of token ids; empty for texts."""
    shape: tuple[int, ...] = ()
    """Of an array: (k,), or (showings, k) for another vector each time that the image is shown; ids of a caption."""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind, self.dtype, str(list(self.shape)) if self.shape else "")))

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type of the values in a file; of an array with two axes they are joined into one list."""
        if self.kind == "array":
            return pa.list_(_ARROW[self.dtype], prod(self.shape))
        return {"text": pa.string(), "texts": pa.list_(pa.string())}.get(self.kind) or _ARROW[self.dtype]

    def record(self) -> dict[str, Any]:
        """Return the type as a JSON object."""
        return {"kind": self.kind, "dtype": self.dtype, "shape": list(self.shape)}


def _type_of(record: Any) -> ColumnType:
    """Read a type that somebody else may have written; ValueError, or an error like it, for what is none."""
    kind, dtype, shape = record["kind"], record["dtype"], tuple(record["shape"])
    sound = (
        kind in get_args(Kind) and dtype in _DTYPES.get(kind, ("",)) and all(type(n) is int and n > 0 for n in shape)
    )
    if not (sound and len(shape) in _AXES.get(kind, (0,)) and prod(shape) <= MAX_VALUES):
        raise ValueError("no type of a column")
    return ColumnType(kind, dtype, shape)


@dataclass(frozen=True)
class ColumnFiles:
    """A column of a dataset folder.

    Attributes:
        set_folder: the dataset folder.
    """

    set_folder: Path
    name: str
    type: ColumnType

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.set_folder / COLUMNS / self.name

    @property
    def verb(self) -> str:
        """Which command made it, for messages."""
        return "tokenize" if self.type.kind == TOKENS else "annotate"

    def values(self, shard: str) -> Path:
        """Return the path of the values of a shard."""
        return self.folder / f"{shard}.{'ids' if self.type.kind == TOKENS else 'parquet'}"

    def json(self, shard: str) -> Path:
        """Return the path of the json that states them."""
        return self.folder / f"{shard}.json"


def column_names(folder: Path) -> list[str]:
    """List the columns of a dataset folder, sorted; none where there are none."""
    return sorted(path.parent.name for path in (Path(folder) / COLUMNS).glob(f"*/{FACTS}"))


def check_name(name: str) -> None:
    """Refuse a name that could not be that of a folder everywhere.

    Raises:
        InputError: it is none.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise InputError(
            f"--name: {name[:70]!r} was given, expected letters, digits, _ and -, at most 64; choose another name"
        )


def open_column(folder: Path, name: str) -> ColumnFiles:
    """Return a column of a dataset folder.

    Raises:
        InputError: there is none of this name.
        VerificationError: its ``column.json`` is broken.
    """
    path = Path(folder) / COLUMNS / name / FACTS
    if not (NAME_PATTERN.fullmatch(name) and path.is_file()):
        known = ", ".join(column_names(folder)) or "none"
        raise InputError(f"{folder}: no column {name!r}, there are: {known}; add one with `synclones shards annotate`")
    return ColumnFiles(Path(folder), name, _type_in(path, _facts(path)))


def made_by(files: ColumnFiles) -> dict[str, Any]:
    """Return what the values of a column depend on, as its ``column.json`` states it.

    Raises:
        VerificationError: it is broken.
    """
    stated: dict[str, Any] = _facts(files.folder / FACTS)["made_by"]
    return stated


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = read_json(path)
    except (ValueError, FileNotFoundError):
        facts = None
    if not (isinstance(facts, dict) and facts.get("format") == FORMAT and isinstance(facts.get("made_by"), dict)):
        raise VerificationError(f"{path}: not the json of a column; restore it, or remove {path.parent}")
    return facts


def _type_in(path: Path, facts: dict[str, Any]) -> ColumnType:
    try:
        return _type_of(facts["type"])
    except (ValueError, KeyError, TypeError):
        raise VerificationError(f"{path}: states no type of a column; restore it, or remove {path.parent}") from None


def check_unlike(folder: Path, name: str, type: ColumnType, made_by: dict[str, Any]) -> None:
    """Refuse a column that is there already and was made from something else.

    Raises:
        InputError: says what differs.
    """
    path = Path(folder) / COLUMNS / name / FACTS
    if path.exists():
        facts = _facts(path)
        stored = {"type": str(_type_in(path, facts)), **facts["made_by"]}
        if changed := differences(stored, {"type": str(type), **made_by}):
            raise InputError(f"{path.parent}: was made from something else ({changed}); choose another --name")


def begin_column(
    folder: Path, name: str, type: ColumnType, made_by: dict[str, Any], beside: dict[str, Any]
) -> ColumnFiles:
    """Make the folder of a column and its ``column.json``, or go on with one; of several processes each may call this.

    Args:
        made_by: what its values depend on.
        beside: what is only recorded.

    Raises:
        InputError: it is there and was made from something else.
    """
    files = ColumnFiles(Path(folder), name, type)
    files.folder.mkdir(parents=True, exist_ok=True)
    held = claim(files.folder, "column", wait=True)
    assert held is not None, "a claim that waits is always granted"
    with held:
        check_unlike(folder, name, type, made_by)
        if not (files.folder / FACTS).exists():
            record = {"format": FORMAT, "name": name, "type": type.record(), "made_by": made_by, **beside}
            write_atomic(files.folder / FACTS, pretty_json(record))
    return files


def is_written(files: ColumnFiles, shard: str) -> bool:
    """Tell whether the values of a shard are whole: its json is there, and the file has the size it states."""
    try:
        return bool(read_json(files.json(shard))["bytes"] == files.values(shard).stat().st_size)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def write_values(files: ColumnFiles, summary: Summary, index: np.ndarray, values: pa.Array) -> None:
    """Write the values of one shard, whole or not at all; the caller holds its claim.

    Args:
        summary: the json of the set's shard.
        index: of its stored samples, ascending, int[n].
        values: of the column's Arrow type, n of them.
    """
    table = pa.table({"index": pa.array(index, pa.int64()), "value": values.cast(files.type.arrow)})
    write_data(files, summary, len(table), parquet_bytes(table, use_dictionary=files.type.kind != "array"))


def write_data(files: ColumnFiles, summary: Summary, rows: int, data: bytes, **more: int) -> None:
    """Write the file of one shard's values and the json that states it; ``more``: numbers that stand there besides."""
    record = {
        "format": FORMAT,
        "name": summary["name"],
        "rows": rows,
        "bytes": len(data),
        "sha256": sha256_bytes(data),
        "tar_sha256": summary["tar"]["sha256"],
        **more,
    }
    write_atomic(files.values(summary["name"]), data)
    write_atomic(files.json(summary["name"]), pretty_json(record))


def read_values(files: ColumnFiles, shard: str, summary: Summary | None = None) -> pa.Table:
    """Read ``index`` and ``value`` of the stored samples of a shard, checked against its hash.

    ``summary``: what the set says of the shard, where that is no json in a folder of this project.

    Raises:
        VerificationError: they are missing or damaged, or belong to another shard.
    """
    path = files.values(shard)
    try:
        record = checked_record(files, summary or own_summary(ShardFiles(files.set_folder, shard)))
        data = read_regular(path, record["bytes"])
        if sha256_bytes(data) != record["sha256"]:
            raise ValueError("other bytes than its json states")
        return _decoded(pa.py_buffer(data), files.type, record["rows"])
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise VerificationError(f"{path}: missing; run the same annotate command again") from None
    except (ValueError, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the disk's fault; of pyarrow one without a number is damage
        reason = " ".join(str(error).split())[:120]
        raise VerificationError(
            f"{path}: damaged ({reason}); remove it and run the same annotate command again"
        ) from None


def values_hash(files: ColumnFiles, shard: str) -> str:
    """Return the sha256 that the json of a shard's values states; the values themselves are not read.

    Raises:
        VerificationError: the json is missing or broken, or of another shard.
    """
    digest: str = checked_record(files, own_summary(ShardFiles(files.set_folder, shard)))["sha256"]
    return digest


def checked_record(files: ColumnFiles, summary: Summary) -> dict[str, Any]:
    """Read the json of a shard's values, and compare it with the set's shard.

    Raises:
        VerificationError: it is missing or broken, or of another shard.
    """
    path = files.json(summary["name"])
    try:
        record = read_json(path)
        numbers, texts = [record[k] for k in ("rows", "bytes")], [record[k] for k in ("sha256", "tar_sha256")]
        sound = all(type(n) is int and 0 <= n < 2**40 for n in numbers) and all(type(text) is str for text in texts)
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise VerificationError(f"{path}: not the json of a column's shard; remove it and run the same command again")
    if (record["tar_sha256"], record["rows"]) != (summary["tar"]["sha256"], summary["ok"]):
        raise VerificationError(
            f"{path}: belongs to another {summary['name']}.tar; remove {files.folder} and annotate this set"
        )
    checked: dict[str, Any] = record
    return checked


def _decoded(data: pa.Buffer, type: ColumnType, rows: int) -> pa.Table:
    """Decode a Parquet file of ``index`` and ``value``; a few bytes may stand for more values than fit the memory.

    Raises:
        ValueError, pa.ArrowException: what is wrong with it.
    """
    file = pq.ParquetFile(data)
    schema = file.schema_arrow
    # What its metadata promises is bounded first, then the bytes of texts, then all is decoded.
    if schema.names != ["index", "value"] or schema.types != [pa.int64(), type.arrow] or file.metadata.num_rows != rows:
        raise ValueError("other rows or columns than its json and column.json state")
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    counts = sum(group.column(1).num_values for group in groups)
    most = {"array": rows * prod(type.shape), "texts": MAX_TEXTS}.get(type.kind, rows)
    if not counts <= most <= MAX_VALUES:
        raise ValueError(f"{counts} values, at most {min(most, MAX_VALUES)} are read")
    if type.kind in ("text", "texts"):
        _check_text_bytes(data, groups[0].column(1).path_in_schema if groups else "value")
    table = file.read().combine_chunks()
    table.validate(full=True)
    return table


def _check_text_bytes(data: pa.Buffer, path: str) -> None:
    coded = pq.ParquetFile(data, read_dictionary=[path]).read(["value"])["value"]
    for chunk in coded.chunks:
        inner = chunk.values if isinstance(chunk, pa.ListArray) else chunk
        inner.validate(full=True)
        if isinstance(inner, pa.DictionaryArray):
            lengths = pc.binary_length(inner.dictionary).take(inner.indices)
            if (pc.sum(lengths).as_py() or 0) > MAX_VALUES:
                raise ValueError(f"over {MAX_VALUES} bytes of text")
