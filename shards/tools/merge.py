"""Makes one set of several: samples unchanged where their numbers do not clash, else renumbered on request.

In: finished sets of one split. Out: a dataset folder whose manifest names all of them. Without ``--renumber`` every
sample keeps index, label and bytes, and the new set is sorted by index. With it, sets follow one another: the indices
of each are moved behind those of the one before, the class lists are joined, and shards hold one set's samples each.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from synclones.base.config import Count, check_ranges
from synclones.base.errors import InputError, VerificationError
from synclones.base.json_file import canonical_json, parse_json
from synclones.base.units import format_count, format_set
from synclones.shards.schema import MAX_INDEX, MAX_SHARD_ROWS, Sample
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
class MergeConfig:
    """Make one set of several finished ones; numbers or class lists that clash are refused by name, or renumbered."""

    folders: tuple[Path, ...] = field(kw_only=False)
    """The dataset folders, at least two."""
    out: Path
    """Folder of the new set; the same command goes on after a kill."""
    renumber: bool = False
    """Give the samples new indices and, where class lists differ, labels; a sample's json keeps its earlier index."""
    images_per_shard: Count = 10_000
    """Images of one tar, at most 2^20."""
    dry_run: bool = False
    """Say what would be made, and write nothing."""

    def __post_init__(self) -> None:
        check_ranges(self, images_per_shard=(1, MAX_SHARD_ROWS))
        if len(self.folders) < 2:
            raise InputError("folders: one was given, expected at least two to merge")


def merge(config: MergeConfig) -> None:
    """Make the set, or say what it would be.

    Raises:
        InputError: splits differ; indices or class lists do and ``--renumber`` is not given; ``--out`` is another's.
        VerificationError: a set is unfinished or damaged.
    """
    parents = [open_parent(folder) for folder in config.folders]
    _refuse_other_splits(parents)
    made = _renumbered(config, parents) if config.renumber else _as_they_are(config, parents)
    if config.dry_run:
        check_out(made)
        print(
            f"{config.out}: {format_set(len(made.selection), made.num_shards)}, "
            f"from {format_count(len(parents), 'set')}, {len(made.classes)} classes; nothing is written"
        )
        return
    make(made)


def _refuse_other_splits(parents: list[ParentSet]) -> None:
    first = parents[0]
    for other in parents[1:]:
        if other.shards.split != first.shards.split:
            raise InputError(
                f"{other.folder}: is a {other.shards.split} set, {first.folder} a {first.shards.split} set; "
                "give sets of one split"
            )
        if bool(other.classes) != bool(first.classes):
            raise InputError(f"{other.folder}, {first.folder}: one has classes and the other has none; give equal ones")


def _as_they_are(config: MergeConfig, parents: list[ParentSet]) -> MadeSet:
    """Return the set of unchanged samples, by index."""
    for other in parents[1:]:
        if other.classes != parents[0].classes:
            raise InputError(f"{_first_difference(parents[0], other)}; --renumber joins the class lists")
    columns = [all_samples(parent) for parent in parents]
    owner = np.repeat(np.arange(len(parents), dtype=np.int16), [len(column[0]) for column in columns])
    shard, position, index, _ = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    order = np.argsort(index, kind="stable")
    twice = np.flatnonzero(np.diff(index[order]) == 0)
    if len(twice):
        one, other = (parents[owner[order[twice[0] + step]]].folder for step in (0, 1))
        number = index[order[twice[0]]]
        raise InputError(f"{one}, {other}: both have a sample {number} ({len(twice)} such); --renumber keeps both")
    selection = Selection(
        owner[order], shard[order], position[order], equal_starts(len(order), config.images_per_shard)
    )
    return _made(config, parents, selection, parents[0].classes)


def _first_difference(one: ParentSet, other: ParentSet) -> str:
    pairs = list(zip(one.classes, other.classes, strict=False))
    number = next((n for n, (a, b) in enumerate(pairs) if a != b), len(pairs))
    names = [set_.classes[number] if number < len(set_.classes) else "absent" for set_ in (one, other)]
    return f"{other.folder}: class {number} is {names[1]}, in {one.folder} it is {names[0]}"


def _renumbered(config: MergeConfig, parents: list[ParentSet]) -> MadeSet:
    """Return the set in which one parent's samples follow another's."""
    classes = tuple(dict.fromkeys(name for parent in parents for name in parent.classes))
    numbers = {name: number for number, name in enumerate(classes)}
    labels = [[numbers[name] for name in parent.classes] for parent in parents]
    columns = [all_samples(parent) for parent in parents]
    sizes = [len(column[0]) for column in columns]
    after = np.cumsum([0, *(int(index.max()) + 1 if len(index) else 0 for _, _, index, _ in columns)])
    if after[-1] > MAX_INDEX:
        raise InputError(f"--renumber: indices would reach {after[-1]}, at most {MAX_INDEX} fit; merge fewer sets")
    # A shard holds one parent's samples: captions are counted per set, and training groups them within a shard.
    starts, end = list[int](), 0
    for size in sizes:
        starts += [end + start for start in range(0, size, config.images_per_shard)]
        end += size
    owner = np.repeat(np.arange(len(parents), dtype=np.int16), sizes)
    shard, position = (np.concatenate([column[part] for column in columns]) for part in (0, 1))

    def changed(sample: Sample, parent: int) -> Sample:
        return _moved(sample, parent, int(after[parent]), labels[parent])

    selection = Selection(owner, shard, position, [*starts, end])
    return replace(_made(config, parents, selection, classes), changed=changed)


def _moved(sample: Sample, parent: int, by: int, labels: list[int]) -> Sample:
    """Return a sample with its new index and label; its json says both indices, as far as it says one."""
    where = f"parent {parent}: sample {sample.index}"
    try:
        facts = parse_json(sample.json)
    except ValueError:
        raise VerificationError(f"{where}: its json is none; run `synclones shards verify`") from None
    if isinstance(facts, dict):
        facts = facts | {"index": sample.index + by, "merged": {"parent": parent, "index": sample.index}}
    if sample.label is not None and sample.label >= len(labels):
        raise InputError(f"{where}: label {sample.label} is no class of its set, expected 0 to {len(labels) - 1}")
    label = None if sample.label is None else labels[sample.label]
    return replace(sample, index=sample.index + by, label=label, json=canonical_json(facts))


def _made(config: MergeConfig, parents: list[ParentSet], selection: Selection, classes: tuple[str, ...]) -> MadeSet:
    return MadeSet(
        made_by="merge",
        out=config.out,
        settings=config,
        parents=parents,
        selection=selection,
        rule={"renumber": config.renumber, "images_per_shard": config.images_per_shard},
        classes=classes,
    )
