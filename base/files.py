"""Writes files and folders that are whole or absent, and hashes them: what every room stores its data with.

In: a path and bytes. Out: the file or folder, synced, under its final name. A rename is on disk only after its folder
is synced; a write only after its file is.
"""

import contextlib
import errno
import fcntl
import filecmp
import hashlib
import io
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from synclones.base.errors import InputError, error_number

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
NO_FOLDER_SYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)
_LEFTOVER = re.compile(r"\..+\.(tmp|removed|tmp-\d+(-[0-9a-f]{8})?)")
_CHUNK = 1 << 20
_WARNED: set[str] = set()


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` holds either what it held or all of ``data``, whatever happens.

    Raises:
        OSError: from the disk, naming ``path``.
    """
    with replaced_file(path) as file:
        file.write(data)


def write_unsynced(path: Path, data: bytes) -> None:
    """Write as `write_atomic` does, but wait for no disk: a kill leaves all or nothing, a power loss perhaps a part.

    For many small files whose end tells whether they are whole; `sync_disks` brings all of them to the disk.

    Raises:
        OSError: from the disk, naming ``path``.
    """
    with replaced_file(path, synced=False) as file:
        file.write(data)


def sync_disks() -> None:
    """Bring everything that any process has written to the disks."""
    os.sync()


@contextlib.contextmanager
def replaced_file(path: Path, *, synced: bool = True) -> Iterator[BinaryIO]:
    """Open a hidden temporary file that takes the place of ``path`` when the block ends well, and goes when it fails.

    A file that holds the same bytes already is left as it is, so that a command run again touches nothing. The
    temporary file is locked while its writer lives (see `remove_dead_temporaries`). It is on the disk before it takes
    that place, unless ``synced`` is false.

    Raises:
        OSError: from the disk, naming ``path``.
    """
    path = Path(path)
    file = _open_temporary(path)
    try:
        with file:
            yield file
            file.flush()
            if synced:
                os.fsync(file.fileno())
            if _holds_the_same(path, file.name):
                Path(file.name).unlink()
                return
            os.replace(file.name, path)
    except BaseException as error:
        Path(file.name).unlink(missing_ok=True)
        if (number := error_number(error)) is not None:  # a failed write does not know its file; the user must
            raise OSError(number, os.strerror(number), str(path)) from None
        raise
    if synced:
        sync(path.parent)


def _holds_the_same(path: Path, temporary: str) -> bool:
    """Whether ``path`` is a regular file with the bytes of the other one."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        return filecmp.cmp(path, temporary, shallow=False)
    except OSError:  # absent, or unreadable: to be replaced
        return False


@contextlib.contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Make an empty hidden folder that takes the place of ``path``, files synced, when the block ends well.

    One writer at a time. What a killed writer left under the hidden name is removed by the next.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    _remove(temporary)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        number = error_number(error)
        if number is not None and getattr(error, "filename", None) is None:  # a failed write does not know its file
            raise OSError(number, os.strerror(number), str(path)) from None
        raise
    for inner in (*temporary.rglob("*"), temporary):
        sync(inner)
    before = _set_aside(path) if os.path.lexists(path) else None  # no folder is renamed onto one that is not empty
    os.replace(temporary, path)
    sync(path.parent)
    if before is not None:
        _remove(before)


def rename(source: Path, target: Path) -> None:
    """Give ``source``, whose bytes are synced, the name ``target`` in its file system, on disk when this returns."""
    os.replace(source, target)
    sync(target.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder, or a link to one: under its own name it is whole or absent at any moment."""
    _remove(_set_aside(Path(path)))


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f".{path.name}.removed")
    _remove(aside)
    os.replace(path, aside)
    return aside


def _remove(path: Path) -> None:
    """Remove a file, a folder with all that is in it, or a link, which is not followed; or nothing."""
    while path.is_dir() and not path.is_symlink():
        with contextlib.suppress(FileNotFoundError):  # another process removes it too: what is left is tried again
            shutil.rmtree(path)
    path.unlink(missing_ok=True)


def refuse_other_kinds(folder: Path, files: Iterable[str], folders: Iterable[str] = ()) -> None:
    """Refuse a folder in which something of another kind lies where a command will write, before it has done its work.

    Args:
        files: names of what it writes as files; a link to a file is one.
        folders: names of what it keeps as folders; a link to a folder is one.

    Raises:
        InputError: naming the first.
    """
    wrong = [(path, "a folder", "a file is") for path in (folder / name for name in files) if path.is_dir()]
    kept = (folder / name for name in folders)
    wrong += [(path, "no folder", "one is") for path in kept if os.path.lexists(path) and not path.is_dir()]
    for path, what, expected in wrong:
        raise InputError(f"{path}: {what}, where {expected} written; move it away, or choose another folder")


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left under hidden names in a folder in which nobody but the caller writes now."""
    for path in Path(folder).glob(".*"):
        if _LEFTOVER.fullmatch(path.name):
            _remove(path)


def link_or_copy(source: Path, target: Path) -> None:
    """Give ``target`` the content of ``source``: by a hard link where the file system can, else by a copy.

    Of several processes that do the same at once, each finds ``target`` whole afterwards. The caller syncs the folder.
    """
    temporary = _temporary_name(target)
    try:
        os.link(source, temporary)
        os.replace(temporary, target)
    except FileNotFoundError:
        if not target.exists():  # else another process linked it, and swept the temporary names
            raise
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with source.open("rb") as old, replaced_file(target) as new:
            shutil.copyfileobj(old, new, _CHUNK)
    finally:
        temporary.unlink(missing_ok=True)  # it stays where both names were one file already


def append_durably(file: io.FileIO, end: int, data: bytes) -> int:
    """Make ``file`` end after ``data`` at byte ``end``, on disk when this returns; return the new end.

    Whatever lay behind ``end`` (half a batch of a full disk) is cut off first, so a failed call can be repeated.

    Raises:
        OSError: from the disk, naming the file.
    """
    try:
        file.truncate(end)
        file.seek(end)
        rest = memoryview(data)
        while rest:  # an unbuffered write may take only a part
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file.name)) from None
    return end + len(data)


def append_line(path: Path, line: bytes) -> None:
    """Append a line to a log, on disk when this returns."""
    with Path(path).open("ab", buffering=0) as file:
        append_durably(file, os.fstat(file.fileno()).st_size, line + b"\n")


def sync(path: Path) -> None:
    """Bring a file's bytes, or a folder's names, to the disk; a file system that does not sync folders is told of once.

    Raises:
        OSError: from the disk, naming ``path``.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (error.errno in NO_FOLDER_SYNC and Path(path).is_dir()):
            raise OSError(error.errno, error.strerror, str(path)) from None
        warn_once(f"{path}: this file system does not sync folders; after a power loss a new name may be missing")
    finally:
        os.close(descriptor)


def lock(descriptor: int, path: Path, *, wait: bool = False, shared: bool = False) -> bool:
    """Take the advisory lock of an open file until it is closed; return False where the file system has no locks.

    A ``shared`` one goes with other shared ones. Without locks the caller goes on unprotected, which is told of once:
    the user must not run two commands at once.

    Raises:
        BlockingIOError: when another holds it and ``wait`` is not set.
        OSError: from the disk, naming ``path``.
    """
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise OSError(error.errno, error.strerror, str(path)) from None
        warn_once(f"{path.parent}: this file system has no locks; let only one command at a time write there")
        return False
    return True


def warn_once(text: str) -> None:
    """Print a line to standard error, the first time that this process has it to say."""
    if text not in _WARNED:
        _WARNED.add(text)
        print(f"synclones: warning: {text}", file=sys.stderr, flush=True)


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")


def _open_temporary(path: Path) -> BinaryIO:
    while True:
        name = _temporary_name(path)
        file = name.open("xb")
        lock(file.fileno(), name, wait=True)
        if name.exists():  # else somebody took it for a dead one between our open and our lock
            return file
        file.close()


def remove_dead_temporaries(folder: Path) -> None:
    """Remove the temporary files of atomic writes in ``folder`` whose writers were killed; living ones keep theirs."""
    for path in Path(folder).glob(".*.tmp-*"):
        try:
            with path.open("rb") as file:
                if lock(file.fileno(), path):  # without locks nobody can tell whether its writer lives
                    path.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError):
            continue  # being written, or already in its place


def sha256_bytes(data: bytes) -> str:
    """Return the hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(folder: Path, files: Iterable[Path]) -> str:
    """Return the SHA-256 over the hashes of ``files``, in their order, and their names below ``folder``."""
    lines = [f"{sha256_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    return sha256_bytes("".join(lines).encode())
