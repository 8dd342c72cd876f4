"""The members of a tar that another program wrote, one after the other: names of any length, regular files alone.

In: an open tar. Out: `Member`s. Long names are read from PAX and GNU headers of bounded size; what would rename every
member, give one another size, or make a file of holes is refused. A broken header, which Python's own reader takes for
the end, is damage.
"""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from synclones.base.errors import InputError, VerificationError
from synclones.shards.tar import BLOCK, padded

MAX_MEMBER_BYTES = 2**28
_MAX_HEADER_BYTES = 2**16  # of a PAX header or a long name
# First bytes -> what packed a tar, and what unpacks it.
_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip < {0} > plain.tar"),
    b"BZh": ("bzip2", "bunzip2 < {0} > plain.tar"),
    b"\xfd7zXZ": ("xz", "unxz < {0} > plain.tar"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd < {0} > plain.tar"),
    b"PK\x03\x04": ("zip", "unzip {0}"),
}


class Member(NamedTuple):
    """One regular file of a tar."""

    start: int
    """Where its first header begins, that of a long name included: reading may start there."""
    at: int
    """Where its own header begins; its content follows `BLOCK` bytes later."""
    name: str
    data: bytes
    """Its content, empty when it was not asked for."""


def read_members(path: Path, start: int, wanted: tuple[str, ...]) -> Iterator[Member]:
    """Read the regular files of a tar from an offset on; only contents of names that end in ``wanted`` are read.

    Raises:
        InputError: a member that is neither file nor folder, or a name that is not read.
        VerificationError: damage.
    """
    with open(path, "rb", buffering=1 << 20) as file:
        _refuse_packed(path, file.read(BLOCK))
        file.seek(start)
        first, long_name = start, ""
        while (info := _header(path, file)) is not None:
            at = file.tell() - BLOCK
            # Headers that name the next member are no members, but reading it again must begin with them.
            if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
                long_name = _long_name(path, file, info) or long_name
                continue
            name = long_name or info.name
            if info.isreg():
                yield Member(first, at, name, _content(path, file, info, name, wanted))
            elif not info.isdir():
                raise InputError(f"{path}: member {name!r} is no regular file; repack the tar with files only")
            elif info.size:
                raise VerificationError(f"{path}: folder {name!r} has a content; fetch or write the tar again")
            first, long_name = file.tell(), ""
        if long_name:
            raise VerificationError(f"{path}: ends before member {long_name!r}; fetch or write the tar again")


def read_content(path: Path, offset: int) -> bytes:
    """Read the content of the file whose own header begins at ``offset``.

    Raises:
        VerificationError: the tar was cut or changed.
    """
    with path.open("rb") as file:
        file.seek(offset)
        info = _header(path, file)
        if info is None or not info.isreg():
            raise VerificationError(f"{path}: no image at byte {offset}; fetch or write the tar again")
        return _data(path, file, info, info.name)


def _content(path: Path, file: BinaryIO, info: tarfile.TarInfo, name: str, wanted: tuple[str, ...]) -> bytes:
    if name.rpartition(".")[2].lower() in wanted:
        return _data(path, file, info, name)
    _check_size(path, info, name)
    if info.size:
        file.seek(padded(info.size) - 1, io.SEEK_CUR)
        if not file.read(1):
            raise VerificationError(f"{path}: ends inside member {name!r}; fetch or write the tar again")
    return b""


def _refuse_packed(path: Path, data: bytes) -> None:
    is_plain = data[257:262] == b"ustar"  # the first bytes of a tar are the name of its first member: any
    for magic, (program, command) in _PACKED.items():
        if data.startswith(magic) and not is_plain:
            raise InputError(f"{path}: compressed by {program}, expected a plain tar; run: {command.format(path)}")


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


def _data(path: Path, file: BinaryIO, info: tarfile.TarInfo, name: str) -> bytes:
    _check_size(path, info, name)
    data = file.read(padded(info.size))
    if len(data) != padded(info.size):
        raise VerificationError(f"{path}: ends inside member {name!r}; fetch or write the tar again")
    return data[: info.size]


def _check_size(path: Path, info: tarfile.TarInfo, name: str, most: int = MAX_MEMBER_BYTES) -> None:
    if not 0 <= info.size <= most:
        raise InputError(f"{path}: member {name!r} of {info.size} bytes, expected 0..{most}; repack the tar")


def _long_name(path: Path, file: BinaryIO, info: tarfile.TarInfo) -> str:
    """Return the name that a PAX or GNU header gives to the next member; empty when it gives none."""
    _check_size(path, info, "header of a long name", _MAX_HEADER_BYTES)
    data = _data(path, file, info, info.name)
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    name = ""
    for keyword, value in _pax_records(path, data):
        if keyword == b"path" and info.type == tarfile.XHDTYPE:
            name = value.decode("utf-8", "surrogateescape")
        elif keyword in (b"path", b"size") or keyword.startswith(b"GNU.sparse"):
            # A global path would rename all members; sizes are needed above 8 GiB only, where no image is.
            word = keyword.decode("ascii")
            raise InputError(f"{path}: a PAX header with {word}; repack the tar with `tar --format=ustar`")
    return name


def _pax_records(path: Path, data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (keyword, value) of the records ``LENGTH KEYWORD=VALUE`` of a PAX header, the length that of all of it."""
    while data:
        digits, _, _ = data[:8].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        keyword, equals, value = data[len(digits) + 1 : length].partition(b"=")
        if not (len(digits) < length <= len(data) and equals and value.endswith(b"\n")):
            raise VerificationError(f"{path}: a PAX header that is damaged; fetch or write the tar again")
        yield keyword, value[:-1]
        data = data[length:]
