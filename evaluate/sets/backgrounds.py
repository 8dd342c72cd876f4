"""Objects on backgrounds of others, ``VARIANT/val/00_dog/*`` to ``08_fish``: ImageNet-9 of the backgrounds challenge.

Xiao et al. 2020 (arXiv 2006.09994), github.com/MadryLab/backgrounds_challenge, which states no licence: 9 classes of
450 images in every variant. Answered right is what is a member of the class among all classes of the model; the gap
between mixed_same and mixed_rand says how much backgrounds count. Two names of folders hold a space.
"""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError
from synclones.evaluate.layout import Finding, Part, Role
from synclones.evaluate.opening.groupings import IN9, members_of
from synclones.evaluate.opening.image_tree import Tree, count_findings, file_findings, note, read_tree, warning
from synclones.evaluate.opening.relabel import opened, relabelled
from synclones.evaluate.opening.set_options import texts

ROLE: Role = "background"
TREE = "{original,mixed_same,mixed_rand}/val/<NN_class>/*"
OPTIONS: dict[str, type] = {
    "variants": list,  # which; by default original, mixed_same, mixed_rand and those further ones that are there
    "members": dict,  # class -> ids of the suite's classes; by default the nine of ImageNet's
    "size_px": int,
}
_NEEDED = ("original", "mixed_same", "mixed_rand")
_FURTHER = ("mixed_next", "only_fg", "no_fg", "only_bg_b", "only_bg_t")


def open_parts(path: Path, options: dict[str, Any], class_ids: tuple[str, ...]) -> list[Part]:
    """Open all variants.

    Raises:
        InputError: one is missing, or has folders that are no classes.
    """
    members = members_of(IN9, options, class_ids, path)
    parts = []
    for variant, folder in _variants(path, options).items():
        source = opened(folder)
        meaning = _meaning(source.class_ids, tuple(members), folder)
        test_set = relabelled(source, meaning, tuple(members), name=variant, members=members, decision="top1")
        parts.append(Part(name=variant, test_set=test_set, settings={"variant": variant}))
    return parts


def inspect(path: Path, options: dict[str, Any], class_ids: tuple[str, ...]) -> Iterator[Finding]:
    """Look at every variant: class folders, counts, some headers; and whether variants hold the same images."""
    classes = tuple(members_of(IN9, options, class_ids, path))
    trees: dict[str, Tree] = {}
    for variant, folder in _variants(path, options).items():
        tree = trees[variant] = read_tree(folder)
        _meaning(tuple(tree.counts), classes, folder)
        yield from count_findings(folder, tree.counts, options | {"num_classes": len(classes)})
        yield from file_findings(folder, tree.names, options.get("size_px"), tree.passed)
    pair = [trees[name] for name in ("mixed_same", "mixed_rand") if name in trees]
    if len(pair) == 2:
        same = [name.rpartition(".")[0] for name in pair[0].names] == [n.rpartition(".")[0] for n in pair[1].names]
        how = "are called alike and compared one by one" if same else "have names of their own and are not paired"
        yield note(f"{path}: images of mixed_same and mixed_rand {how}")
        if pair[0].counts != pair[1].counts:
            yield warning(f"{path}: mixed_same and mixed_rand differ in images of a class; unpack the rest")


def _variants(path: Path, options: dict[str, Any]) -> dict[str, Path]:
    """Return variant -> its folder of classes, in a fixed order.

    Raises:
        InputError: one is missing.
    """
    further = [name for name in _FURTHER if (path / name / "val").is_dir()]
    chosen = texts(options, "variants", path) or (*_NEEDED, *further)
    folders = {variant: path / variant / "val" for variant in chosen}
    missing = [f"{variant}/val" for variant, folder in folders.items() if not folder.is_dir()]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; unpack them, or choose by variants (expected {TREE})")
    return folders


def _meaning(folders: Sequence[str], classes: tuple[str, ...], where: Path) -> dict[str, str]:
    """Return folder -> class: its name behind the number, which says the class' position.

    Raises:
        InputError: a folder is none of the classes, or numbered otherwise, or a class has none.
    """
    meaning = {}
    for folder in folders:
        match = re.fullmatch(r"(\d\d)_(.+)", folder)
        name = match[2] if match else folder
        if name not in classes:
            near = get_close_matches(name, classes, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "fetch the set again"
            raise InputError(f"{where}: folder {folder!r} is none of {', '.join(classes)}; {hint}")
        if match and int(match[1]) != classes.index(name):
            raise InputError(f"{where}: folder {folder!r}: {name} is number {classes.index(name)}; fetch the set again")
        meaning[folder] = name
    lacking = [name for name in classes if name not in meaning.values()]
    if lacking:
        raise InputError(f"{where}: has no folder of {', '.join(lacking)}; unpack the rest")
    return meaning
