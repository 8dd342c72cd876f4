"""Reads tars that another program wrote, strictly and in order: no sidecars, so no random access and no promises.

In: a tar of samples ``KEY.EXTENSION`` (jpg, jpeg, png or webp; cls, json, txt), named as webdataset names them: the key
ends at the first dot of the base name, and a leading ``./`` is none of it. Out: samples in stored order. One parser
makes prompt tables, reads captions, draws and indexes. What is no such member is passed over and counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from synclones.base.errors import InputError
from synclones.shards.schema import KEY_PATTERN, MAX_INDEX, Sample
from synclones.shards.sources.decode import IMAGE_SUFFIXES
from synclones.shards.sources.files import PassedOver
from synclones.shards.sources.members import read_content, read_members

IMAGES = tuple(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
_TEXTS = ("cls", "json", "txt")
_MACOS = "__MACOSX"


@dataclass
class TarSample:
    """One sample: its key, where it begins, and its members by extension."""

    key: str
    offset: int
    """Of its first header in the tar: reading may start there."""
    image_offset: int = -1
    """Of its image's header; -1 when it has none."""
    members: dict[str, bytes] = field(default_factory=dict)
    """What was asked for; the content of other members is empty."""

    @property
    def image(self) -> bytes:
        return next((data for extension, data in self.members.items() if extension in IMAGES), b"")

    @property
    def label(self) -> int | None:
        text = self.members.get("cls", b"").strip()
        return int(text) if text else None


def read_samples(
    path: Path, start: int = 0, wanted: tuple[str, ...] = IMAGES + _TEXTS, passed: PassedOver | None = None
) -> Iterator[TarSample]:
    """Read the samples of a tar from an offset on. One is yielded only when the next one, or the end, is sound.

    Only the contents of members with ``wanted`` extensions are read; a sample may have texts and no image.

    Raises:
        InputError: content that this project does not read, naming the member.
        VerificationError: damage.
    """
    sample: TarSample | None = None
    seen: set[str] = set()
    for first, at, name, data in read_members(path, start, wanted):
        key, extension = _key_and_extension(path, name, passed or PassedOver())
        if not extension:
            continue
        if sample is None or key != sample.key:
            if sample is not None:
                yield sample
            if key in seen:
                raise InputError(f"{path}: sample {key} appears twice; repack the tar with members side by side")
            seen.add(key)
            sample = TarSample(key, first)
        _add_member(path, sample, extension, at, data)
    if sample is not None:
        yield sample


def _add_member(path: Path, sample: TarSample, extension: str, at: int, data: bytes) -> None:
    if extension in sample.members:
        raise InputError(
            f"{path}: member '{sample.key}.{extension}' appears twice; repack the tar with each member once"
        )
    if extension in IMAGES:
        if sample.image_offset >= 0:
            raise InputError(f"{path}: sample {sample.key} has two images; repack the tar with one image a sample")
        sample.image_offset = at
    text = data.removeprefix(b"\xef\xbb\xbf") if extension in _TEXTS else data  # a byte order mark is no text
    if extension == "cls" and text.strip() and not (text.strip().isdigit() and len(text) < 12):
        raise InputError(f"{path}: sample {sample.key} has a cls that is no number; repack the tar")
    sample.members[extension] = text


def read_texts(path: Path, start: int = 0, passed: PassedOver | None = None) -> Iterator[TarSample]:
    """Read the texts of a tar's samples from an offset on; images are passed over unread, and may be missing.

    Raises:
        InputError, VerificationError: as `read_samples`.
    """
    return read_samples(path, start, _TEXTS, passed)


def with_images(samples: Iterator[TarSample], passed: PassedOver) -> Iterator[TarSample]:
    """Return the samples that have an image; others are counted."""
    for sample in samples:
        if sample.image_offset >= 0:
            yield sample
        else:
            passed.add("a sample without an image", sample.key)


def image_offsets(path: Path, passed: PassedOver | None = None) -> Iterator[tuple[str, int]]:
    """List (key, where its header begins) of every image in a tar; nothing is read but headers.

    Raises:
        InputError, VerificationError: as `read_samples`; the contents of its members are not looked at.
    """
    passed = passed or PassedOver()
    for sample in with_images(read_samples(path, 0, (), passed), passed):
        yield sample.key, sample.image_offset


def read_foreign(path: Path) -> Iterator[Sample]:
    """Read the samples of a tar whose keys are numbers and whose members are all read: no other is passed over.

    Raises:
        InputError, VerificationError: as `read_samples`.
    """
    passed = PassedOver()
    for sample in with_images(read_samples(path, passed=passed), passed):
        _refuse_all(path, passed)
        if not KEY_PATTERN.fullmatch(sample.key) or int(sample.key) >= MAX_INDEX:
            raise InputError(f"{path}: sample {sample.key!r}, expected digits; repack the tar with numeric keys")
        texts = {name: sample.members.get(name, b"") for name in _TEXTS}
        yield Sample(
            index=int(sample.key),
            jpg=sample.image,
            json=texts["json"],
            txt=texts["txt"].decode("utf-8", "replace"),
            label=sample.label,
        )
    _refuse_all(path, passed)


def _refuse_all(path: Path, passed: PassedOver) -> None:
    if text := passed.text(path):
        raise InputError(f"{text}; repack the tar with {', '.join(IMAGES + _TEXTS)} alone")


def read_image(path: Path, offset: int) -> bytes:
    """Read the encoded image whose header begins at ``offset``.

    Raises:
        VerificationError: the tar was cut or changed.
    """
    return read_content(path, offset)


def _key_and_extension(path: Path, name: str, passed: PassedOver) -> tuple[str, str]:
    """Split a member's name; the extension is empty for one that is passed over.

    Raises:
        InputError: a name that could lead out of a folder or break a line.
    """
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    parts = name.split("/")
    if not name.isprintable() or ".." in parts or name.startswith("/"):
        raise InputError(f"{path}: member {name!r} has no plain name; repack the tar with names such as 000000042.jpg")
    stem, _, extension = parts[-1].partition(".")
    if _MACOS in parts or any(part.startswith(".") for part in parts):
        passed.add("hidden", name)
    elif extension.lower() not in IMAGES + _TEXTS:
        passed.add(f"no member named KEY.{'|'.join(IMAGES + _TEXTS)}", name)
    else:
        return "/".join([*parts[:-1], stem]), extension.lower()
    return "", ""
