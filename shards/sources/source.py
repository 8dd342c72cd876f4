"""What training and evaluation read images from: any set, by shard and row, each image checked when it is read.

In and out: nothing; a source is any class with these members. `labelled` shows one as a sequence of labelled images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np


class OpenShard(Protocol):
    """The images of one shard, by row from 0. Safe to use from several threads; small: thousands are held at once."""

    index: np.ndarray
    """Number of each image in its set, ascending: uint32[n] or int64[n]."""
    label: np.ndarray
    """Class number of each image, -1 for none: int32[n]."""

    def __len__(self) -> int: ...

    def image(self, row: int) -> bytes:
        """Read the encoded image.

        Raises:
            VerificationError: it is damaged, missing, or changed since the set was opened.
        """

    def caption(self, row: int) -> str:
        """Read the image's text; empty when it has none.

        Raises:
            VerificationError: as `image`.
        """

    def caption_ids(self) -> np.ndarray:
        """Return which images share a caption: equal numbers do, int64[n]; one without a caption has its own number."""

    def name(self, row: int) -> str:
        """Return what the image is called in its set: its path below the root, or its sample's key."""

    def where(self, row: int) -> str:
        """Name the image in messages: file and sample."""


class Source(Protocol):
    """A set of images in shards of a fixed order. Safe to use from several threads."""

    folder: Path
    """Where it is, as the user wrote it."""

    @property
    def class_ids(self) -> tuple[str, ...]:
        """The class of each label, in order.

        Raises:
            InputError: the images have no labels, or numbers without a list that says what they mean.
        """

    @property
    def images_per_shard(self) -> Sequence[int]:
        """How many images each shard holds, shards in order."""

    @property
    def is_local(self) -> bool:
        """Whether any image costs as little as any other: false where whole shards are fetched."""

    def content_hash(self) -> str:
        """Return what the set is known by: equal for equal images, labels and order.

        Raises:
            VerificationError: it is unfinished or changed.
        """

    def check(self, *, quick: bool) -> None:
        """Compare files with what is known of them: presence and sizes when ``quick``, else every byte.

        Raises:
            VerificationError: naming what differs.
        """

    def prefetch(self, shards: Sequence[int]) -> None:
        """Begin to bring shards that will be read soon, in this order; nothing for sets on this disk."""

    def open(self, shard: int) -> OpenShard:
        """Open a shard; not cached.

        Raises:
            VerificationError: its columns are missing or damaged.
        """


@runtime_checkable
class FetchedSource(Protocol):
    """What a source has beside the members of `Source` where its shards are fetched into a bounded cache."""

    cache_bytes: int
    """How much of the set the cache holds at once."""

    def bytes_per_shard(self) -> Sequence[int]:
        """Return how much of the cache each shard takes, shards in order."""
