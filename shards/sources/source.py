"""What training reads its images from: labelled, in shards, each by its position.

In and out: nothing; a source is any class with these members.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Source(Protocol):
    """Labelled images by position: 0 to ``len - 1``, shard after shard. Safe to use from several threads."""

    @property
    def images_per_group(self) -> int:
        """How many images each group has; a group is never split."""

    @property
    def groups_per_shard(self) -> Sequence[int]:
        """How many groups each shard holds, shards in order."""

    def __len__(self) -> int: ...

    def group(self, shard: int, group: int) -> np.ndarray:
        """Return the positions of a group's images, int64[images_per_group]; both numbers count from 0."""

    def index(self, position: int) -> int:
        """Return the image's number in its set."""

    def label(self, position: int) -> int:
        """Return the image's class number."""

    def encoded(self, position: int) -> bytes:
        """Read the encoded image.

        Raises:
            VerificationError: it is damaged.
        """

    def where(self, position: int) -> str:
        """Name the image in messages."""
