"""The pictures to be captioned: shards of this project or of another, or a folder of image files.

In: a folder or a tar. Out: `SourceImage`s with the key that tells which real picture a caption came from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from synclones.errors import InputError
from synclones.shards.foreign import keyed_samples, listing_sha256

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class SourceImage:
    """One encoded picture."""

    source_key: str
    data: bytes
    class_text: str
    """Its class as stored: a number, a folder's name, or empty."""


def read_images(path: Path) -> Iterator[SourceImage]:
    """All pictures in a fixed order.

    Errors: InputError when there are none; VerificationError for a damaged tar.
    """
    tars = sorted(path.glob("*.tar")) if path.is_dir() else [path] if path.suffix == ".tar" else []
    files = [] if tars or not path.is_dir() else sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not tars and not files:
        raise InputError(
            f"--images: no tars and no {', '.join(SUFFIXES)} in {path}; give a folder of pictures or shards"
        )
    if tars:
        return _from_tars(listing_sha256(tars)[:12], tars)
    return _from_files(listing_sha256(files, path)[:12], path, files)


def _from_tars(source: str, tars: list[Path]) -> Iterator[SourceImage]:
    for tar in tars:
        for key, sample in keyed_samples(tar):
            yield SourceImage(
                f"{source}/{tar.stem}/{key}", sample.jpg, "" if sample.label is None else str(sample.label)
            )


def _from_files(source: str, root: Path, files: list[Path]) -> Iterator[SourceImage]:
    for file in files:
        place = file.relative_to(root)
        yield SourceImage(f"{source}/{place}", file.read_bytes(), place.parts[0] if len(place.parts) > 1 else "")
