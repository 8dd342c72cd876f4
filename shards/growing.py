"""Reads what a shard that is still being drawn holds so far: its rows, and its samples by their number.

In: ``.train-00001.part`` and its journal, while somebody writes them or after a kill. Out: a table as of a finished
shard's Parquet file, and `Sample`s, each checked by its own crc32. Nothing is locked and nothing is changed.
"""

import zlib
from pathlib import Path

import pyarrow as pa

from synclones.base.errors import InputError, VerificationError
from synclones.shards.journal import journalled_batches
from synclones.shards.schema import PARQUET_SCHEMA, SHARD_PATTERN, Sample, ShardFiles
from synclones.shards.shard import opened
from synclones.shards.sidecar import check_values
from synclones.shards.tar import decode_sample


def growing_shards(folder: Path, split: str) -> list[ShardFiles]:
    """List the shards of a split that are begun and not finished, by number."""
    names = (path.name.removesuffix(".part.jsonl")[1:] for path in Path(folder).glob(f".{split}-*.part.jsonl"))
    numbered = [(int(match["number"]), match[0]) for match in map(SHARD_PATTERN.fullmatch, names) if match]
    files = [ShardFiles(Path(folder), name) for _, name in sorted(numbered)]
    return [each for each in files if not each.json.exists()]  # of a finished one a kill may leave its journal


def growing_bytes(files: ShardFiles) -> Path:
    """Return where the samples of such a shard are: in its part, which becomes the tar before the shard is whole."""
    return files.part if files.part.exists() else files.tar


def growing_rows(files: ShardFiles) -> pa.Table:
    """Return the rows that are in the shard so far, those of failed and dropped samples too.

    Raises:
        VerificationError: the journal holds what no writer of ours puts there.
    """
    rows = [row.to_dict() for batch in journalled_batches(files) for row in batch.rows]
    try:
        table = pa.Table.from_pylist(rows, schema=PARQUET_SCHEMA)
        if rows:
            check_values(table)
    except ValueError as error:
        raise VerificationError(
            f"{files.journal}: {error}; delete it and its part, and run the command again"
        ) from None
    return table


def growing_sample(files: ShardFiles, rows: pa.Table, index: int) -> Sample:
    """Read the sample ``index`` by the rows that `growing_rows` gave.

    Raises:
        InputError: they have no such sample, or it has no image.
        VerificationError: it is damaged, or the shard was finished since.
    """
    position = rows["index"].index(pa.scalar(index, pa.int64())).as_py()
    row = rows.slice(position, 1).to_pylist()[0] if position >= 0 else None
    if row is None or row["status"] != "ok":
        why = "" if row is None else f" ({row['status']}: {row['reason']})"
        raise InputError(f"{files.part}: sample {index} has no image{why}")
    with opened(growing_bytes(files)) as read_range:
        data = read_range(row["offset"], row["nbytes"])
    if len(data) != row["nbytes"] or zlib.crc32(data) != row["crc32"]:
        raise VerificationError(f"{files.part}: sample {index} is damaged; its batch is drawn again on resuming")
    members = decode_sample(data, index, str(files.part))
    try:
        txt, jpg, facts = members["txt"].decode(), members["jpg"], members["json"]
    except (KeyError, UnicodeDecodeError):
        raise VerificationError(f"{files.part}: sample {index} lacks its jpg, json or txt") from None
    return Sample(
        index=index,
        jpg=jpg,
        json=facts,
        txt=txt,
        label=None if row["label"] < 0 else row["label"],
        seed=row["seed"],
        attempt=row["attempt"],
        scores=row["scores"],
        reason=row["reason"],
    )
