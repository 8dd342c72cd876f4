"""Objects under common and uncommon circumstances: ``<class>-<setting>/<n>.jpg`` and ``annotations.db``, FOCUS.

Kattakinda and Feizi 2022 (arXiv 2110.03804), github.com/priyathamkat/focus; the licence allows research alone, and no
passing on. Ten classes; an image has 0 to 3 uncommon ones of time, weather and location. Answered right is what is a
member of its class among all classes of the model. Images without annotation are left out; those that are cut are shown
as far as they go, as the set's own loader and the papers' code show them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synclones.base.errors import InputError
from synclones.evaluate.layout import Finding, Part, Role
from synclones.evaluate.opening.annotations import (
    Annotation,
    Uncommon,
    read_annotations,
    stated_uncommon,
    uncommon_of_focus,
)
from synclones.evaluate.opening.groupings import FOCUS, members_of
from synclones.evaluate.opening.image_tree import count_findings, file_findings, listed, note, read_tree, warning
from synclones.evaluate.opening.relabel import names_of, opened
from synclones.evaluate.opening.set_options import texts
from synclones.evaluate.test_set import TestSet
from synclones.shards.kept import note_once

ROLE: Role = "context"
TREE = "<class>-<setting>/*.jpg beside annotations.db"
OPTIONS: dict[str, type] = {
    "annotations": str,  # the database, named from the folder of the set on; by default annotations.db
    "members": dict,  # class -> ids of the suite's classes; by default the ten of ImageNet's
    "uncommon": dict,  # class -> {time: [...], weather: [...], locations: [...]}, with members
    "without": list,  # images that are left out
    "by_uncommon": list,  # how many images have 0, 1, 2 and 3 uncommon attributes
}


@dataclass(frozen=True)
class _Known:
    """What is known of a set before its images are opened."""

    members: dict[str, tuple[str, ...]]
    tables: Uncommon
    rows: dict[str, Annotation]


def open_parts(path: Path, options: dict[str, Any], class_ids: tuple[str, ...]) -> list[Part]:
    """Open the annotated images: facts are ``uncommon``, 0 to 3, and which: ``time``, ``weather``, ``location``.

    Raises:
        InputError: the database is missing or another, or no image is annotated.
    """
    known = _known(path, options, class_ids)
    source = opened(path, labelled=False, cut_images=True)
    names = names_of(source)
    _tell(path, names, known.rows)
    kept = np.array([at for at, name in enumerate(names) if name in known.rows], dtype=np.int64)
    if not len(kept):
        raise InputError(f"{path}: the annotations name none of its {len(names):,} images; give the images of this set")
    rows = [known.rows[names[at]] for at in kept]
    number = {name: at for at, name in enumerate(known.members)}
    attributes = np.array([row.uncommon(known.tables) for row in rows], dtype=bool)
    test_set = TestSet(
        path,
        class_ids=tuple(known.members),
        labels=np.array([number[row.category] for row in rows], dtype=np.int64),
        positions=kept,
        members=known.members,
        decision="top1",
        facts={
            "uncommon": attributes.sum(1).astype(np.int64),
            "time": attributes[:, 0],
            "weather": attributes[:, 1],
            "location": attributes[:, 2],
        },
        source=source,
    )
    return [Part(test_set=test_set)]


def inspect(path: Path, options: dict[str, Any], class_ids: tuple[str, ...]) -> Iterator[Finding]:
    """Look at the database, at what it says that is not there and the other way round, at counts and some headers."""
    known = _known(path, options, class_ids)
    tree = read_tree(path)
    rows, images = known.rows, set(tree.names)
    kept = [name for name in tree.names if name in rows]
    counts = Counter(rows[name].category for name in kept)
    yield from count_findings(path, counts, {"images": options.get("images"), "num_classes": len(known.members)})
    missing, without = sorted(set(rows) - images), sorted(images - set(rows))
    if missing:
        yield warning(f"{path}: lacks {len(missing):,} of {len(rows):,} annotated images: {listed(missing)}")
    if without:
        yield note(f"{path}: {len(without):,} images have no annotation and are left out: {listed(without)}")
    strange = sorted({word for row in rows.values() for word in row.strange()})
    if strange and "uncommon" not in options:
        yield warning(
            f"{path}: the annotations say {listed(strange)}, which is taken for common; give the released file"
        )
    yield from _uncommon_findings(path, options, [sum(rows[name].uncommon(known.tables)) for name in kept])
    yield from file_findings(path, tree.names, None, tree.passed)


def _uncommon_findings(path: Path, options: Mapping[str, Any], uncommon: Sequence[int]) -> Iterator[Finding]:
    counts = [uncommon.count(number) for number in range(4)]
    wanted = options.get("by_uncommon", counts)
    text = f"{path}: {' / '.join(f'{count:,}' for count in counts)} images with 0 / 1 / 2 / 3 uncommon attributes"
    yield note(text) if counts == wanted else warning(f"{text}, expected {' / '.join(map(str, wanted))}")


def _known(path: Path, options: Mapping[str, Any], class_ids: tuple[str, ...]) -> _Known:
    """Read the database, and what is uncommon of each class.

    Raises:
        InputError: it is missing or another, or names a class that is none.
    """
    members = members_of(FOCUS, options, class_ids, path)
    if "members" in options:
        tables = stated_uncommon(options.get("uncommon"), tuple(members), path)
    else:
        tables = uncommon_of_focus()
    rows = read_annotations(path / options.get("annotations", "annotations.db"))
    without = texts(options, "without", path) or ()
    unknown = sorted(set(without) - set(rows))
    if unknown:
        raise InputError(f"{path}: without: {listed(unknown)}: no annotated image; name those that are to be left out")
    rows = {name: row for name, row in rows.items() if name not in without}
    strange = sorted({row.category for row in rows.values()} - set(members))
    if strange:
        raise InputError(f"{path}: the annotations name the classes {listed(strange)}, expected {', '.join(members)}")
    return _Known(members, tables, rows)


def _tell(path: Path, names: Sequence[str], rows: Mapping[str, Annotation]) -> None:
    present = set(names)
    missing, without = [name for name in rows if name not in present], [name for name in names if name not in rows]
    if missing:
        note_once(f"{path}: lacks {len(missing):,} of {len(rows):,} annotated images (the first: {missing[0]})")
    if without:
        note_once(f"{path}: left out {len(without):,} images without annotation (the first: {without[0]})")
