"""A folder of images per class, ``ROOT/CLASS/*``, or any other labelled set (tars, tables, a dataset folder).

ImageNet's val, ImageNet-R and -A (200 of its classes each), ImageNet-Sketch, and with ``numbered: true`` ImageNet-V2,
whose folders are numbers. Folders of other names, as ObjectNet's, get their classes by ``mapping``. Images that lie
loose, as ImageNet's val before it is sorted, get them by ``labels``, a list beside them.
"""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes
from synclones.evaluate.layout import Finding, Part, Role
from synclones.evaluate.opening.image_tree import count_findings, fault, file_findings, listed, note, read_tree, warning
from synclones.evaluate.opening.relabel import names_of, opened, relabelled
from synclones.evaluate.opening.set_options import lines_of, mapping, texts
from synclones.evaluate.test_set import TestSet
from synclones.shards.kept import note_once

ROLE: Role = "shifted"
TREE = "<class id>/*"
OPTIONS: dict[str, type] = {
    "classes": list,  # only images of these classes
    "all_classes": bool,  # answers among all classes of the suite, not only those of the set
    "numbered": bool,  # folders are positions in the suite's list of classes
    "mapping": dict,  # folder -> class id, or several of which one has to be answered; folders without are left out
    "mapping_file": str,  # the same as JSON or CSV, named from the folder of the set on
    "labels": str,  # a list beside loose images: name and class id of each, such as LOC_val_solution.csv
    "num_classes": int,  # how many class folders there are
    "classes_sha256": str,  # first 16 digits of SHA-256 of their positions in the suite's list, joined by commas
    "size_px": int,  # the side that all images have
}


def open_parts(path: Path, options: dict[str, Any], class_ids: tuple[str, ...]) -> list[Part]:
    """Open the images.

    Raises:
        InputError: a class that the suite does not have, or options that do not fit.
    """
    if "labels" in options:
        return [Part(test_set=_loose(path, options, class_ids))]
    source = opened(path)
    meaning = meanings(source.class_ids, options, class_ids, path)
    if any(len(ids) > 1 for ids in meaning.values()):
        own = {stored: stored for stored in meaning}
        return [Part(test_set=relabelled(source, own, tuple(meaning), members=meaning, decision="top1"))]
    one = {stored: ids[0] for stored, ids in meaning.items()}
    shown = set(class_ids) if options.get("all_classes") else set(one.values())
    return [Part(test_set=relabelled(source, one, tuple(item for item in class_ids if item in shown)))]


def inspect(path: Path, options: dict[str, Any], class_ids: tuple[str, ...]) -> Iterator[Finding]:
    """Look at class folders, counts, and some headers."""
    tree = read_tree(path)
    if "labels" in options:
        labelled = _labels_of(path, options, class_ids, tree.names)
        yield from count_findings(path, _counted(labelled.values()), options, fault)
    elif "" in tree.counts:
        yield fault(
            f"{path}: {tree.counts['']:,} images lie loose (the first: {tree.by_folder[''][0]}), expected {TREE}; move "
            "them into folders of classes, or state labels, a list beside them"
        )
        return
    elif not tree.names:
        # Tars, Parquet, a dataset folder: its own index says what it holds.
        test_set = open_parts(path, options, class_ids)[0].test_set
        yield from count_findings(
            path, _counted(test_set.class_ids[label] for label in test_set.labels), options, fault
        )
        return
    else:
        counts = tree.counts
        meaning = meanings(sorted(counts), options, class_ids, path)
        lost = [folder for folder in counts if folder not in meaning]
        if lost:
            yield note(f"{path}: {sum(counts[folder] for folder in lost):,} images of {listed(lost)} are left out")
        kept = {folder: counts[folder] for folder in counts if folder in meaning}
        yield from count_findings(path, kept, options, fault)
        yield from _class_findings(path, meaning, options, class_ids)
    yield from file_findings(path, tree.names, options.get("size_px"), tree.passed)


def meanings(
    stored: Sequence[str], options: Mapping[str, Any], class_ids: tuple[str, ...], path: Path
) -> dict[str, tuple[str, ...]]:
    """Return class as stored -> the suite's classes that it stands for; classes that are left out have none.

    Raises:
        InputError: one is none of the suite's, or no number of one.
    """
    known, given = set(class_ids), mapping(options, path)
    if given is not None:
        strange = [class_id for ids in given.values() for class_id in ids if class_id not in known]
        if strange:
            raise InputError(f"{path}: the mapping names {strange[0]!r}, which is none of the suite's classes")
        meaning = {folder: given[folder] for folder in stored if folder in given}
    elif options.get("numbered"):
        meaning = {folder: (class_ids[_number(folder, len(class_ids), path)],) for folder in stored}
    else:
        strange = [folder for folder in stored if folder not in known]
        if strange:
            raise InputError(f"{path}: {_strange(strange, class_ids)}")
        meaning = {folder: (folder,) for folder in stored}
    chosen = texts(options, "classes", path)
    if chosen is None:
        return meaning
    if set(chosen) - known:
        raise InputError(f"{path}: classes: {_strange(sorted(set(chosen) - known), class_ids)}")
    return {folder: ids for folder, ids in meaning.items() if set(ids) & set(chosen)}


