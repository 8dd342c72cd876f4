"""A labelled dataset folder as training and evaluation read it: images by position, each checked when it is read.

In: a finished folder. Out: encoded or decoded images with label and index; groups of images of one caption.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np

from synclones.base.errors import InputError
from synclones.base.json_file import parse_json
from synclones.shards.read import ShardFolder
from synclones.shards.schema import sample_key
from synclones.shards.shard import Shard
from synclones.shards.sources.decode import decode_image

CACHED_SHARDS = 128  # about 1 MB each: more than one window of the training order


@dataclass(frozen=True)
class LabelledImage:
    """One decoded image."""

    pixels: np.ndarray
    """uint8[h, w, 3]."""
    label: int
    index: int


class LabelledSource:
    """A folder whose images all have labels, as a `Source`. Safe to use from several threads.

    Attributes:
        folder: where it is.
        split: which split of a set its images are.
        class_ids: the class of each label, in order.
        images_per_group: how many images each group has.
        groups_per_shard: how many groups each shard holds.
    """

    def __init__(self, folder: Path | str, images_per_group: int = 1, split: str | None = None):
        """Open a folder.

        ``images_per_group`` > 1: a group is that many images of one caption; captions with fewer are left out.
        ``split``: read from the folder by default.

        Raises:
            InputError: no shards, no labels, or no group at all.
        """
        self._shards = ShardFolder(folder, split)
        self.folder, self.split, self.class_ids = self._shards.folder, self._shards.split, self._shards.class_ids
        self.images_per_group = images_per_group
        self._starts = [0, *accumulate(self._shards.samples_per_shard)]
        self._shard = lru_cache(maxsize=CACHED_SHARDS)(self._open)
        self._groups = lru_cache(maxsize=CACHED_SHARDS)(self._find_groups)
        self.groups_per_shard = self._count_groups()
        if not sum(self.groups_per_shard):
            wanted = f"caption with {images_per_group} images" if images_per_group > 1 else "image"
            raise InputError(f"{self.folder}: holds no {wanted}; generate more, or lower --images-per-group")

    def __len__(self) -> int:
        return self._starts[-1]

    def content_hash(self) -> str:
        """Return the identity of the folder."""
        return self._shards.content_hash()

    def check_labels(self) -> None:
        """Look at the labels of all shards.

        Raises:
            InputError: one is no class of the folder; names shard and sample.
        """
        for number in range(len(self._shards.shards)):
            self._open(number)

    def group(self, shard: int, group: int) -> np.ndarray:
        """Return the positions of a group's images, int64[images_per_group]."""
        if self.images_per_group == 1:
            return np.array([self._starts[shard] + group])
        positions: np.ndarray = self._starts[shard] + self._groups(shard)[group]
        return positions

    def index(self, position: int) -> int:
        """Return the number that the image has in the folder."""
        shard, row = self._locate(position)
        return int(shard.index[row])

    def label(self, position: int) -> int:
        """Return the image's class number."""
        shard, row = self._locate(position)
        return int(shard.label[row])

    def encoded(self, position: int) -> bytes:
        """Read the encoded image.

        Raises:
            VerificationError: the sample differs from its sidecar; names shard and sample.
        """
        shard, row = self._locate(position)
        return shard.image(row)

    def where(self, position: int) -> str:
        """Name the image in messages."""
        shard, row = self._locate(position)
        return shard.where(row)

    def read(self, position: int) -> LabelledImage:
        """Read and decode one image.

        Raises:
            VerificationError: the sample differs from its sidecar, or cannot be decoded; names shard and sample.
        """
        shard, row = self._locate(position)
        pixels = decode_image(shard.image(row), where=shard.where(row))
        return LabelledImage(pixels, int(shard.label[row]), int(shard.index[row]))

    def _locate(self, position: int) -> tuple[Shard, int]:
        number = bisect_right(self._starts, position) - 1
        return self._shard(number), int(position) - self._starts[number]

    def _open(self, number: int) -> Shard:
        shard = self._shards.open(self._shards.shards[number])
        bad = np.flatnonzero((shard.label < 0) | (shard.label >= len(self.class_ids)))
        if len(bad):
            label, key = shard.label[bad[0]], sample_key(int(shard.index[bad[0]]))
            known = f"expected 0 to {len(self.class_ids) - 1}; every image needs a label of the folder's classes"
            raise InputError(f"{shard.files.parquet}: sample {key} has label {label}, {known}")
        return shard

    def _count_groups(self) -> list[int]:
        if self.images_per_group == 1:
            return self._shards.samples_per_shard
        return [len(self._groups(number)) for number in range(len(self._shards.shards))]

    def _find_groups(self, number: int) -> np.ndarray:
        """Find the samples of a shard that share a caption: their positions in it, int64[groups, images_per_group]."""
        shard, size = self._shard(number), self.images_per_group
        rows_of: dict[int, list[int]] = {}
        for row in range(len(shard)):
            rows_of.setdefault(_caption_of(shard.facts(row), -1 - row), []).append(row)
        groups = []
        for rows in rows_of.values():
            groups += [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]
        return np.array(groups, dtype=np.int64).reshape(-1, size)


def _caption_of(facts: bytes, otherwise: int) -> int:
    """Return the ``caption_id`` in a sample's json, or ``otherwise`` when it has none."""
    try:
        record = parse_json(facts)
    except ValueError:
        return otherwise
    number = record.get("caption_id", otherwise) if isinstance(record, dict) else otherwise
    return number if type(number) is int else otherwise
