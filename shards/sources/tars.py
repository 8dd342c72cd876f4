"""Reads tars that another program wrote, strictly and in order: no sidecars, so no random access and no promises.

In: a tar of samples ``DIGITS.EXTENSION`` (jpg, jpeg, png or webp; cls, json, txt). Out: `Sample` per key. Python's own
reader takes a broken header for the end of the archive; here anything but a proper end is damage.
"""

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.shards.schema import KEY_PATTERN, MAX_INDEX, Sample
from synclones.shards.sources.decode import IMAGE_SUFFIXES
from synclones.shards.tar import BLOCK, padded

IMAGES = tuple(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
_TEXTS = ("cls", "json", "txt")
MAX_MEMBER_BYTES = 2**28
_MAX_PAX_BYTES = 2**16
_RENAMING = (b"path=", b"size=", b"linkpath=", b"GNU.sparse")


def read_foreign(path: Path) -> Iterator[Sample]:
    """Read the samples of a foreign tar in stored order. One is yielded only when the next one, or the end, is sound.

    Raises:
        InputError: content that this project does not read, naming the member.
        VerificationError: damage.
    """
    for _, sample in keyed_samples(path):
        yield sample


def keyed_samples(path: Path) -> Iterator[tuple[str, Sample]]:
    """Read the same, with each sample's key as it is written in the tar."""
    key, members = "", dict[str, bytes]()
    seen: set[str] = set()
    for _, name, data in _members(path):
        own_key, _, extension = name.partition(".")
        if not KEY_PATTERN.fullmatch(own_key) or int(own_key) >= MAX_INDEX or extension not in IMAGES + _TEXTS:
            raise InputError(
                f"{path}: member {name!r}, expected DIGITS.{'|'.join(IMAGES + _TEXTS)}; "
                "repack the tar with numeric keys and these members"
            )
        if own_key != key:
            if members:
                yield key, _sample(path, key, members)
            if own_key in seen:
                raise InputError(f"{path}: sample {own_key} appears twice; repack the tar with members side by side")
            seen.add(own_key)
            key, members = own_key, {}
        if extension in members:
            raise InputError(f"{path}: member {name!r} appears twice; repack the tar with each member once")
        members[extension] = data
    if members:
        yield key, _sample(path, key, members)


def listing_sha256(files: Sequence[Path], root: Path | None = None) -> str:
    """Return what a set of foreign files is known by: SHA-256 of their names (below ``root``) and sizes."""
    return sha256_bytes(canonical_json([[str(f.relative_to(root or f.parent)), f.stat().st_size] for f in files]))


@dataclass(frozen=True)
class SampleText:
    """What a foreign sample says in words."""

    key: str
    offset: int
    """Of its first header in the tar: reading may start there."""
    txt: str
    json: bytes
    label: int | None


def read_texts(path: Path, start: int = 0) -> Iterator[SampleText]:
    """Read the texts of a foreign tar's samples from an offset on; images are passed over unread.

    Raises:
        InputError, VerificationError: as `read_foreign`; a sample without an image, or with two, is no error here.
    """
    key, offset, members = "", 0, dict[str, bytes]()
    for at, name, data in _members(path, start, skipped=IMAGES):
        own_key, _, extension = _checked(path, name)
        if own_key != key and members:
            yield _text(path, key, offset, members)
        if own_key != key:
            key, offset, members = own_key, at, {}
        members[extension] = data
    if members:
        yield _text(path, key, offset, members)


def image_offsets(path: Path) -> Iterator[tuple[str, int]]:
    """List (key, where its header begins) of every image in a foreign tar; nothing is read but headers.

    Raises:
        InputError, VerificationError: as `read_foreign`; what else a sample holds is not looked at.
    """
    for at, name, _ in _members(path, skipped=IMAGES + _TEXTS):
        key, _, extension = _checked(path, name)
        if extension in IMAGES:
            yield key, at


def read_image(path: Path, offset: int) -> bytes:
    """Read the encoded image whose header begins at ``offset``.

    Raises:
        VerificationError: the tar was cut or changed.
    """
    with path.open("rb") as file:
        file.seek(offset)
        info = _header(path, file)
        if info is None or not info.isreg():
            raise VerificationError(f"{path}: no image at byte {offset}; fetch or write the tar again")
        return _data(path, file, info)


def _checked(path: Path, name: str) -> tuple[str, str, str]:
    """Return (key, ".", extension) of a member.

    Raises:
        InputError: a key that could lead out of a folder or break a line.
    """
    parts = name.partition(".")
    if not name.isprintable() or ".." in name.split("/") or name.startswith("/"):
        raise InputError(f"{path}: member {name!r} has no plain name; repack the tar with names such as 000000042.jpg")
    return parts


def _text(path: Path, key: str, offset: int, members: dict[str, bytes]) -> SampleText:
    label = members.get("cls", b"").strip()
    if label and not (label.isdigit() and len(label) < 12):
        raise InputError(f"{path}: sample {key} has a cls that is no number; repack the tar")
    txt = members.get("txt", b"").decode("utf-8", "replace")
    return SampleText(key, offset, txt, members.get("json", b""), int(label) if label else None)


def _sample(path: Path, key: str, members: dict[str, bytes]) -> Sample:
    images = [members[extension] for extension in IMAGES if extension in members]
    label = members.get("cls")
    if len(images) != 1 or (label is not None and not (label.strip().isdigit() and len(label) < 12)):
        raise InputError(f"{path}: sample {key} needs one image and, if any, a number as cls; repack the tar")
    return Sample(
        index=int(key),
        jpg=images[0],
        json=members.get("json", b""),
        txt=members.get("txt", b"").decode("utf-8", "replace"),
        label=None if label is None else int(label),
    )


def _members(path: Path, start: int = 0, skipped: tuple[str, ...] = ()) -> Iterator[tuple[int, str, bytes]]:
    """(offset of the header, name, content) of each file; of extensions in ``skipped`` the content is empty."""
    with open(path, "rb", buffering=1 << 20) as file:
        file.seek(start)
        while True:
            at = file.tell()
            info = _header(path, file)
            if info is None:
                return
            if info.isreg() and info.name.rpartition(".")[2] in skipped:
                _pass_over(path, file, info)
                yield at, info.name, b""
                continue
            data = _data(path, file, info)
            if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
                _check_pax(path, data)
            elif info.isreg():
                yield at, info.name, data
            elif not info.isdir():
                raise InputError(f"{path}: member {info.name!r} is no regular file; repack the tar with files only")


def _pass_over(path: Path, file: BinaryIO, info: tarfile.TarInfo) -> None:
    _check_size(path, info)
    if info.size == 0:
        return
    file.seek(padded(info.size) - 1, io.SEEK_CUR)
    if not file.read(1):
        raise VerificationError(f"{path}: ends inside member {info.name!r}; fetch or write the tar again")


def _header(path: Path, file: BinaryIO) -> tarfile.TarInfo | None:
    block = file.read(BLOCK)
    if block == bytes(BLOCK):
        _check_end(path, file)
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.type == tarfile.GNUTYPE_SPARSE:  # it counts as regular, but its bytes are not those of a file
            raise tarfile.HeaderError("a sparse file")
        return info
    except tarfile.HeaderError as error:
        at = file.tell() - len(block)
        raise VerificationError(f"{path}: damaged at byte {at} ({error}); fetch or write the tar again") from None


def _check_end(path: Path, file: BinaryIO) -> None:
    """After the first zero block only zeros may follow, and at least one more block of them."""
    at = file.tell()
    rest = file.read(BLOCK)
    sound = len(rest) == BLOCK
    while rest and sound:
        sound = not rest.strip(b"\0")
        rest = file.read(io.DEFAULT_BUFFER_SIZE)
    if not sound:
        raise VerificationError(f"{path}: data after the end at byte {at}, or no end; fetch or write the tar again")


def _data(path: Path, file: BinaryIO, info: tarfile.TarInfo) -> bytes:
    _check_size(path, info)
    data = file.read(padded(info.size))
    if len(data) != padded(info.size):
        raise VerificationError(f"{path}: ends inside member {info.name!r}; fetch or write the tar again")
    return data[: info.size]


def _check_size(path: Path, info: tarfile.TarInfo) -> None:
    if not 0 <= info.size <= MAX_MEMBER_BYTES:
        raise InputError(f"{path}: member {info.name!r} of {info.size} bytes, expected 0..2^28; repack the tar")


def _check_pax(path: Path, data: bytes) -> None:
    # Times and owners are welcome; a record that renames or resizes the next member would need all of PAX.
    if len(data) > _MAX_PAX_BYTES or any(word in data for word in _RENAMING):
        raise InputError(f"{path}: long names in PAX headers; repack the tar with `tar --format=ustar`")
