"""The order in which training sees images: a pure function of (seed, epoch, shards), whose whole state is one counter.

In: how many groups each shard holds. Out: for any stretch of the endless stream of groups, epoch, shard and group. A
group is one sample, or the images of one caption, and is never split. Nothing here knows ranks or reads files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from synclones.base.draws import hash64

WINDOW_SHARDS = 64


@dataclass(frozen=True)
class Stretch:
    """Consecutive groups of the stream, each array int64[n]."""

    epoch: np.ndarray
    shard: np.ndarray
    """Number in the list the order was made from."""
    group: np.ndarray
    """Number within its shard."""


class TrainingOrder:
    """Epoch after epoch every group exactly once, shuffled within windows of shards that are shuffled themselves.

    A window of 64 shards of 10,000 is as good as a global shuffle, and reads few files at a time.
    """

    def __init__(self, groups_per_shard: Sequence[int], seed: int, window_shards: int = WINDOW_SHARDS):
        self._counts = np.asarray(groups_per_shard, dtype=np.int64)
        self._seed, self._window = seed, window_shards
        self.groups_per_epoch = int(self._counts.sum())
        self._cached_epoch = lru_cache(maxsize=2)(self._shards_of_epoch)
        self._cached_window = lru_cache(maxsize=2)(self._groups_of_window)

    def stretch(self, start: int, stop: int) -> Stretch:
        """Groups ``start`` to ``stop`` - 1 of the stream; group g is in epoch ``g // groups_per_epoch``."""
        parts: list[tuple[int, np.ndarray]] = []
        while start < stop:
            epoch, first = divmod(start, self.groups_per_epoch)
            last = min(self.groups_per_epoch, first + stop - start)
            parts += [(epoch, part) for part in self._within(epoch, first, last)]
            start += last - first
        pairs = np.concatenate([part for _, part in parts]) if parts else np.zeros((0, 2), np.int64)
        epochs = np.concatenate([np.full(len(part), epoch) for epoch, part in parts]) if parts else pairs[:, 0]
        return Stretch(epochs.astype(np.int64), pairs[:, 0], pairs[:, 1])

    def _within(self, epoch: int, first: int, last: int) -> list[np.ndarray]:
        """The (shard, group) pairs at positions ``first`` to ``last`` - 1 of one epoch."""
        _, starts = self._cached_epoch(epoch)
        parts = []
        for window in range(int(np.searchsorted(starts, first, "right")) - 1, len(starts) - 1):
            if starts[window] >= last:
                break
            pairs = self._cached_window(epoch, window)
            parts.append(pairs[max(first - starts[window], 0) : last - starts[window]])
        return parts

    def _shards_of_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The epoch's shards in order, and the position at which each window starts (and the last one ends)."""
        order = np.argsort(hash64(self._seed, epoch, np.arange(len(self._counts))), kind="stable")
        ends = np.cumsum(self._counts[order])
        last_of_window = np.arange(self._window, len(order) + self._window, self._window).clip(max=len(order)) - 1
        return order, np.concatenate([[0], ends[last_of_window]])

    def _groups_of_window(self, epoch: int, window: int) -> np.ndarray:
        """(shard, group) of every group in a window, shuffled: int64[n, 2]."""
        order, _ = self._cached_epoch(epoch)
        shards = np.sort(order[window * self._window : (window + 1) * self._window])
        shard = np.repeat(shards, self._counts[shards])
        group = np.concatenate([np.arange(count) for count in self._counts[shards]])
        shuffled = np.argsort(hash64(self._seed, epoch, shard, group), kind="stable")
        return np.stack([shard, group], 1)[shuffled]


def slice_of_rank(length: int, rank: int, world_size: int) -> range:
    """Return which of a global batch's ``length`` groups a rank works on; together all ranks have each exactly once."""
    return range(rank * length // world_size, (rank + 1) * length // world_size)
