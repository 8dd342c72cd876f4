"""Writes files that are whole or absent, and hashes them: the primitives that every room stores its data with.

In: a path and bytes. Out: the file, synced, under its final name.
"""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` holds either what it held or all of ``data``, whatever happens.

    Hidden temporary name in the same folder, fsync, rename, fsync of the folder. The temporary file is locked while its
    writer lives (see `remove_dead_temporaries`). Errors: OSError from the disk.
    """
    path = Path(path)
    file = _open_temporary(path)
    try:
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
    except BaseException as error:
        Path(file.name).unlink(missing_ok=True)
        if isinstance(error, OSError):  # a failed write does not know its file; the user must
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_temporary(path: Path) -> BinaryIO:
    while True:
        name = path.with_name(f".{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
        file = name.open("xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if name.exists():  # else somebody took it for a dead one between our open and our lock
            return file
        file.close()


def remove_dead_temporaries(folder: Path) -> None:
    """Remove the temporary files of atomic writes in ``folder`` whose writers were killed; living ones keep theirs."""
    for path in Path(folder).glob(".*.tmp-*"):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except (BlockingIOError, FileNotFoundError):
            continue  # being written, or already in its place


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 over the hashes of ``files``, in their order, and their names below ``folder``."""
    lines = [f"{sha256_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    return sha256_bytes("".join(lines).encode())
