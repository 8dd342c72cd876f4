"""Lists retrieved images for others: where each was fetched from, the hash of its bytes, its score.

In: chosen pairs, the set or the metadata beside embeddings. Out: a Parquet or CSV file with url, md5, score, class_id
and key, the classes in order and of each the best first; perceptual hashes of some images of a set.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from synclones.base.escape import csv_text
from synclones.base.files import write_atomic
from synclones.base.machine import cores
from synclones.shards.similarity.embedding_files import EmbeddingFolder
from synclones.shards.similarity.neighbours import Pairs
from synclones.shards.similarity.phash import image_hash
from synclones.shards.sources.decode import decode_image
from synclones.shards.sources.source import OpenShard, Source
from synclones.shards.write import parquet_bytes

COLUMNS = ("url", "md5", "score", "class_id", "key")
Value = TypeVar("Value")


def export_list(
    path: Path,
    chosen: Pairs,
    class_ids: Sequence[str],
    source: Source | None,
    of_set: np.ndarray,
    files: EmbeddingFolder | None,
) -> None:
    """Write the list, whole or not at all.

    Args:
        class_ids: of each pair.
        of_set: where in the set each image is, int64[m].

    Raises:
        VerificationError: an image or the metadata is damaged.
    """
    texts = dict.fromkeys(("url", "md5", "key"), [""] * len(chosen))
    known = files.names() if files is not None else {}
    for kind in set(texts) & set(known):
        assert files is not None
        texts[kind] = files.take(kind, chosen.position)
    # What the metadata does not state, the set does; nobody but the metadata knows a URL.
    if source is not None:
        texts["key"] = of_images(source, of_set, lambda shard, row: shard.name(row))
        if "md5" not in known:
            texts["md5"] = of_images(source, of_set, _md5)
    columns = texts | {"score": chosen.score.tolist(), "class_id": list(class_ids)}
    if path.suffix.lower() == ".parquet":
        write_atomic(path, parquet_bytes(pa.table({name: columns[name] for name in COLUMNS})))
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in zip(*(columns[name] for name in COLUMNS), strict=True):
        writer.writerow([csv_text(value) if isinstance(value, str) else repr(value) for value in row])
    write_atomic(path, text.getvalue().encode())


def _md5(shard: OpenShard, row: int) -> str:
    return hashlib.md5(shard.image(row), usedforsecurity=False).hexdigest()


def hashes_of(source: Source, positions: np.ndarray) -> np.ndarray:
    """Return the perceptual hashes of some images of a set, uint64[m].

    Raises:
        VerificationError: one is damaged.
    """

    def hashed(shard: OpenShard, row: int) -> int:
        return image_hash(decode_image(shard.image(row), where=shard.where(row)))

    return np.array(of_images(source, positions, hashed), dtype=np.uint64)


def of_images(source: Source, positions: np.ndarray, value: Callable[[OpenShard, int], Value]) -> list[Value]:
    """Return a value of each of some images of a set, shard after shard, each shard's by several threads."""
    starts = np.cumsum([0, *source.images_per_shard])
    shards = np.searchsorted(starts, positions, "right") - 1
    values: dict[int, Value] = {}
    with ThreadPoolExecutor(cores(), thread_name_prefix="images") as pool:
        for number in np.unique(shards).tolist():
            shard, at = source.open(number), np.flatnonzero(shards == number).tolist()
            rows = [int(positions[one] - starts[number]) for one in at]
            values.update(zip(at, pool.map(lambda row, shard=shard: value(shard, row), rows), strict=True))
    return [values[at] for at in range(len(positions))]
