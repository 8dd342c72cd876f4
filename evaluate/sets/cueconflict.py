"""Images with the shape of one class and the texture of another: ``SHAPE/SHAPE1-TEXTURE2.png``, 16 shapes of 80 each.

The cue-conflict stimuli of Geirhos et al. 2019 (arXiv 1811.12231), CC BY 4.0, github.com/rgeirhos/texture-vs-shape
(``style-transfer-preprocessed-512``): 1,280 images, 80 of which have the texture of their own shape. Names may have
the prefix that files of human answers have, as ``0001_s5n_dnn_0_airplane_00_airplane1-bicycle2.png``.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from synclones.base.errors import InputError
from synclones.evaluate.layout import Finding, Part, Role
from synclones.evaluate.opening.groupings import SHAPES, members_of
from synclones.evaluate.opening.image_tree import count_findings, file_findings, note, read_tree, warning
from synclones.evaluate.opening.relabel import names_of, opened
from synclones.evaluate.test_set import TestSet

ROLE: Role = "shape"
TREE = "<shape>/<shape><number>-<texture><number>.png"
OPTIONS: dict[str, type] = {
    "members": dict,  # shape -> ids of the suite's classes; by default the 16 of ImageNet's
    "size_px": int,
}


def open_parts(path: Path, options: dict[str, Any], class_ids: tuple[str, ...]) -> list[Part]:
    """Open the images: labels are shapes, the fact ``texture`` numbers them as well.

    Raises:
        InputError: a name does not say shape and texture.
    """
    members = members_of(SHAPES, options, class_ids, path)
    source = opened(path, labelled=False)
    cues = cues_of(names_of(source), tuple(members), path)
    test_set = TestSet(
        path,
        class_ids=tuple(members),
        labels=np.array([shape for shape, _ in cues], dtype=np.int64),
        members=members,
        decision="mean",
        facts={"texture": np.array([texture for _, texture in cues], dtype=np.int64)},
        source=source,
    )
    return [Part(test_set=test_set)]


def inspect(path: Path, options: dict[str, Any], class_ids: tuple[str, ...]) -> Iterator[Finding]:
    """Look at names, counts of shapes and of pairs, and some headers."""
    shapes = tuple(members_of(SHAPES, options, class_ids, path))
    tree = read_tree(path)
    cues = cues_of(tree.names, shapes, path)
    counts = Counter(shapes[shape] for shape, _ in cues)
    yield from count_findings(path, counts, options | {"num_classes": len(shapes)})
    alike = sum(shape == texture for shape, texture in cues)
    yield note(f"{path}: {len(cues) - alike:,} images in conflict, {alike:,} with shape and texture alike")
    pairs = Counter(Counter(cues).values())
    if len(pairs) > 1 or (cues and sum(pairs.values()) < len(shapes) ** 2):
        yield warning(f"{path}: pairs of shape and texture have different numbers of images; unpack the rest")
    yield from file_findings(path, tree.names, options.get("size_px"), tree.passed)


def cues_of(names: Sequence[str], shapes: tuple[str, ...], where: object) -> list[tuple[int, int]]:
    """Return the numbers of shape and texture that the names of images state.

    Raises:
        InputError: one does not, or lies in the folder of another shape.
    """
    one = "|".join(re.escape(shape) for shape in sorted(shapes, key=len, reverse=True))
    form, number = re.compile(rf"(?:.*_)?({one})\d*-({one})\d*"), {shape: at for at, shape in enumerate(shapes)}
    cues = []
    for name in names:
        match = form.fullmatch(PurePosixPath(name).stem)
        if match is None:
            raise InputError(
                f"{where}: {name!r} does not say shape and texture, expected a name such as {shapes[0]}1-{shapes[-1]}2."
                f"png with two of {', '.join(shapes)}"
            )
        folder = name.rpartition("/")[0].rpartition("/")[2]
        if folder in number and folder != match[1]:
            raise InputError(f"{where}: {name!r} says the shape {match[1]}, its folder {folder}; fetch the set again")
        cues.append((number[match[1]], number[match[2]]))
    return cues
