"""Lists what counts in a folder that somebody made: one walk for captions, real images, test sets and their tars.

In: a folder, or one tar. Out: files in a fixed order, the names that tables keep of them, and what was passed over.
Links are followed, loops cut; hidden files, `__MACOSX` and what is neither image nor tar are passed over, counted.
"""

import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from synclones.base import machine
from synclones.base.errors import one_line
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.shards.kept import OWN
from synclones.shards.sources.decode import IMAGE_SUFFIXES

_NOT_OURS = "__MACOSX"  # what macOS adds to archives: files named as the real ones
_LIKE_DATA = {".tar", ".tgz", *IMAGE_SUFFIXES}
_TURNING = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
_BREAKING = {"Cc", "Cs", "Zl", "Zp"}


class PassedOver:
    """What a reader passes over, by kind: how many, and the first of each."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, name: str, count: int = 1) -> None:
        """Count one more or several, such as ("hidden", "._0.jpg")."""
        before, first = self._kinds.get(kind, (0, name))
        self._kinds[kind] = (before + count, first)

    def counts(self) -> list[tuple[str, str, int]]:
        """List (kind, the first, how many), as `add` takes them."""
        return [(kind, first, count) for kind, (count, first) in self._kinds.items()]

    def text(self, path: Path) -> str:
        """Return what was passed over in ``path``, as one line; empty for nothing."""
        kinds = [f"{count:,} {kind} (the first: {name})" for kind, (count, name) in self._kinds.items()]
        return one_line(f"{path}: passed over {', '.join(kinds)}") if kinds else ""

    def tell(self, path: Path) -> None:
        """Print the same to standard error, once of several processes."""
        if self._kinds and machine.rank() == 0:
            print(f"synclones: note: {self.text(path)}", file=sys.stderr, flush=True)


def list_files(path: Path, passed: PassedOver) -> tuple[list[Path], bool]:
    """List the tars right inside a folder, else the images below it, sorted by their paths, and whether they are tars.

    ``path`` may be one tar. Nothing is listed for what is neither a folder nor a tar.
    """
    if path.is_file():
        return ([path] if path.suffix == ".tar" else []), True
    files = list(walk_files(path, passed)) if path.is_dir() else []
    tars = [file for file in files if file.suffix == ".tar" and file.parent == path]
    if not tars:
        return _images(path, files, passed), False
    for file in set(files) - set(tars):  # the other files of a folder of shards are sidecars, but not these
        if _LIKE_DATA & {suffix.lower() for suffix in file.suffixes}:
            passed.add("beside or below the tars", name_below(path, file))
    return sorted(tars), True


def image_files(path: Path, passed: PassedOver) -> list[Path]:
    """List the images below a folder, sorted by their paths."""
    return _images(path, walk_files(path, passed), passed)


def _images(path: Path, files: Iterable[Path], passed: PassedOver) -> list[Path]:
    images = []
    for file in files:
        if file.suffix.lower() in IMAGE_SUFFIXES:
            images.append(file)
        else:
            passed.add("no image by its name", name_below(path, file))
    return sorted(images)


def sorted_names(names: Iterable[str]) -> list[str]:
    """Sort names of files as their paths sort: folder by folder, at a fraction of the cost of a million paths."""
    return sorted(names, key=lambda name: name.replace("/", "\0"))


def walk_files(folder: Path, passed: PassedOver) -> Iterator[Path]:
    """Yield the regular files below a folder that are not hidden, in no order."""
    return (folder / name for name in walk_names(folder, passed))


def walk_names(folder: Path, passed: PassedOver) -> Iterator[str]:
    """Yield the same as names below the folder: of a million files these are light."""
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    while waiting:
        inside, above = waiting.pop()
        status = (folder / inside).stat()
        own = (status.st_dev, status.st_ino)
        if own in above:
            passed.add("a link that leads back", plain_text(inside))
            continue
        for entry in os.scandir(folder / inside):
            name = f"{inside}/{entry.name}" if inside else entry.name
            if entry.name == OWN:
                continue
            if entry.name.startswith(".") or entry.name == _NOT_OURS:
                passed.add("hidden", plain_text(name))
                continue
            # Only a path says "no" of a link that ends nowhere.
            target = folder / name if entry.is_symlink() else entry
            if target.is_dir():
                waiting.append((name, above | {own}))
            elif target.is_file():
                yield name
            else:
                passed.add("no file, or a link to none", plain_text(name))


def name_below(root: Path, file: Path) -> str:
    """Return the name of ``file`` below ``root`` as a text that tables can hold (`plain_text`)."""
    return plain_text(str(file.relative_to(root)))


def plain_text(name: str) -> str:
    """Return a name with escapes for bytes that are not UTF-8 and characters that break or turn lines."""
    return "".join(c if c.isprintable() or not _unfit(c) else ascii(c)[1:-1] for c in name)


def _unfit(character: str) -> bool:
    return unicodedata.category(character) in _BREAKING or unicodedata.bidirectional(character) in _TURNING


def file_key(source: str, root: Path, file: Path) -> str:
    """Return the ``source_key`` of an image file below ``root``."""
    return f"{source}/{name_below(root, file)}"


def tar_key(source: str, tar: Path, key: str) -> str:
    """Return the ``source_key`` of an image in a tar."""
    return f"{source}/{plain_text(tar.stem)}/{key}"


def listing_sha256(files: Sequence[Path], root: Path | None = None) -> str:
    """Return what a set of foreign files is known by: SHA-256 of their names (below ``root``) and sizes."""
    names = [[name_below(root or file.parent, file), file.stat().st_size] for file in files]
    return sha256_bytes(canonical_json(names))
