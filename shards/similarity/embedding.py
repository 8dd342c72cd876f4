"""Adds the image embeddings of a CLIP model to any set as a column: any number of processes, and on after a kill.

In: a set (`Source`), a checked CLIP model. Out: a column of vectors of length 1. That of a folder of this project lies
in its ``columns/``, as `synclones shards annotate --embed` makes it; that of a set that others made beside its index.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.base.machine import cores
from synclones.base.manifest import versions
from synclones.shards.column_files import ColumnFiles, ColumnType
from synclones.shards.column_makers import ColumnSet, ValueMaker, add_columns
from synclones.shards.index import Summary
from synclones.shards.kept import user_cache
from synclones.shards.read import ShardFolder
from synclones.shards.similarity.embed import LIBRARIES, ClipFolder
from synclones.shards.sources.dataset import DatasetSource
from synclones.shards.sources.decode import decode_image
from synclones.shards.sources.indexed import IndexedSource
from synclones.shards.sources.source import OpenShard, Source
from synclones.shards.sources.values import fixed_arrays

EMBED_BATCH = 32  # part of what vectors depend on in their last bits


@dataclass(frozen=True, kw_only=True)
class EmbeddingMaker(ValueMaker):
    """The image embeddings of a CLIP model."""

    embedder: Any

    def values(self, number: int, shard: OpenShard) -> pa.Array:
        """Return a vector per image of the shard with this number in the set."""
        # Batches are fixed by the shard, and each is one thread's: vectors do not depend on how many there are.
        with ThreadPoolExecutor(cores(), thread_name_prefix="embed") as pool:
            vectors = list(pool.map(lambda rows: self._batch(shard, rows), _batches(len(shard))))
        joined = np.concatenate(vectors or [np.zeros((0, *self.type.shape), np.float32)])
        return fixed_arrays(joined, np.ones(len(shard), bool), self.type)

    def _batch(self, shard: OpenShard, rows: range) -> np.ndarray:
        images = [decode_image(shard.image(row), where=shard.where(row)) for row in rows]
        vectors: np.ndarray = self.embedder.images(images)
        return vectors


def _batches(rows: int) -> Iterator[range]:
    return (range(start, min(start + EMBED_BATCH, rows)) for start in range(0, rows, EMBED_BATCH))


def embedding_maker(
    clip: ClipFolder, name: str, device: str, dtype: Literal["float16", "float32"] = "float16"
) -> EmbeddingMaker:
    """Load a model, and ask it how long its vectors are.

    Raises:
        InputError: open_clip cannot build or fill it.
    """
    import torch

    from synclones.shards.similarity.embed import Embedder

    torch.set_num_threads(1)  # the order of a sum depends on their number; images side by side use the cores
    embedder = Embedder(clip, device)
    length = embedder.images([np.zeros((8, 8, 3), np.uint8)]).shape[1]
    installed = versions()
    made_by = {
        "model": clip.name,
        "sha256": clip.sha256,
        "device": device,
        "batch_size": EMBED_BATCH,
        **{name: installed.get(name, "") for name in ("torch", *LIBRARIES)},
    }
    return EmbeddingMaker(
        name=name, type=ColumnType("array", dtype, (int(length),)), made_by=made_by, embedder=embedder
    )


class _ForeignColumnSet:
    """A set that is no folder of this project as what columns are made of; its shards are known by number."""

    def __init__(self, source: Source):
        self._source, self._content = source, source.content_hash()
        self._counts = source.images_per_shard
        self.shards: Sequence[str] = [f"{number:05d}" for number in range(len(self._counts))]
        self.num_samples = sum(self._counts)

    @cached_property
    def folder(self) -> Path:
        """Where columns of the set lie: another folder when it has changed."""
        beside = self._source.index.where if isinstance(self._source, IndexedSource) else user_cache() / "embeddings"
        return beside / f"embedded-{self._content[:24]}"

    def open(self, shard: str) -> OpenShard:
        return self._source.open(int(shard))

    def summary(self, shard: str) -> Summary:
        """State of a shard what a column compares; of which set it is stands for the hash of a tar."""
        known_by = sha256_bytes(canonical_json([self._content, int(shard)]))
        return {"name": shard, "ok": self._counts[int(shard)], "tar": {"sha256": known_by}}


def column_set(source: Source) -> ColumnSet:
    """Return the shards of a set as columns are made of them.

    Raises:
        VerificationError: the set is unfinished or changed.
    """
    if isinstance(source, DatasetSource):
        shards = ShardFolder(source.folder, source.split)
        shards.content_hash()
        return shards
    return _ForeignColumnSet(source)


def embed_set(shards: ColumnSet, maker: EmbeddingMaker, command: str) -> tuple[ColumnFiles, str]:
    """Embed the images that are not yet, and return the column and what was done, in a few lines.

    Raises:
        InputError: a column of this name was made from something else.
        VerificationError: an image is damaged.
    """
    done = add_columns(shards, [maker], command)
    return ColumnFiles(shards.folder, maker.name, maker.type), done
