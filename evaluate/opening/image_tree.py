"""Looks at trees of image files by their names, and at some of their headers, before any image is indexed or decoded.

In: a folder. Out: `Tree`, and `Finding`s about counts, sizes and damage. The names are those that `open_source` would
take, in its order.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from synclones.base.errors import one_line
from synclones.evaluate.layout import Finding
from synclones.shards.sources.decode import IMAGE_SUFFIXES, image_fault
from synclones.shards.sources.files import PassedOver, plain_text, sorted_names, walk_names

SAMPLE = 32
"""How many files of a tree are looked into: always the same ones, evenly spread."""
_MAX_BYTES = 2**28
_NAMED = 3


@dataclass(frozen=True)
class Tree:
    """The image files below a folder."""

    root: Path
    names: list[str]
    """Below the root, sorted as paths sort."""
    passed: PassedOver = field(default_factory=PassedOver)
    """What is no image by its name."""

    @property
    def by_folder(self) -> dict[str, list[str]]:
        """The names by the first folder on the way; of loose images it is empty."""
        folders: dict[str, list[str]] = {}
        for name in self.names:
            top, slash, _ = name.partition("/")
            folders.setdefault(plain_text(top) if slash else "", []).append(name)
        return folders

    @property
    def counts(self) -> dict[str, int]:
        """How many images each first folder holds."""
        return {folder: len(names) for folder, names in self.by_folder.items()}


def read_tree(root: Path) -> Tree:
    """List the images below a folder; where there is none, none."""
    passed = PassedOver()
    names = sorted_names(walk_names(root, passed)) if root.is_dir() else []
    images = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    for name in names:
        if not name.lower().endswith(IMAGE_SUFFIXES):
            passed.add("no image by its name", plain_text(name))
    return Tree(root, images, passed)


def fault(text: str) -> Finding:
    """Return a finding because of which a set cannot be evaluated."""
    return Finding(kind="fault", text=one_line(text))


def warning(text: str) -> Finding:
    """Return a finding because of which numbers would differ."""
    return Finding(kind="warning", text=one_line(text))


def note(text: str) -> Finding:
    """Return a finding that changes nothing."""
    return Finding(kind="note", text=one_line(text))


def listed(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many more there are."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def total_finding(where: object, total: int, images: int | None, classes: str = "") -> Finding:
    """Return how many images there are of how many; ``classes`` says of what, such as " of 9 classes"."""
    text = f"{where}: {total:,} images{classes}"
    if not total:
        return fault(f"{where}: holds no image that can be evaluated; fetch it and unpack it there")
    if images is None or images == total:
        return note(text)
    what = "unpack the rest" if total < images else "is it another release, or are other files among them?"
    return warning(f"{text}, expected {images:,}; {what}")


def count_findings(
    where: object,
    counts: Mapping[str, int],
    options: Mapping[str, Any],
    lacking: Callable[[str], Finding] = warning,
) -> Iterator[Finding]:
    """Yield what the counts of class folders say: how many images of how many, and which classes are short.

    Args:
        where: the folder, in messages.
        counts: class folder -> images.
        options: ``images`` is how many are expected, ``num_classes`` of how many classes, where that is known.
        lacking: what another number of classes is: a `fault` where answers are sought among those that are there.
    """
    images = options.get("images")
    classes = options.get("num_classes", len(counts))
    yield total_finding(where, sum(counts.values()), images, f" of {len(counts):,} classes")
    if len(counts) != classes:
        yield lacking(f"{where}: {len(counts):,} class folders, expected {classes:,}; unpack the rest")
    yield from _short_classes(where, counts, None if images is None else images // max(classes, 1), images, classes)


def _short_classes(
    where: object, counts: Mapping[str, int], each: int | None, images: int | None, classes: int
) -> Iterator[Finding]:
    """Yield which class folders are short of a set with equally many images of each class."""
    if not counts or each is None or images is None or each * classes != images:
        return
    ((usual, _),) = Counter(counts.values()).most_common(1)
    short = [f"{name} ({count})" for name, count in sorted(counts.items()) if count < each]
    if usual == each and short:
        yield warning(f"{where}: {len(short):,} of {len(counts):,} classes hold fewer than {each}: {listed(short)}")


def file_findings(
    root: Path, names: Sequence[str], size_px: int | None = None, passed: PassedOver | None = None
) -> Iterator[Finding]:
    """Yield what some files say of all: truncated or damaged ones, another size; and which files are no images.

    Args:
        root: what names are below.
        names: of the images.
        size_px: the side that all images of the set have.
        passed: what is no image by its name.
    """
    if passed is not None and passed.counts():
        yield note(passed.text(root))
    looked = sorted({len(names) * number // SAMPLE for number in range(SAMPLE)}) if names else []
    bad, other = [], Counter[str]()
    for position in looked:
        state, size = _state(root / names[position])
        if state:
            bad.append(f"{names[position]}: {state}")
        elif size_px is not None and size != (size_px, size_px):
            other[f"{size[0]}x{size[1]} px"] += 1
    if bad:
        yield warning(f"{root}: {len(bad)} of {len(looked)} images looked at cannot be read ({bad[0]}); see --decode")
    if other:
        sizes = ", ".join(f"{count} of {size}" for size, count in other.most_common(_NAMED))
        yield warning(
            f"{root}: of {len(looked)} images looked at {sizes}, expected {size_px}x{size_px} px; resized or cropped "
            "copies give other numbers"
        )


def _state(path: Path) -> tuple[str, tuple[int, int]]:
    """Return why an image cannot be used, as far as its header and end tell, and its (width, height)."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return "too large", (0, 0)
        data = path.read_bytes()
        state = image_fault(data) if data else "empty"
        if state:
            return state, (0, 0)
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            return "", image.size
    except OSError as error:
        return str(error), (0, 0)
