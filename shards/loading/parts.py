"""A mixture, opened: how many images of each set it has and shows, counted before the first one is read.

In: a `Mixture`, and what opens a set. Out: `MixedSources`: parts with exact counts, one class list, a table, the order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from synclones.base.errors import InputError, one_line
from synclones.base.files import sha256_bytes
from synclones.shards.loading.chosen import chosen
from synclones.shards.loading.mixture import Item, Mixture
from synclones.shards.loading.order import WINDOW_SHARDS, Balanced, MixtureOrder, PartOrder, Shuffled, Windowed
from synclones.shards.sources.cache import CACHE_GB, GB
from synclones.shards.sources.label_captions import LabelCaptions
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.sources.open import open_source
from synclones.shards.sources.pairs import PairedSource
from synclones.shards.sources.source import FetchedSource

OpenItem = Callable[[Item], LabelledSource]
Images = LabelledSource | PairedSource
GLOBAL, WINDOWED = "global", "windowed"


@dataclass(frozen=True)
class Part:
    """One set of a mixture."""

    item: Item
    source: Images
    unique: int
    """Different groups of it that are used."""
    shown: int
    """Groups of it that an epoch shows."""
    label_of: np.ndarray | None = None
    """int64[classes]: the mixture's label for each of the set's own; None when they are the same."""

    def __post_init__(self) -> None:
        if not 0 < self.unique <= sum(self.source.groups_per_shard) or self.shown < 1:
            raise ValueError(f"{self.item.name}: {self.unique} groups, {self.shown} shown")

    @property
    def sets(self) -> tuple[LabelledSource, ...]:
        """The sets that its images are of: two for pairs."""
        source = self.source
        return (source.real, source.synthetic) if isinstance(source, PairedSource) else (source,)

    @property
    def is_plain(self) -> bool:
        """Whether every image is shown equally often in every epoch."""
        whole = self.unique == sum(self.source.groups_per_shard)
        plain = isinstance(self.source, LabelledSource) and self.label_of is None and not self.item.balance
        return plain and whole and self.shown % self.unique == 0

    @property
    def shuffle(self) -> str:
        """``global``, or ``windowed`` where whole shards are fetched or the set is too large to be held as columns."""
        return GLOBAL if self.source.holds_all or self.item.balance else WINDOWED

    def order(self, seed: int, key: int) -> PartOrder:
        """Return the endless stream of its groups."""
        counts, choice = self.source.groups_per_shard, self.item.subset_seed
        if self.item.balance:
            return Balanced(self.source.group_labels(), self.unique, seed, key, choice)
        if self.shuffle == WINDOWED:
            return Windowed(counts, seed, key, self.unique, choice)
        return Shuffled(self.unique, sum(counts), seed, key, choice)

    def identity(self) -> dict[str, Any]:
        """Return what the weights depend on: the set by content, how much of it, and in what order."""
        facts: dict[str, Any] = {"content_hash": self.source.content_hash()}
        if self.is_plain:
            facts["repeat"] = self.shown // self.unique
        else:
            facts |= {"groups": self.unique, "shown": self.shown, "subset_seed": self.item.subset_seed}
            facts |= {"balance": True} if self.item.balance else {}
            facts |= {"pair": self.source.images_per_group} if isinstance(self.source, PairedSource) else {}
            facts |= {"labels": self.label_of.tolist()} if self.label_of is not None else {}
        if isinstance(self.source, LabelledSource) and self.source.excluded is not None:
            facts["excluded"] = sha256_bytes(self.source.excluded.astype("<i8").tobytes())
        return facts | ({"shuffle": WINDOWED} if self.shuffle == WINDOWED else {})


@dataclass(frozen=True)
class MixedSources:
    """The parts of a mixture and the classes they share."""

    parts: tuple[Part, ...]
    class_ids: tuple[str, ...]

    @property
    def images_per_group(self) -> int:
        """How many images each group has."""
        return self.parts[0].source.images_per_group

    @property
    def images_per_epoch(self) -> int:
        """Images that one epoch shows."""
        return sum(part.shown for part in self.parts) * self.images_per_group

    def order(self, seed: int) -> MixtureOrder:
        """Return the order in which all ranks together see the groups."""
        return MixtureOrder([(part.order(seed, key), part.shown) for key, part in enumerate(self.parts)], seed)

    def check_caches(self) -> None:
        """Refuse a cache that cannot hold the shards of a set which training reads in turns.

        Raises:
            InputError: saying how much they take.
        """
        for part in self.parts:
            for source in (one.source for one in part.sets):
                if isinstance(source, FetchedSource):
                    _check_cache(source, part)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per set, as tables and the manifest show it."""
        size = self.images_per_group
        return [
            {
                "source": part.item.name,
                "folder": str(part.source.folder),
                "images": len(part.source),
                "unique": part.unique * size,
                "per_epoch": part.shown * size,
                "repeats": round(part.shown / part.unique, 6),
                "share": round(part.shown * size / self.images_per_epoch, 6),
                "classes": len(part.source.class_ids),
                "ungrouped": part.source.ungrouped,
            }
            for part in self.parts
        ]

    def table(self) -> str:
        """Return the same as lines for a terminal."""
        rows = self.rows()
        lines = [("source", "images", "used", "per epoch", "repeats", "share", "classes"), *map(_cells, rows)]
        if len(rows) > 1:
            sums = {key: sum(row[key] for row in rows) for key in ("images", "unique", "per_epoch", "share")}
            lines.append(_cells({"source": "all", **sums, "repeats": None, "classes": len(self.class_ids)}))
        # Names to the left, numbers to the right.
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = []
        for name, *cells in lines:
            numbers = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
            text.append("  ".join([name.ljust(widths[0]), *numbers]))
        too_few = "images left out: they have no partner, or too few of their caption in a shard"
        text += [f"{row['source']}: {row['ungrouped']:,} {too_few}" for row in rows if row["ungrouped"]]
        return "\n".join(text)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    counts = (f"{row[key]:,}" for key in ("images", "unique", "per_epoch"))
    repeats = "" if row["repeats"] is None else f"{row['repeats']:g}"
    return (one_line(row["source"]), *counts, repeats, f"{row['share']:.1%}", f"{row['classes']:,}")


