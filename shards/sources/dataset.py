"""A finished dataset folder of this project as a `Source`.

In: a folder of shards with their sidecars. Out: its shards, labels checked against its class list.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synclones.base.errors import InputError
from synclones.shards.read import ShardFolder
from synclones.shards.schema import sample_key
from synclones.shards.shard import Shard
from synclones.shards.verify import verify


class DatasetSource:
    """A folder that `synclones generate` finished. Safe to use from several threads.

    Attributes:
        folder: where it is.
        split: which split of a set its images are.
    """

    is_local = True

    def __init__(self, folder: Path | str, split: str | None = None):
        """Open a folder; ``split`` is read from it by default.

        Raises:
            InputError: no such folder, or no shards in it.
        """
        self._shards = ShardFolder(folder, split)
        self.folder, self.split = self._shards.folder, self._shards.split

    @property
    def class_ids(self) -> tuple[str, ...]:
        """The class of each label, in order.

        Raises:
            InputError: the images have no labels.
        """
        return self._shards.class_ids

    @property
    def images_per_shard(self) -> Sequence[int]:
        """How many images each shard holds."""
        return self._shards.samples_per_shard

    def content_hash(self) -> str:
        """Return the identity of the folder.

        Raises:
            VerificationError: the folder is unfinished.
        """
        return self._shards.content_hash()

    def check(self, *, quick: bool) -> None:
        """Compare the folder with everything its sidecars promise; presence and sizes only when ``quick``.

        Raises:
            VerificationError: naming shard and sample.
        """
        verify(self.folder, quick=quick, split=self.split)

    def prefetch(self, shards: Sequence[int]) -> None:
        """Do nothing: everything is on this disk."""

    def check_labels(self, shard: int) -> None:
        """Compare the labels of a shard with the classes by what its Parquet file notes; nothing is decoded.

        Should the note be wrong, the shard is refused when it is opened.

        Raises:
            InputError: a label is no class of the folder; names shard and sample.
            VerificationError: its Parquet file is missing or damaged.
        """
        noted = self._shards.label_range(self._shards.shards[shard])
        if self._shards.has_classes and (noted is None or noted[0] < 0 or noted[1] >= len(self.class_ids)):
            self.open(shard)  # which looks at each, and says where

    def open(self, shard: int) -> Shard:
        """Open a shard.

        Raises:
            InputError: a label is no class of the folder; names shard and sample.
            VerificationError: its Parquet file is missing or damaged.
        """
        opened = self._shards.open(self._shards.shards[shard], images_only=True)
        if self._shards.has_classes:  # whoever needs labels asks for the classes, and is refused there
            check_labels(opened, len(self.class_ids))
        return opened


def check_labels(shard: Shard, num_classes: int) -> None:
    """Compare the labels of a shard with the classes of its set.

    Raises:
        InputError: a label is none of them; names shard and sample.
    """
    bad = np.flatnonzero((shard.label < 0) | (shard.label >= num_classes))
    if len(bad):
        label, key = shard.label[bad[0]], sample_key(int(shard.index[bad[0]]))
        known = f"expected 0 to {num_classes - 1}; every image needs a label of the folder's classes"
        raise InputError(f"{shard.files.parquet}: sample {key} has label {label}, {known}")
