"""Who works on what: an advisory lock per shard that the kernel drops when its holder dies, whatever the reason.

In: a folder and a name. Out: ``.{name}.lock`` in the folder while anybody works there; `remove_locks` at the end.
The lock belongs to one open file, so it also keeps two threads of one process apart. A child made by ``fork`` inherits
it: fork workers before claiming. On a file system without locks one process works alone: its threads keep apart by a
set of names, and a job of several processes is refused.
"""

import contextlib
import os
import re
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from synclones.base import machine
from synclones.base.errors import InputError
from synclones.base.files import lock
from synclones.base.json_file import read_regular
from synclones.base.status import Holder

_GUARD = threading.Lock()
_HELD_WITHOUT_LOCKS: set[Path] = set()
_SIGNATURE = re.compile(r"(\S+) process ([0-9]{1,9})")


class Claim:
    """A held lock; release it by leaving the ``with`` block or by `release`."""

    def __init__(self, path: Path, descriptor: int):
        self.path = path
        self._descriptor: int | None = descriptor

    @property
    def descriptor(self) -> int:
        """The open file that holds the lock: a child that inherits it holds it too, until both have ended."""
        assert self._descriptor is not None, "a released claim has none"
        return self._descriptor

    def release(self) -> None:
        """Let go. The lock file stays: removing it here could remove the file that a waiting process just locked."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None
            with _GUARD:
                _HELD_WITHOUT_LOCKS.discard(self.path)

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
            if not lock(descriptor, path, wait=wait) and not _hold_without_lock(path, wait):
                os.close(descriptor)
                return None
            if _is_still(path, descriptor):
                _sign(descriptor)
                return Claim(path, descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        # Somebody removed the file between our open and our lock: what we hold protects nothing. Start over.
        Claim(path, descriptor).release()


def holders(folder: Path) -> list[Holder]:
    """Return who holds locks in a folder, without touching one: whoever wants it must find it free, if it is.

    Of this machine the kernel is asked; what a process of another machine wrote may have outlived it.
    """
    kernel, ours, now = _kernel_locks(), socket.gethostname(), time.time()
    held = []
    for path in sorted(Path(folder).glob(".*.lock")):
        name = path.name.removeprefix(".").removesuffix(".lock")
        try:
            facts = path.stat()
            signed = _SIGNATURE.fullmatch(read_regular(path, 300).decode("utf-8", "replace"))
        except (OSError, ValueError):
            continue  # gone by now, or no lock of ours
        host, pid = (signed[1], int(signed[2])) if signed else (ours, (kernel or {}).get(facts.st_ino, 0))
        alive: bool | None = None
        if host == ours:
            alive = machine.is_running(pid) if kernel is None else facts.st_ino in kernel
        if alive is not False:
            held.append(Holder(name, host, pid, max(0.0, now - facts.st_mtime), alive))
    return held


def _kernel_locks() -> dict[int, int] | None:
    """Return inode -> process of every lock by `flock` on this machine; None where the kernel does not say."""
    try:
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    fields = [line.split() for line in lines if " FLOCK " in line and "->" not in line]
    return {int(row[5].rpartition(":")[2]): int(row[4]) for row in fields}


def _sign(descriptor: int) -> None:
    """Write who holds the lock into its file, for people; its time is since when."""
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{socket.gethostname()} process {os.getpid()}".encode(), 0)


def _hold_without_lock(path: Path, wait: bool) -> bool:
    """Keep threads of this process apart; there is nothing that keeps processes apart.

    Raises:
        InputError: when this is one of several processes.
    """
    if machine.world_size() > 1:
        raise InputError(f"{path.parent}: this file system has no locks to keep processes apart; start one process")
    while True:
        with _GUARD:
            if path not in _HELD_WITHOUT_LOCKS:
                _HELD_WITHOUT_LOCKS.add(path)
                return True
        if not wait:
            return False
        time.sleep(0.05)


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
