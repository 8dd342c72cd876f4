"""Images that show none of the classes: any folder, whatever its sub-folders; ``list`` chooses some by a file of names.

iNaturalist, SUN and Places of Huang and Li 2021 (arXiv 2105.01879), Textures, NINCO, OpenImage-O. Lists are those of
OpenOOD: a name a line, perhaps a number behind it, perhaps folders above the set's in front of it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from synclones.base.errors import InputError
from synclones.evaluate.layout import Finding, Part, Role
from synclones.evaluate.opening.image_tree import fault, file_findings, note, read_tree, total_finding
from synclones.evaluate.opening.relabel import names_of, opened
from synclones.evaluate.opening.set_options import lines_of
from synclones.evaluate.test_set import TestSet
from synclones.shards.sources.decode import IMAGE_SUFFIXES

ROLE: Role = "outliers"
TREE = "any folders/*"
OPTIONS: dict[str, type] = {
    "list": str,  # a file of names, named from the folder of the set on
    "size_px": int,
}


def open_parts(path: Path, options: dict[str, Any], class_ids: tuple[str, ...]) -> list[Part]:
    """Open the images.

    Raises:
        InputError: there are none, or one of the list is missing.
    """
    if "list" not in options:
        return [Part(test_set=TestSet(path, labelled=False, source=opened(path, labelled=False)))]
    source = opened(path, labelled=False)
    position = {name: at for at, name in enumerate(names_of(source))}
    chosen = np.array(sorted(position[name] for name in _chosen(path, options["list"], list(position))))
    return [Part(test_set=TestSet(path, labelled=False, positions=chosen, source=source))]


def inspect(path: Path, options: dict[str, Any], class_ids: tuple[str, ...]) -> Iterator[Finding]:
    """Look at the count, and some headers."""
    tree = read_tree(path)
    names = tree.names
    if not names:
        (part,) = open_parts(path, options, class_ids)  # tars or Parquet files, or nothing, which it refuses
        yield total_finding(path, len(part.test_set), options.get("images"))
        return
    if "list" in options:
        names = sorted(_chosen(path, options["list"], names))
        yield note(f"{path}: {len(names):,} of {len(tree.names):,} images are in {options['list']}")
    yield total_finding(path, len(names), options.get("images"))
    inside = [name for name in {name.split("/")[0] for name in names} if name in class_ids]
    if inside:
        yield fault(f"{path}: folder {inside[0]!r} is one of the suite's classes, so no outlier; give another folder")
    yield from file_findings(path, names, options.get("size_px"), tree.passed)


def _chosen(path: Path, file_name: str, names: Sequence[str]) -> set[str]:
    """Return the names of a list as they are below the folder.

    Raises:
        InputError: the list names an image that is missing, or none.
    """
    file, present = path / file_name, set(names)
    stated = [_name(line) for line in lines_of(file)]
    if not stated:
        raise InputError(f"{file}: names no image; give another list")
    # Lists of a collection of sets begin above this one: as many folders go as make the first name one of ours.
    parts = PurePosixPath(stated[0]).parts
    skipped = next((at for at in range(len(parts)) if "/".join(parts[at:]) in present), None)
    if skipped is None:
        raise InputError(f"{file}: names {stated[0]!r}, which is not below {path}; give the list of this set")
    chosen = {"/".join(PurePosixPath(name).parts[skipped:]) for name in stated}
    missing = sorted(chosen - present)
    if missing:
        raise InputError(f"{file}: {len(missing):,} of {len(chosen):,} images are missing, the first is {missing[0]!r}")
    return chosen


def _name(line: str) -> str:
    """Return a line without the number that may stand behind the name, which may hold spaces itself."""
    name, space, _ = line.rpartition(" ")
    return line if line.lower().endswith(IMAGE_SUFFIXES) or not space else name.strip()
