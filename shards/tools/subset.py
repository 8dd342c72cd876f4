"""Makes a smaller set of a larger one: seeded, nested, its samples unchanged.

In: a finished set, how many images, a seed. Out: a dataset folder of its own. Every image has a random rank in its
class that depends on seed and index alone, so that of two subsets of one seed the smaller one is contained in the
larger, and may as well be made out of it. Each size is a prefix: the best ranks of each class.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from synclones.base.config import Count, check_ranges
from synclones.base.draws import hash64
from synclones.base.errors import InputError
from synclones.base.units import format_count
from synclones.shards.schema import MAX_SHARD_ROWS
from synclones.shards.tools.made import (
    MadeSet,
    ParentSet,
    Selection,
    all_samples,
    check_out,
    equal_starts,
    make,
    open_parent,
)


@dataclass(frozen=True, kw_only=True)
class SubsetConfig:
    """Make a smaller set out of a finished one; of one seed, a smaller subset is contained in every larger one."""

    folder: Path = field(kw_only=False)
    """The dataset folder."""
    out: Path
    """Folder of the new set; the same command goes on after a kill."""
    count: Count | None = None
    """Images in all, as equally many of each class as there are."""
    fraction: float | None = None
    """Share of each class, 0 to 1, rounded to whole images: the classes keep their proportions."""
    per_class: Count | None = None
    """Images of each class."""
    seed: int = 0
    """Which images are chosen."""
    images_per_shard: Count = 10_000
    """Images of one tar, at most 2^20."""
    dry_run: bool = False
    """Say what would be made, and write nothing."""

    def __post_init__(self) -> None:
        check_ranges(self, seed=(0, 2**63 - 1), images_per_shard=(1, MAX_SHARD_ROWS))
        sizes = {name: getattr(self, name) for name in ("count", "fraction", "per_class")}
        given = {name: size for name, size in sizes.items() if size is not None}
        if len(given) != 1:
            raise InputError("--count, --fraction, --per-class: give exactly one of them")
        (name,) = given
        check_ranges(self, **{name: (1e-9, 1) if name == "fraction" else (1, 2**32)})


def subset(config: SubsetConfig) -> None:
    """Make the subset, or say what it would be.

    Raises:
        InputError: the set has fewer images, or no classes to choose by; ``--out`` is another set's.
        VerificationError: the set is unfinished or damaged.
    """
    parent = open_parent(config.folder)
    shard, position, index, label = all_samples(parent)
    chosen = choose(config, parent, index, label)
    selection = Selection(
        np.zeros(len(chosen), np.int16),
        shard[chosen],
        position[chosen],
        equal_starts(len(chosen), config.images_per_shard),
    )
    made = MadeSet(
        made_by="subset",
        out=config.out,
        settings=config,
        parents=[parent],
        selection=selection,
        rule=_rule(config) | {"seed": config.seed, "images_per_shard": config.images_per_shard},
        classes=parent.classes,
    )
    if config.dry_run:
        check_out(made)
        per_class = np.unique(label[chosen], return_counts=True)[1]
        print(
            f"{config.out}: {len(chosen)} of {len(index)} images in {format_count(made.num_shards, 'shard')}, "
            f"{per_class.min()} to {per_class.max()} of each of {len(per_class)} classes; nothing is written"
        )
        return
    make(made)


def _rule(config: SubsetConfig) -> dict[str, Any]:
    return {name: size for name in ("count", "fraction", "per_class") if (size := getattr(config, name)) is not None}


def choose(config: SubsetConfig, parent: ParentSet, index: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return which of the samples are chosen, int64[m], ascending.

    Args:
        index: int64[n], of all stored samples.
        label: int32[n], -1 throughout when there are no classes: then they are one class.

    Raises:
        InputError: there are not so many.
    """
    keys = hash64(config.seed, index)
    classes, which, sizes = np.unique(label, return_inverse=True, return_counts=True)
    order = np.lexsort((index, keys, which))
    rank = np.empty(len(index), np.int64)
    rank[order] = np.arange(len(index)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    if config.per_class is not None:
        _check_classes(config.per_class, parent, classes, sizes)
        taken = np.flatnonzero(rank < config.per_class)
    elif config.fraction is not None:
        taken = np.flatnonzero(rank < np.floor(config.fraction * sizes + 0.5)[which])
    else:
        assert config.count is not None
        if config.count > len(index):
            raise InputError(f"--count: {config.count} asked, {parent.folder} has {len(index)} images; lower it")
        taken = np.sort(np.lexsort((index, keys, rank))[: config.count])
    if not len(taken):
        raise InputError(f"--fraction: {config.fraction} of {len(index)} images is none of them; raise it")
    return taken


def _check_classes(wanted: int, parent: ParentSet, classes: np.ndarray, sizes: np.ndarray) -> None:
    if not parent.classes:
        raise InputError(f"--per-class: the images of {parent.folder} have no classes; use --count or --fraction")
    least = int(sizes.argmin())
    label = int(classes[least])
    if sizes[least] < wanted:
        name = parent.classes[label] if 0 <= label < len(parent.classes) else "of no name"
        raise InputError(
            f"--per-class: {wanted} asked, class {label} ({name}) of {parent.folder} has {sizes[least]}; lower it"
        )
    if len(classes) < len(parent.classes):
        absent = next(name for number, name in enumerate(parent.classes) if number not in classes)
        raise InputError(f"--per-class: class {absent} of {parent.folder} has no image; use --count or --fraction")
