"""The order in which training sees images: a pure function of (seed, mixture), whose whole state is one counter.

In: how many groups each part of a mixture has, and how many it shows per epoch. Out: for any stretch of the endless
stream of groups, which part, which group of it, and how often that was shown before. A group is one sample, or the
images of one caption, and is never split. Nothing here knows ranks or reads files; nothing as long as an epoch is held.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from synclones.base.draws import hash64
from synclones.shards.loading.bijection import permuted, unpermuted

WINDOW_SHARDS = 64
# What the random numbers are for; appended to, never changed: they are part of a training's identity.
_PHASE, _PASS, _SHARDS, _WITHIN, _SUBSET, _CLASS, _MEMBER = range(1, 8)


@dataclass(frozen=True)
class Stretch:
    """Consecutive groups of the stream, each array int64[n]."""

    epoch: np.ndarray
    part: np.ndarray
    """Number in the list the order was made from."""
    group: np.ndarray
    """Number within its set, shard after shard."""
    showing: np.ndarray
    """How often the group was shown before."""
    position: np.ndarray
    """Position in the stream of its part."""


class PartOrder(Protocol):
    """The endless stream of one part of a mixture: pass after pass all its groups, each pass in another order."""

    groups: int
    """Different groups in it."""

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (group, showing) at positions of the stream, int64[n] each; ``positions`` are ascending."""


