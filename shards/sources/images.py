"""The real images of a user: shards of this project or of another, or a folder of image files.

In: a folder or a tar. Out: `SourceImage`s with the key that tells which real image a caption came from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from synclones.base.errors import InputError
from synclones.shards.sources.decode import IMAGE_SUFFIXES
from synclones.shards.sources.files import PassedOver, file_key, list_files, listing_sha256, plain_text, tar_key
from synclones.shards.sources.tars import read_image, read_samples, read_texts, with_images


@dataclass(frozen=True)
class SourceImage:
    """One encoded image."""

    source_key: str
    data: bytes
    class_text: str
    """Its class as stored: a number, a folder's name, or empty."""


def find_images(path: Path, passed: PassedOver | None = None) -> tuple[str, list[Path], bool]:
    """Find where the images of ``path`` are, in a fixed order: (source hash, files, whether they are tars).

    What does not count is added to ``passed``.

    Raises:
        InputError: there are none.
    """
    passed = passed or PassedOver()
    files, tars = list_files(path, passed)
    if not files:
        more = f" ({passed.text(path)})" if passed.text(path) else ""
        raise InputError(
            f"--images: no tars and no {', '.join(IMAGE_SUFFIXES)} in {path}{more}; give a folder of images or shards"
        )
    return listing_sha256(files, None if tars else path)[:12], files, tars


def read_images(path: Path, passed: PassedOver | None = None) -> Iterator[SourceImage]:
    """Read all images in a fixed order.

    Raises:
        InputError: there are none.
        VerificationError: a damaged tar.
    """
    passed = passed or PassedOver()
    source, files, tars = find_images(path, passed)
    return _from_tars(source, files, passed) if tars else _from_files(source, path, files)


@dataclass(frozen=True, slots=True)
class ImageAt:
    """Where an encoded image is: a file of its own, or a member of a tar."""

    file: Path
    offset: int = -1
    """Of the member's header; -1 for a file of its own."""

    def read(self) -> bytes:
        """Read the encoded image.

        Raises:
            VerificationError: the tar was cut or changed.
        """
        return self.file.read_bytes() if self.offset < 0 else read_image(self.file, self.offset)


def list_images(path: Path, passed: PassedOver | None = None) -> Iterator[tuple[str, str]]:
    """List (source key, class as stored) of all images in the order of `read_images`, unread.

    Raises:
        InputError, VerificationError: as there.
    """
    return ((source_key, class_text) for source_key, class_text, _ in locate_images(path, passed))


def locate_images(path: Path, passed: PassedOver | None = None) -> Iterator[tuple[str, str, ImageAt]]:
    """List (source key, class as stored, where it is) of all images in the order of `read_images`, unread.

    Raises:
        InputError, VerificationError: as there.
    """
    passed = passed or PassedOver()
    source, files, tars = find_images(path, passed)
    for file in files:
        if not tars:
            yield file_key(source, path, file), _folder_name(path, file), ImageAt(file)
            continue
        for sample in with_images(read_texts(file, passed=passed), passed):
            yield tar_key(source, file, sample.key), _class_text(sample.label), ImageAt(file, sample.image_offset)


def _from_tars(source: str, tars: list[Path], passed: PassedOver) -> Iterator[SourceImage]:
    for tar in tars:
        for sample in with_images(read_samples(tar, passed=passed), passed):
            yield SourceImage(tar_key(source, tar, sample.key), sample.image, _class_text(sample.label))


def _class_text(label: int | None) -> str:
    return "" if label is None else str(label)


def _from_files(source: str, root: Path, files: list[Path]) -> Iterator[SourceImage]:
    for file in files:
        yield SourceImage(file_key(source, root, file), file.read_bytes(), _folder_name(root, file))


def _folder_name(root: Path, file: Path) -> str:
    """The first folder below ``root``, or nothing."""
    parts = file.relative_to(root).parts
    return plain_text(parts[0]) if len(parts) > 1 else ""
