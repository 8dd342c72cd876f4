"""One finished shard as its sidecars describe it, checked when opened, compact enough to hold for thousands of shards.

In: ``train-00000.json`` and ``train-00000.parquet``. Out: numpy arrays over the samples that are there (status ok), and
the rows of all planned samples on request.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synclones.errors import VerificationError
from synclones.manifest import sha256_bytes
from synclones.shards.index import Summary, read_summary
from synclones.shards.schema import PARQUET_SCHEMA, SampleRow, ShardFiles
from synclones.shards.tar import trailer

_DTYPES = {"index": "u4", "seed": "u4", "attempt": "i4", "label": "i4", "offset": "i8", "nbytes": "i8", "crc32": "u4"}


def read_rows(files: ShardFiles, summary: Summary) -> pa.Table:
    """The parquet sidecar, after its sha256 agreed with the json. Errors: VerificationError naming the file."""
    try:
        data = files.parquet.read_bytes()
    except FileNotFoundError:
        raise VerificationError(f"{files.parquet}: missing; {how_to_redo(files.name)}") from None
    if sha256_bytes(data) != summary["parquet"]["sha256"]:
        raise VerificationError(f"{files.parquet}: its bytes differ from {files.json.name}; {how_to_redo(files.name)}")
    try:
        table = pq.read_table(pa.BufferReader(data))
    except pa.ArrowException:
        raise VerificationError(f"{files.parquet}: not a parquet file; {how_to_redo(files.name)}") from None
    if not table.schema.equals(PARQUET_SCHEMA) or len(table) != summary["planned"]:
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