def _number(folder: str, classes: int, path: Path) -> int:
    # The name is the number: in the order of their names 10 would come before 2.
    if folder.isascii() and folder.isdigit() and int(folder) < classes:
        return int(folder)
    raise InputError(f"{path}: folder {folder!r} is no number of 0 to {classes - 1}; leave numbered out, or mend it")


def _strange(names: Sequence[str], class_ids: tuple[str, ...]) -> str:
    if all(name.isascii() and name.isdigit() for name in names):
        hint = "if folders are positions in the list of classes, as ImageNet-V2's are, state numbered: true"
    else:
        near = get_close_matches(names[0], class_ids, n=1)
        deeper = "if its classes lie a folder deeper, correct the path" if len(names) == 1 else ""
        hint = f"did you mean {near[0]!r}?" if near else deeper or "give the set's mapping, or another suite"
    return f"{listed([repr(name) for name in names])}: none of the suite's {len(class_ids):,} classes; {hint}"


# ------------------------------------------------------------------ loose images


def _loose(path: Path, options: Mapping[str, Any], class_ids: tuple[str, ...]) -> TestSet:
    source = opened(path, labelled=False)
    names = names_of(source)
    labelled = _labels_of(path, options, class_ids, names)
    shown = set(class_ids) if options.get("all_classes") else set(labelled.values())
    own = tuple(class_id for class_id in class_ids if class_id in shown)
    number = {class_id: at for at, class_id in enumerate(own)}
    labels = np.array([number[labelled[name]] for name in names], dtype=np.int64)
    return TestSet(path, class_ids=own, labels=labels, source=source)


def _labels_of(
    path: Path, options: Mapping[str, Any], class_ids: tuple[str, ...], names: Sequence[str]
) -> dict[str, str]:
    """Return image -> class id, as the list beside them says: by its name, or its name without suffix.

    Raises:
        InputError: an image is not in the list, or a class is none of the suite's.
    """
    file, stated, known = path / options["labels"], dict[str, str](), set(class_ids)
    for line in lines_of(file):
        words = line.replace(",", " ").split()
        if len(words) < 2 or words[:2] == ["ImageId", "PredictionString"]:
            continue
        label = class_ids[_number(words[1], len(class_ids), file)] if options.get("numbered") else words[1]
        if label not in known:
            raise InputError(f"{file}: {_strange([label], class_ids)}")
        stated[words[0]] = label
    labelled = {}
    for name in names:
        label = next((stated[key] for key in (name, str(PurePosixPath(name).with_suffix(""))) if key in stated), "")
        if not label:
            raise InputError(f"{file}: says nothing of {name!r}; give the list of this set")
        labelled[name] = label
    if len(stated) > len(labelled):
        note_once(f"{path}: {len(stated) - len(labelled):,} of {len(stated):,} images of {file.name} are missing")
    return labelled


def _counted(class_ids: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for class_id in class_ids:
        counts[class_id] = counts.get(class_id, 0) + 1
    return counts


def _class_findings(
    path: Path, meaning: Mapping[str, tuple[str, ...]], options: Mapping[str, Any], class_ids: tuple[str, ...]
) -> Iterator[Finding]:
    """Yield whether the classes are all of the suite's where they have to be, and those of the published set."""
    shown = {class_id for ids in meaning.values() for class_id in ids}
    lacking = [class_id for class_id in class_ids if class_id not in shown]
    if options.get("role") == "reference" and lacking:
        yield fault(
            f"{path}: has no folder of {len(lacking):,} of {len(class_ids):,} classes ({listed(lacking)}), and the "
            "reference needs all; unpack the rest"
        )
    if not lacking and list(class_ids) != sorted(class_ids):
        yield note(
            f"{path}: the suite's classes are not in the order of their names, so other readers that number sorted "
            "folders give other labels; here the name of the folder decides"
        )
    numbers = sorted(at for at, class_id in enumerate(class_ids) if class_id in shown)
    digest = sha256_bytes(",".join(map(str, numbers)).encode())[:16]
    if digest != options.get("classes_sha256", digest):
        yield warning(
            f"{path}: its {len(numbers):,} classes are not those of the published set; unpack the rest, or fetch it "
            "again"
        )
