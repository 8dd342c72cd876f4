"""One finished shard as its sidecars describe it, checked when opened, compact enough to hold for thousands of shards.

In: ``train-00000.json`` and ``train-00000.parquet``. Out: numpy arrays over the samples that are there (status ok), and
the rows of all planned samples on request.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synclones.base.errors import VerificationError
from synclones.base.files import sha256_bytes
from synclones.shards.index import Summary, read_summary
from synclones.shards.schema import MAX_INDEX, MAX_SHARD_ROWS, PARQUET_SCHEMA, STATUSES, SampleRow, ShardFiles
from synclones.shards.tar import trailer

_DTYPES = {"index": "u4", "seed": "u4", "attempt": "i4", "label": "i4", "offset": "i8", "nbytes": "i8", "crc32": "u4"}
_TEXTS = [field.name for field in PARQUET_SCHEMA if pa.types.is_string(field.type)]
_MAX_TEXT_BYTES = 2**28  # of one column
# Lowest and highest value of a number; 2^62 leaves room to add two of them.
_LIMITS = {"label": (-1, 2**31), "index": (0, MAX_INDEX - 1), "nbytes": (0, 2**29)}


def read_sidecar(source: Path | pa.Buffer, columns: Sequence[str] | None = None) -> pa.Table:
    """The parquet of a shard, or some of its columns: of the schema, in bounds, safe to read a tar by.

    Errors: ValueError saying what is wrong with it; OSError when it cannot be read.
    """
    try:
        file = pq.ParquetFile(source)
        if not file.schema_arrow.equals(PARQUET_SCHEMA):
            raise ValueError("other columns than a sample's")
        if file.metadata.num_rows > MAX_SHARD_ROWS:
            raise ValueError(f"{file.metadata.num_rows} rows, at most {MAX_SHARD_ROWS} are read")
        # A few bytes may stand for the same long text in every row: lengths are known before the texts are.
        coded = pq.ParquetFile(source, metadata=file.metadata, read_dictionary=_TEXTS)
        table = _decoded(coded.read(columns))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the disk's fault, or no such file
        raise ValueError(f"not a parquet file ({' '.join(str(error).split())[:80]})") from None
    _check_values(table)
    return table


def _decoded(table: pa.Table) -> pa.Table:
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            column = table.column(place).combine_chunks()
            column.validate(full=True)
            lengths = pc.binary_length(column.dictionary).take(column.indices)
            if (pc.sum(lengths).as_py() or 0) > _MAX_TEXT_BYTES:
                raise ValueError(f"{field.name} holds over {_MAX_TEXT_BYTES} bytes")
            plain = column.dictionary.take(column.indices)
            table = table.set_column(place, pa.field(field.name, pa.string(), nullable=False), plain)
    table.validate(full=True)
    return table


def _check_values(table: pa.Table) -> None:
    for name in table.column_names:
        if pa.types.is_integer(table.schema.field(name).type) and len(table):
            found, (low, high) = pc.min_max(table[name]).as_py(), _LIMITS.get(name, (0, 2**62))
            if not low <= found["min"] <= found["max"] <= high:
                raise ValueError(f"{name} is not in {low}..{high}")
    if "status" in table.column_names and not pc.all(pc.is_in(table["status"], pa.array(STATUSES))).as_py():
        raise ValueError(f"a status is none of {', '.join(STATUSES)}")


def read_rows(files: ShardFiles, summary: Summary) -> pa.Table:
    """The parquet sidecar, after its sha256 agreed with the json. Errors: VerificationError naming the file."""
    try:
        data = files.parquet.read_bytes()
    except FileNotFoundError:
        raise VerificationError(f"{files.parquet}: missing; {how_to_redo(files.name)}") from None
    if sha256_bytes(data) != summary["parquet"]["sha256"]:
        raise VerificationError(f"{files.parquet}: its bytes differ from {files.json.name}; {how_to_redo(files.name)}")
    try:
        table = read_sidecar(pa.py_buffer(data))
    except ValueError as error:
        raise VerificationError(f"{files.parquet}: {error}; {how_to_redo(files.name)}") from None
    if len(table) != summary["planned"]:
        raise VerificationError(
            f"{files.parquet}: {len(table)} rows, expected {summary['planned']} with the columns of a sample; "
            f"{how_to_redo(files.name)}"
        )
    return table


def how_to_redo(name: str) -> str:
    """The next step for a damaged shard."""
    return f"delete {name}.* and run the same generate command to redo the shard"


class ShardTable:
    """The samples of one shard: parallel arrays, ascending by index, one entry per sample whose status is ok."""

    def __init__(self, folder: Path, name: str):
        """Read and check the sidecars; the tar is only stat'ed. Errors: VerificationError naming the file."""
        self.files = ShardFiles(folder, name)
        self.summary = read_summary(self.files.json)
        if self.summary["name"] != name:
            raise VerificationError(
                f"{self.files.json}: describes {self.summary['name']}, expected {name}; give the files their names back"
            )
        rows = read_rows(self.files, self.summary)
        ok = rows.filter(pa.compute.equal(rows["status"], "ok"))
        arrays = {column: ok[column].to_numpy().astype(dtype) for column, dtype in _DTYPES.items()}
        self.index, self.seed, self.attempt, self.label = (arrays[c] for c in ("index", "seed", "attempt", "label"))
        self.offset, self.nbytes, self.crc32 = (arrays[c] for c in ("offset", "nbytes", "crc32"))
        self.scores = ok["scores"].combine_chunks()
        self._check_layout()

    def __len__(self) -> int:
        return len(self.index)

    def _check_layout(self) -> None:
        starts = np.concatenate([[0], np.cumsum(self.nbytes)])
        size = int(starts[-1]) + len(trailer(int(starts[-1])))
        rising = bool((np.diff(self.index.astype(np.int64)) > 0).all())
        if not (rising and (self.offset == starts[:-1]).all() and size == self.summary["tar"]["bytes"]):
            raise VerificationError(
                f"{self.files.parquet}: its offsets do not tile {self.files.tar.name}; {how_to_redo(self.files.name)}"
            )

    def all_rows(self) -> list[SampleRow]:
        """Every planned sample of the shard, failed and dropped ones too, read again from the parquet."""
        return [SampleRow(**row) for row in read_rows(self.files, self.summary).to_pylist()]