def open_mixture(mixture: Mixture, opened: OpenItem | None = None) -> MixedSources:
    """Open all sets, count what is used of each, and match their classes; ``opened`` is `open_item` by default.

    Raises:
        InputError: no set; classes that differ, or more images than there are, by name.
    """
    if not mixture.items:
        raise InputError("--data: no folder was given; name one that `synclones generate` finished")
    mixture, sources = _joined(mixture, [(opened or open_item)(item) for item in mixture.items])
    size = sources[0].images_per_group
    if any(source.images_per_group != size for source in sources):
        raise InputError("--data: pair=both shows two images together, other sets one; leave them out, or use pick-one")
    # How much of each set, then what its labels mean in terms of the first.
    unique = [_unique(item, source) for item, source in zip(mixture.items, sources, strict=True)]
    shown = _shown(mixture, unique, size)
    class_ids = sources[0].class_ids
    maps = [_label_map(sources[0], source) for source in sources]
    parts = [Part(*given) for given in zip(mixture.items, sources, unique, shown, maps, strict=True)]
    for part in parts:
        _check_balance(part)
    return MixedSources(tuple(parts), class_ids)


def _joined(mixture: Mixture, sources: Sequence[LabelledSource]) -> tuple[Mixture, list[Images]]:
    """Put a set of pairs in the place of the real one of two that are joined; amounts are those of the real set.

    Raises:
        InputError: no pairs, or amounts of the synthetic set.
    """
    pair = mixture.pair
    if pair is None:
        return mixture, [*sources]
    names = [item.name for item in mixture.items]
    real, synthetic = names.index(pair.real), names.index(pair.synthetic)
    asked = mixture.items[synthetic]
    plain = Item(path=asked.path, name=asked.name, split=asked.split, first=asked.first)
    if asked != plain:
        raise InputError(f"--data: {asked.name}: how much of a pair is shown is said of {pair.real}; leave it out here")
    if mixture.items[real].only or mixture.items[real].without:
        raise InputError(
            f"--data: {pair.real}: a pair shows all images that have a partner; leave only and without out"
        )
    label_of = _label_map(sources[real], sources[synthetic])
    paired = PairedSource(sources[real], sources[synthetic], label_of, both=pair.mode == "both")
    items, images = list(mixture.items), list[Images](sources)
    items[real], images[real] = replace(items[real], name=f"{pair.real}+{pair.synthetic}"), paired
    del items[synthetic], images[synthetic]
    return replace(mixture, items=tuple(items), pair=None), images


def open_item(
    item: Item,
    images_per_group: int = 1,
    *,
    labelled: bool = True,
    cache_gb: float = CACHE_GB,
    label_captions: LabelCaptions | None = None,
) -> LabelledSource:
    """Open the set that an item names, its images in groups of one caption, its labels asked for or not.

    ``cache_gb`` of it are kept on this disk where it is in a store. ``label_captions``: see `LabelledSource`.

    Raises:
        InputError: no such set, or no labels.
        VerificationError: it is damaged.
    """
    # Of our own folders training takes train unless another split is named; others say by themselves what they hold.
    splits: dict[str, Any] = {"split": item.split or None, "own_split": "train"}
    keys: dict[str, Any] = {"label_key": item.label_key or None, "caption_key": item.caption_key or None}
    source = open_source(item.path, classes=item.classes or None, first=item.first, cache_gb=cache_gb, **splits, **keys)
    opened = LabelledSource(source, images_per_group, labelled=labelled, label_captions=label_captions)
    return chosen(opened, item.only, item.without, f"--data: {item.name}")


