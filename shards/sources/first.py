"""The first images of a dataset folder, by number, as a set of its own: what a smaller table would have drawn.

In: a finished folder whose images are numbered from 0 without gaps, and how many. Out: a `Source` that ends there; its
identity is that of these images alone, so that it stays the same when the folder grows.
"""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import cast

import numpy as np

from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.shards.shard import Shard
from synclones.shards.sources.dataset import DatasetSource


class FirstImages(DatasetSource):
    """Images 0 to ``first - 1`` of a folder, fewer by those that were not stored. Safe to use from several threads."""

    def __init__(self, folder: Path | str, first: int, split: str | None = None):
        """Open a folder of which only the first images count.

        Raises:
            InputError: no such folder; fewer planned images, or numbers with gaps, as after a merge.
        """
        super().__init__(folder, split)
        planned = self._shards.planned_per_shard
        ends = [0, *accumulate(planned)]
        if self._shards.first_indices != ends[:-1]:
            raise InputError(
                f"--data: {folder}: first={first}: its images are not numbered from 0 without gaps; write "
                f"count={first} for a seeded choice"
            )
        if first > ends[-1]:
            raise InputError(f"--data: {folder}: first={first}, it has {ends[-1]:,} images; let it grow with --extend")
        self.first = first
        # Shards before the last one are whole; of that one only rows below the number.
        self._last = next(number for number, end in enumerate(ends[1:]) if end >= first)
        whole = list(self._shards.samples_per_shard[: self._last])
        self._rows = int(np.searchsorted(self._open_last().index, first))
        self._images = [*whole, self._rows]

    @property
    def images_per_shard(self) -> Sequence[int]:
        """How many of these images each shard holds."""
        return self._images

    def content_hash(self) -> str:
        """Return the identity of these images: equal before and after the folder has grown.

        Raises:
            VerificationError: the folder is unfinished.
        """
        self.set_hash()  # of half a set nothing is known
        last = self._open_last()
        rows = np.stack([last.index[: self._rows], last.crc32[: self._rows]]).astype("<u4")
        tars = [self._shards.tar_sha256(name) for name in self._shards.shards[: self._last]]
        return sha256_bytes(canonical_json([self.first, tars, sha256_bytes(rows.tobytes())]))

    def set_hash(self) -> str:
        """Return the identity of the whole folder.

        Raises:
            VerificationError: the folder is unfinished.
        """
        return super().content_hash()

    def open(self, shard: int) -> Shard:
        """Open a shard, the last one as if it ended with these images.

        Raises:
            InputError: a label is no class of the folder; names shard and sample.
            VerificationError: its Parquet file is missing or damaged.
        """
        opened = super().open(shard)
        return cast(Shard, _FirstRows(opened, self._rows)) if shard == self._last else opened

    def _open_last(self) -> Shard:
        return self._shards.open(self._shards.shards[self._last], images_only=True)


class _FirstRows:
    """The first rows of a shard, as an `OpenShard`."""

    def __init__(self, shard: Shard, rows: int):
        self._shard, self._rows = shard, rows
        self.files, self.index, self.label = shard.files, shard.index[:rows], shard.label[:rows]
        self.image, self.caption, self.name, self.where = shard.image, shard.caption, shard.name, shard.where

    def __len__(self) -> int:
        return self._rows

    def caption_ids(self) -> np.ndarray:
        """Return which images share a caption, int64[n]."""
        return self._shard.caption_ids()[: self._rows]
