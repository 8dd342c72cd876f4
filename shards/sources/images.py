"""The images to be captioned: shards of this project or of another, or a folder of image files.

In: a folder or a tar. Out: `SourceImage`s with the key that tells which real image a caption came from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from synclones.base.errors import InputError
from synclones.shards.sources.decode import IMAGE_SUFFIXES
from synclones.shards.sources.tars import keyed_samples, listing_sha256, read_texts


@dataclass(frozen=True)
class SourceImage:
    """One encoded image."""

    source_key: str
    data: bytes
    class_text: str
    """Its class as stored: a number, a folder's name, or empty."""


def find_images(path: Path) -> tuple[str, list[Path], bool]:
    """Find where the images of ``path`` are, in a fixed order: (source hash, files, whether they are tars).

    Raises:
        InputError: there are none.
    """
    tars = sorted(p for p in path.glob("*.tar") if p.is_file()) if path.is_dir() else []
    if path.suffix == ".tar" and path.is_file():
        tars = [path]
    inside = path.rglob("*") if path.is_dir() and not tars else ()
    files = sorted(p for p in inside if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not tars and not files:
        raise InputError(
            f"--images: no tars and no {', '.join(IMAGE_SUFFIXES)} in {path}; give a folder of images or shards"
        )
    return (listing_sha256(tars) if tars else listing_sha256(files, path))[:12], tars or files, bool(tars)


def tar_key(source: str, tar: Path, key: str) -> str:
    """Return the ``source_key`` of an image in a tar."""
    return f"{source}/{tar.stem}/{key}"


def file_key(source: str, root: Path, file: Path) -> str:
    """Return the ``source_key`` of an image file below ``root``."""
    return f"{source}/{file.relative_to(root)}"


def read_images(path: Path) -> Iterator[SourceImage]:
    """Read all images in a fixed order.

    Raises:
        InputError: there are none.
        VerificationError: a damaged tar.
    """
    source, files, tars = find_images(path)
    return _from_tars(source, files) if tars else _from_files(source, path, files)


def list_images(path: Path) -> Iterator[tuple[str, str]]:
    """List (source key, class as stored) of all images in the order of `read_images`, unread.

    Raises:
        InputError, VerificationError: as there.
    """
    source, files, tars = find_images(path)
    for file in files:
        if tars:
            for sample in read_texts(file):
                yield tar_key(source, file, sample.key), "" if sample.label is None else str(sample.label)
        else:
            yield file_key(source, path, file), _folder_name(path, file)


def _from_tars(source: str, tars: list[Path]) -> Iterator[SourceImage]:
    for tar in tars:
        for key, sample in keyed_samples(tar):
            text = "" if sample.label is None else str(sample.label)
            yield SourceImage(tar_key(source, tar, key), sample.jpg, text)


def _from_files(source: str, root: Path, files: list[Path]) -> Iterator[SourceImage]:
    for file in files:
        yield SourceImage(file_key(source, root, file), file.read_bytes(), _folder_name(root, file))


def _folder_name(root: Path, file: Path) -> str:
    """The first folder below ``root``, or nothing."""
    parts = file.relative_to(root).parts
    return parts[0] if len(parts) > 1 else ""