def whole(source: LabelledSource, repeat: int = 1) -> Part:
    """Return a part that shows every image of a set ``repeat`` times per epoch."""
    groups = sum(source.groups_per_shard)
    return Part(Item(path=str(source.folder), name=source.folder.name), source, groups, groups * repeat)


def single(source: LabelledSource, repeat: int = 1) -> MixedSources:
    """Return a mixture of one set, every image of which an epoch shows ``repeat`` times."""
    return MixedSources((whole(source, repeat),), source.class_ids)


def _unique(item: Item, source: Images) -> int:
    """Return how many groups of a set are used."""
    size, groups = source.images_per_group, sum(source.groups_per_shard)
    if not item.count:
        return max(1, int(groups * item.fraction))
    if item.count % size:
        raise InputError(f"--data: {item.name}: count={item.count} is not a multiple of {size} images per group")
    if item.count > groups * size:
        times = Fraction(item.count, groups * size)
        raise InputError(
            f"--data: {item.name}: {item.count:,} images are asked for, it has {groups * size:,}; leave count out, and "
            f"write repeat={times} to show as many per epoch"
        )
    return item.count // size


def _shown(mixture: Mixture, unique: Sequence[int], size: int) -> list[int]:
    """Return how many groups of each set an epoch shows; a total is divided by largest remainders."""
    amounts = []
    for item, groups in zip(mixture.items, unique, strict=True):
        if item.images % size:
            raise InputError(f"--data: {item.name}: images={item.images} is not a multiple of {size} images per group")
        amounts.append(Fraction(item.images // size) if item.images else groups * item.repeat)
    if not mixture.total:
        return [max(1, round(amount)) for amount in amounts]
    if mixture.total % size:
        raise InputError(f"--data: total={mixture.total} is not a multiple of {size} images per group")
    total = mixture.total // size
    shares = [item.share for item in mixture.items]
    rest = 1 - sum(shares, Fraction(0))
    # Without shares every set has its size; with shares the one without takes what is left.
    weights = [share or rest for share in shares] if any(shares) else [amount / sum(amounts) for amount in amounts]
    exact = [total * weight for weight in weights]
    counts = [int(amount) for amount in exact]
    for number in sorted(range(len(exact)), key=lambda n: (counts[n] - exact[n], n))[: total - sum(counts)]:
        counts[number] += 1
    for item, count in zip(mixture.items, counts, strict=True):
        if not count:
            raise InputError(f"--data: {item.name}: total={mixture.total} leaves no image of it; raise it")
    return counts


def _label_map(first: Images, other: Images) -> np.ndarray | None:
    """Return the first set's label for each label of another, by class id.

    Raises:
        InputError: naming the first class that only one of them has.
    """
    if first.class_ids == other.class_ids:
        return None
    label = {class_id: number for number, class_id in enumerate(first.class_ids)}
    for one, two in ((first, other), (other, first)):
        known = set(two.class_ids)
        lacking = next((class_id for class_id in one.class_ids if class_id not in known), None)
        if lacking is not None:
            raise InputError(
                f"--data: {one.folder} has the class {lacking!r}, {two.folder} has not; train on sets of the same "
                "classes, or say with classes=FILE what the labels of one of them mean"
            )
    return np.array([label[class_id] for class_id in other.class_ids], dtype=np.int64)


def _check_balance(part: Part) -> None:
    if not part.item.balance:
        return
    try:
        part.order(0, 0)
    except ValueError as error:
        raise InputError(f"--data: {part.item.name}: balance: {error}; lower count or fraction") from None


def _check_cache(source: FetchedSource, part: Part) -> None:
    sizes = sorted(source.bytes_per_shard(), reverse=True)
    at_once = min(len(sizes), WINDOW_SHARDS) if part.shuffle == WINDOWED else len(sizes)
    needed = sum(sizes[:at_once])
    if needed > source.cache_bytes:  # nearly every image would fetch a whole shard again
        raise InputError(
            f"--cache-gb: {source.cache_bytes / GB:g}, but of {part.item.name} {at_once} of {len(sizes)} shards are "
            f"read in turns, up to {needed:,} bytes; give at least {-(-needed // 10**7) / 100:g}, or make "
            "smaller shards"
        )
