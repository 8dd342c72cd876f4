"""Opens a folder of class folders under the classes that a suite knows them by.

In: a folder, and what each of its classes means. Out: `TestSet`, whose hash is the folder's own where nothing changes.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np

from synclones.base.errors import InputError
from synclones.evaluate.test_set import Decision, TestSet
from synclones.shards.kept import note_once
from synclones.shards.sources.indexed import IndexedSource
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.sources.open import open_source


def opened(path: Path, *, labelled: bool = True, cut_images: bool = False) -> LabelledSource:
    """Open a set of images; ``cut_images``: those that are cut are shown as far as they go, in place of refused.

    Raises:
        InputError: there is none.
    """
    # What folders stand for is the suite's to say, not the order of their names.
    return LabelledSource(open_source(path, explain=False), labelled=labelled, cut_images=cut_images)


def names_of(source: LabelledSource) -> list[str]:
    """Return what each image is called in its set, by position."""
    return [source.name(position) for position in range(len(source))]


def relabelled(
    source: LabelledSource,
    meaning: Mapping[str, str],
    class_ids: tuple[str, ...],
    *,
    name: str = "",
    members: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    decision: Decision = "classes",
) -> TestSet:
    """Return a set with its labels numbered among ``class_ids``.

    Args:
        meaning: class as stored -> one of ``class_ids``; images of other classes are left out, counted and told of.
        class_ids: of the set.
        name: what tables call it; by default its folder.

    Raises:
        InputError: no image is left.
    """
    number = {class_id: at for at, class_id in enumerate(class_ids)}
    of_stored = np.array([number[meaning[stored]] if stored in meaning else -1 for stored in source.class_ids])
    if class_ids == source.class_ids and np.array_equal(of_stored, np.arange(len(class_ids))):
        return TestSet(source.folder, name=name, members=members, decision=decision, source=source)
    labels = of_stored[source.all_labels_and_indices()[0]].astype(np.int64)
    kept = np.flatnonzero(labels >= 0)
    if len(kept) < len(labels):
        lost = [stored for stored in source.class_ids if stored not in meaning]
        note_once(
            f"{source.folder}: left out {len(labels) - len(kept):,} of {len(labels):,} images: {len(lost):,} of "
            f"{len(source.class_ids):,} classes are not asked for (the first: {lost[0]})"
        )
    if not len(kept):
        raise InputError(f"{source.folder}: holds no image of a class that is asked for; correct the suite")
    return TestSet(
        source.folder,
        name=name,
        class_ids=class_ids,
        labels=labels[kept],
        positions=None if len(kept) == len(labels) else kept,
        members=members,
        decision=decision,
        source=source,
    )


def first_difference(first: TestSet, second: TestSet) -> str:
    """Return in which image two sets differ by their names below the folder, without suffix; empty where in none.

    Sets without a difference hold the same underlying images in one order, as ImageNet-C does under all corruptions:
    what a model answers about them can be compared image by image.
    """
    if listing_of(first) and listing_of(first) == listing_of(second):
        return ""
    if len(first) != len(second):
        return f"{len(first):,} images and {len(second):,}"
    for number in range(len(first)):
        names = [str(PurePosixPath(each.file_name(number)).with_suffix("")) for each in (first, second)]
        if names[0] != names[1]:
            return f"image {number:,} is {names[0]!r} and {names[1]!r}"
    return ""


def listing_of(test_set: TestSet) -> str:
    """Return the hash of all names of a set that is a folder of which nothing was left out; empty of others."""
    source = test_set.source.source
    whole = len(test_set) == len(test_set.source)
    return source.index.listing if whole and isinstance(source, IndexedSource) else ""