class MixtureOrder:
    """Parts of a mixture, interleaved evenly: any stretch of an epoch has of each part its share, but for rounding.

    The stream has no end and no tail: a batch may begin in one epoch and end in the next, nothing is dropped or padded.
    """

    def __init__(self, parts: Sequence[tuple[PartOrder, int]], seed: int):
        """``parts``: streams, and how many groups of each an epoch shows."""
        self._parts = [part for part, _ in parts]
        self._counts = [count for _, count in parts]
        self._seed = seed
        self.groups_per_epoch = sum(self._counts)

    def stretch(self, start: int, stop: int) -> Stretch:
        """Groups ``start`` to ``stop`` - 1 of the stream; group g is in epoch ``g // groups_per_epoch``."""
        positions = np.arange(start, stop, dtype=np.int64)
        epoch, slot = np.divmod(positions, self.groups_per_epoch)
        part, ordinal = self._dealt(epoch, slot)
        group, showing = np.empty_like(slot), np.empty_like(slot)
        position = epoch * np.asarray(self._counts)[part] + ordinal
        for number, stream in enumerate(self._parts):
            mine = part == number
            group[mine], showing[mine] = stream.at(position[mine])
        return Stretch(epoch, part, group, showing, position)

    def ahead(self, stretch: Stretch) -> dict[int, np.ndarray]:
        """Return part -> the shards that it reads in and soon after a stretch, of parts that read few at a time."""
        windowed = {number: part for number, part in enumerate(self._parts) if isinstance(part, Windowed)}
        reached = {number: stretch.position[stretch.part == number] for number in windowed}
        return {number: windowed[number].ahead(int(own[-1])) for number, own in reached.items() if len(own)}

    def _dealt(self, epoch: np.ndarray, slot: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return whose turn each slot of an epoch is, and how many turns that part had in the epoch before it."""
        part, ordinal = np.full_like(slot, -1), np.zeros_like(slot)
        rest = self.groups_per_epoch
        for number, count in enumerate(self._counts):
            # Of the slots that earlier parts left, this one takes every (rest / count)-th, beginning at a phase of the
            # epoch: exactly ``count`` of ``rest``, as evenly as whole numbers allow (a Beatty sequence).
            phase = (hash64(self._seed, _PHASE, number, epoch) % np.uint64(max(rest, 1))).astype(np.int64)
            taken, after = (slot * count + phase) // max(rest, 1), ((slot + 1) * count + phase) // max(rest, 1)
            mine = (part < 0) & (after > taken)
            part[mine], ordinal[mine] = number, taken[mine]
            slot, rest = slot - taken, rest - count
        return part, ordinal


class Shuffled:
    """Every pass a permutation of all groups: for sets of which any image costs as little as any other."""

    def __init__(self, groups: int, total: int, seed: int, key: int, subset_seed: int = 0):
        """``groups`` of ``total``: the first of a permutation of them, so that smaller subsets are within larger ones.

        ``key``: number of the part; ``subset_seed``: of the choice, which ``seed`` does not change.
        """
        self.groups, self._total, self._seed, self._key, self._subset_seed = groups, total, seed, key, subset_seed

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (group, showing) at positions of the stream."""
        showing, position = np.divmod(positions, self.groups)
        group = permuted(position, self.groups, self._seed, _PASS, self._key, showing)
        return chosen(group, self.groups, self._total, self._subset_seed), showing


def chosen(rank: np.ndarray, groups: int, total: int, subset_seed: int) -> np.ndarray:
    """Return the groups of given ranks in a seeded subset of ``groups`` of ``total``; all of them are in order."""
    return rank if groups == total else permuted(rank, total, _SUBSET, subset_seed)


def is_chosen(group: np.ndarray, groups: int, total: int, subset_seed: int) -> np.ndarray:
    """Return whether groups are in the subset that `chosen` lists: bool[n]."""
    if groups == total:
        return np.ones(len(group), dtype=bool)
    return unpermuted(group, total, _SUBSET, subset_seed) < groups


class Windowed:
    """Every pass shuffles the shards, and the groups within windows of them: few shards are read at a time.

    A window of 64 shards of 10,000 is nearly as good as a global shuffle.
    """

    def __init__(
        self,
        groups_per_shard: Sequence[int],
        seed: int,
        key: int,
        groups: int | None = None,
        subset_seed: int = 0,
        window_shards: int = WINDOW_SHARDS,
    ):
        """``groups``: how many of all, chosen as by `Shuffled`; all by default."""
        self._starts = np.concatenate([[0], np.cumsum(np.asarray(groups_per_shard, dtype=np.int64))])
        self._total = int(self._starts[-1])
        self.groups = self._total if groups is None else groups
        self._seed, self._key, self._subset_seed, self._window = seed, key, subset_seed, window_shards
        self._counts = self._chosen_per_shard()
        self._pass = lru_cache(maxsize=2)(self._shards_of_pass)
        self._groups = lru_cache(maxsize=2)(self._groups_of_window)

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (group, showing) at positions of the stream."""
        showing, position = np.divmod(positions, self.groups)
        group = np.empty_like(positions)
        for number in np.unique(showing):
            _, ends = self._pass(int(number))
            window = np.searchsorted(ends, position, "right")
            for w in np.unique(window[showing == number]):
                mine = (showing == number) & (window == w)
                group[mine] = self._in_window(int(number), int(w), position[mine] - (ends[w - 1] if w else 0))
        return group, showing

    def shards(self, showing: int, window: int) -> np.ndarray:
        """Return the shards of a window of a pass, int64[n]: what is fetched before it is read."""
        order, _ = self._pass(showing)
        shards: np.ndarray = order[window * self._window : (window + 1) * self._window]
        return shards

    def ahead(self, position: int) -> np.ndarray:
        """Return the shards of the window at a position of the stream, then those of the next one."""
        showing, within = divmod(position, self.groups)
        _, ends = self._pass(showing)
        window = int(np.searchsorted(ends, within, "right"))
        following = (showing, window + 1) if window + 1 < len(ends) else (showing + 1, 0)
        return np.concatenate([self.shards(showing, window), self.shards(*following)])

    def _in_window(self, showing: int, window: int, position: np.ndarray) -> np.ndarray:
        groups = self._groups(showing, window)
        shuffled: np.ndarray = groups[permuted(position, len(groups), self._seed, _WITHIN, self._key, showing, window)]
        return shuffled

    def _shards_of_pass(self, showing: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the shards of a pass in order, and the position at which each window ends."""
        order = permuted(np.arange(len(self._counts)), len(self._counts), self._seed, _SHARDS, self._key, showing)
        ends = np.cumsum(self._counts[order])
        last = np.arange(self._window, len(order) + self._window, self._window).clip(max=len(order)) - 1
        return order, ends[last]

    def _groups_of_window(self, showing: int, window: int) -> np.ndarray:
        return np.concatenate([self._chosen_of_shard(shard) for shard in np.sort(self.shards(showing, window))])

    def _chosen_of_shard(self, shard: int) -> np.ndarray:
        groups = np.arange(self._starts[shard], self._starts[shard + 1])
        mine: np.ndarray = groups[is_chosen(groups, self.groups, self._total, self._subset_seed)]
        return mine

    def _chosen_per_shard(self) -> np.ndarray:
        if self.groups == self._total:
            return np.diff(self._starts)
        return np.array([len(self._chosen_of_shard(shard)) for shard in range(len(self._starts) - 1)], dtype=np.int64)


class Balanced:
    """Every class equally often, whatever the set has of it: round after round each class once, in another order.

    A round takes the next group of a class' own stream, which is shuffled anew at each pass over the class.
    """

    def __init__(self, label: np.ndarray, groups: int, seed: int, key: int, subset_seed: int = 0):
        """``label``: class of each group of the set, int[n], 0 and more. ``groups``: how many of all, divided evenly.

        Raises:
            ValueError: a class has fewer than its part of them; the text says which and how many.
        """
        order = np.argsort(label, kind="stable")
        classes, sizes = np.unique(label, return_counts=True)
        # Classes in order take one more each when the number does not divide evenly: larger subsets hold smaller ones.
        wanted = np.full(len(classes), groups // len(classes)) + (np.arange(len(classes)) < groups % len(classes))
        wanted = sizes if groups == len(label) else wanted
        if (short := np.flatnonzero(sizes < wanted)).size:
            raise ValueError(f"class {classes[short[0]]} has {sizes[short[0]]}, {wanted[short[0]]} are asked for")
        self.groups = int(wanted.sum())
        self._members, self._starts = order, np.concatenate([[0], np.cumsum(sizes)])
        self._sizes, self._wanted = sizes, wanted
        self._filled = np.flatnonzero(wanted)
        self._seed, self._key, self._subset_seed = seed, key, subset_seed

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (group, showing) at positions of the stream."""
        turn, position = np.divmod(positions, len(self._filled))
        number = self._filled[permuted(position, len(self._filled), self._seed, _CLASS, self._key, turn)]
        showing, within = np.divmod(turn, self._wanted[number])
        rank = permuted(within, self._wanted[number], self._seed, _MEMBER, self._key, number, showing)
        partial = self._wanted[number] < self._sizes[number]
        spread = permuted(rank, self._sizes[number], _SUBSET, self._subset_seed, number)
        group: np.ndarray = self._members[self._starts[number] + np.where(partial, spread, rank)]
        return group, showing


def slice_of_rank(length: int, rank: int, world_size: int) -> range:
    """Return which of a global batch's ``length`` groups a rank works on; together all ranks have each exactly once."""
    return range(rank * length // world_size, (rank + 1) * length // world_size)
