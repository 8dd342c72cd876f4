"""Who works on what: an advisory lock per shard that the kernel drops when its holder dies, whatever the reason.

In: a folder and a name. Out: ``.{name}.lock`` in the folder while anybody works there; `remove_locks` at the end.
The lock belongs to one open file, so it also keeps two threads of one process apart. A child made by ``fork`` inherits
it: fork workers before claiming.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self


class Claim:
    """A held lock; release it by leaving the ``with`` block or by `release`."""

    def __init__(self, path: Path, descriptor: int):
        self.path = path
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let go. The lock file stays: removing it here could remove the file that a waiting process just locked."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def claim(folder: Path, name: str, *, wait: bool = False) -> Claim | None:
    """Take the lock on ``name`` in ``folder``, or None while another process or thread holds it (``wait`` waits)."""
    path = Path(folder) / f".{name}.lock"
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(path, descriptor):
                return Claim(path, descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        # Somebody removed the file between our open and our lock: what we hold protects nothing. Start over.
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)


def remove_locks(folder: Path) -> None:
    """Remove the lock files that nobody holds. Only a holder may remove: see `claim` for the other half of the race."""
    for path in sorted(Path(folder).glob(".*.lock")):
        remove_lock(path)


def remove_lock(path: Path) -> None:
    """Remove one lock file, unless somebody holds it."""
    held = claim(path.parent, path.name.removeprefix(".").removesuffix(".lock"))
    if held is not None:
        with held:
            path.unlink(missing_ok=True)
