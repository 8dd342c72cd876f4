"""Files of a remote set on this disk while they are used: a bounded cache that all processes of a machine share.

In: `RemoteFiles`. Out: ``with cache.file(file) as path``: the whole file, checked, and not evicted meanwhile. A file
appears in ``FOLDER/<hash of the URL>/files/`` whole and under a name that states its content, so a kill leaves nothing
half and a set that changed leaves nothing wrong. Evicted is what nobody has used for longest.
"""

import errno
import os
import queue
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from synclones.base.errors import InputError, MachineError, VerificationError
from synclones.base.files import link_or_copy, lock, sha256_bytes, sha256_file, sync
from synclones.shards.kept import user_cache
from synclones.shards.lock import claim
from synclones.shards.sources.hub_files import HubFiles
from synclones.shards.sources.remote import RemoteFile, RemoteFiles, StoreFiles
from synclones.shards.stores.store import open_store, store_url

GB = 10**9
CACHE_GB = 50.0
PREFETCH_THREADS = 4
_FETCH, _RESERVED = ".fetch-", "reserved"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
_WAIT_S, _TOUCH_S, _TRIES = 120.0, 10.0, 20


def open_remote(location: Path | str, cache: Path | None = None) -> RemoteFiles:
    """Return the files at ``s3://...``, ``gs://...`` or ``hf://...``; of the hub, the commit is asked for now.

    ``cache``: folder of the caches of all sets; `cache_folder` by default.

    Raises:
        InputError: no such kind of place, a missing extra, or what the place refuses.
    """
    url = store_url(location) or str(location)
    return HubFiles(url, cache or cache_folder()) if url.startswith("hf://") else StoreFiles(open_store(url))


def cache_folder() -> Path:
    """Return where caches are by default: ``$XDG_CACHE_HOME/synclones/shards``, or below ``~/.cache``."""
    return user_cache() / "shards"


class FileCache:
    """The cache of one remote set. Safe to use from several threads, and by several processes at once.

    Attributes:
        remote: where the files come from.
        folder: where they are on this disk.
        max_bytes: how much of them is kept at once.
    """

    def __init__(self, remote: RemoteFiles, folder: Path | None = None, cache_gb: float = CACHE_GB):
        """Nothing is read or written yet.

        Args:
            folder: for the caches of all sets; `cache_folder` by default.
            cache_gb: how much of this set is kept at once, in 10^9 bytes.
        """
        self.remote, self.max_bytes = remote, round(cache_gb * GB)
        self.folder = (folder or cache_folder()) / sha256_bytes(remote.url.encode())[:16]
        self._files = self.folder / "files"
        self._checked: dict[str, int] = {}
        self._touched: dict[str, float] = {}
        self._asked: queue.SimpleQueue[RemoteFile] = queue.SimpleQueue()
        self._awaited: set[str] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._listing: dict[str, RemoteFile] | None = None

    def listed(self, name: str) -> RemoteFile:
        """Return a file by its name; all are listed the first time.

        Raises:
            VerificationError: there is none.
        """
        with self._lock:
            if self._listing is None:
                self._listing = self.remote.listing()
        if name not in self._listing:
            raise VerificationError(f"{self.remote.url}/{name}: missing; give a whole set")
        return self._listing[name]

    @contextmanager
    def file(self, file: RemoteFile | str) -> Iterator[Path]:
        """Enter a context in which a file is on this disk, whole and checked; it is fetched if it is not there.

        Raises:
            InputError: the cache is smaller than the file.
            VerificationError: it is gone or changed, or differs from its hash.
            MachineError, OSError: the network or the disk failed; the same command goes on.
        """
        wanted = self.listed(file) if isinstance(file, str) else file
        path = self._files / wanted.key
        descriptor = self._held(wanted, path)
        try:
            yield path
        finally:
            os.close(descriptor)

    def read_range(self, file: RemoteFile, offset: int, nbytes: int) -> bytes:
        """Read at most ``nbytes`` of a file from ``offset`` on.

        Raises:
            InputError, VerificationError, MachineError, OSError: as `file`.
        """
        # An open file can be read whatever becomes of its name, so one that was checked before needs no lock.
        with suppress(FileNotFoundError):
            path = f"{self._files}/{file.key}"
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                status = os.fstat(descriptor)
                if self._checked.get(file.key) == status.st_ino and status.st_size == file.size:
                    self._used_now(file.key)
                    return os.pread(descriptor, nbytes, offset)
            finally:
                os.close(descriptor)
        with self.file(file) as whole, whole.open("rb", buffering=0) as data:
            return os.pread(data.fileno(), nbytes, offset)

    def drop(self, file: RemoteFile) -> None:
        """Remove a file that turned out to be damaged on this disk, so that it is fetched again."""
        self._checked.pop(file.key, None)
        (self._files / file.key).unlink(missing_ok=True)

    def prefetch(self, files: Iterable[RemoteFile]) -> None:
        """Fetch files in the background, in this order, as far as there is room; failures show when a file is used.

        A file that was asked for is not evicted for another one that was.
        """
        with self._lock:
            for file in files:
                if file.key not in self._awaited and not (self._files / file.key).exists():
                    self._awaited.add(file.key)
                    self._asked.put(file)
            for _ in range(min(PREFETCH_THREADS - len(self._threads), self._asked.qsize())):
                # A daemon: what is half fetched must not keep a stopped process alive.
                thread = threading.Thread(target=self._fetch_ahead, name="prefetch", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _fetch_ahead(self) -> None:
        while True:
            file = self._asked.get()
            try:
                self._bring(file, self._files / file.key, wait=False)
            except Exception:  # noqa: BLE001 - whoever uses the file meets the same failure, and says it
                self._awaited.discard(file.key)

    # ------------------------------------------------------------------ held while used

    def _held(self, file: RemoteFile, path: Path) -> int:
        """Return an open descriptor with a shared lock, which keeps the file from being evicted."""
        for _ in range(_TRIES):  # between its arrival and our lock another process may evict it
            descriptor = self._opened(path)
            if descriptor is not None:
                if self._is_sound(file, path, descriptor):
                    self._used_now(file.key)
                    return descriptor
                os.close(descriptor)
                self.drop(file)
            self._bring(file, path, wait=True)
        raise MachineError(f"{self.folder}: too small for all who read from it; give the cache more room")

    def _opened(self, path: Path) -> int | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            lock(descriptor, path, wait=True, shared=True)
            own, named = os.fstat(descriptor), os.stat(path)
            if (own.st_dev, own.st_ino) == (named.st_dev, named.st_ino):
                return descriptor
        except FileNotFoundError:
            pass  # evicted between our open and our lock
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _is_sound(self, file: RemoteFile, path: Path, descriptor: int) -> bool:
        """Check a file's size at each use, and its hash when this process uses it first."""
        status = os.fstat(descriptor)
        if status.st_size != file.size:
            return False
        if self._checked.get(file.key) != status.st_ino:
            if file.sha256 and sha256_file(path) != file.sha256:
                return False
            self._checked[file.key] = status.st_ino
        return True

    def _used_now(self, key: str) -> None:
        self._awaited.discard(key)
        now = time.monotonic()
        if now - self._touched.get(key, -_TOUCH_S) >= _TOUCH_S:
            self._touched[key] = now
            with suppress(OSError):  # a disk that is read only can be read
                os.utime(self._files / key)

    # ------------------------------------------------------------------ fetched

    def _bring(self, file: RemoteFile, path: Path, wait: bool) -> None:
        """Fetch a file unless another process has; ``wait`` for room that others use, else leave it."""
        if file.size > self.max_bytes:
            raise InputError(
                f"{self.remote.url}/{file.name}: has {file.size} bytes, the cache may hold {self.max_bytes}; "
                "give it more room (--cache-gb of `synclones train`)"
            )
        with self.on_disk():
            self._files.mkdir(parents=True, exist_ok=True)
            held = claim(self._files, path.name, wait=True)
            assert held is not None, "a claim that waits is always granted"
            with held:
                while not path.exists():
                    with self._room(file.size, wait) as temporary:
                        self._download(file, path, temporary)
                held.path.unlink(missing_ok=True)

    @contextmanager
    def on_disk(self) -> Iterator[None]:
        """Enter a context in which this disk's failures are one line; what is on it already can be read on.

        Raises:
            MachineError: the disk is full or cannot be written.
        """
        try:
            yield
        except OSError as error:
            if error.errno not in (*_FULL, *_NOT_WRITABLE):
                raise
            reason = os.strerror(error.errno or 0)
            raise MachineError(
                f"{self.folder}: {reason}; free the disk or choose another one with XDG_CACHE_HOME, and run the same "
                "command again"
            ) from None

    def _download(self, file: RemoteFile, path: Path, temporary: Path) -> None:
        try:
            data = self.remote.fetch(file, temporary)
            if data.stat().st_size != file.size or (file.sha256 and sha256_file(data) != file.sha256):
                raise self.remote.changed(file, "other bytes than are stated arrived")
            sync(data)
            self._checked[file.key] = data.stat().st_ino  # of the link too, which another process may evict at once
            link_or_copy(data, path)
            sync(self._files)
        except OSError as error:
            # A disk that others fill: what it holds of ours makes room, as long as there is something nobody uses.
            if error.errno not in _FULL or not self._evict_one(spare=set()):
                raise

    @contextmanager
    def _room(self, nbytes: int, wait: bool) -> Iterator[Path]:
        """Enter a context with an empty folder, for which ``nbytes`` of the cache are set aside.

        Raises:
            MachineError: everything there is in use.
        """
        deadline = time.monotonic() + (_WAIT_S if wait else 0)
        while True:
            reserved = self._reserve(nbytes, spare=set() if wait else self._awaited)
            if reserved is not None:
                break
            if time.monotonic() >= deadline:
                raise MachineError(f"{self.folder}: all it may hold is in use; give the cache more room")
            time.sleep(0.05)
        descriptor, folder = reserved
        try:
            (folder / "file").mkdir()
            yield folder / "file"
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)

    def _reserve(self, nbytes: int, spare: set[str]) -> tuple[int, Path] | None:
        """Set bytes aside as a sparse file, locked while its writer lives; None when there is no room for them."""
        held = claim(self._files, "room", wait=True)
        assert held is not None, "a claim that waits is always granted"
        with held:
            while self._used() + nbytes > self.max_bytes:
                if not self._evict_one(spare):
                    return None
            folder = self._files / f"{_FETCH}{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}"
            folder.mkdir()
            descriptor = os.open(folder / _RESERVED, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.truncate(descriptor, nbytes)
            lock(descriptor, folder / _RESERVED, wait=True)
        return descriptor, folder

    def _used(self) -> int:
        """Count the bytes of files, and of those that are being fetched; what killed processes began is removed."""
        total = 0
        for entry in list(os.scandir(self._files)):
            if entry.name.startswith(_FETCH):
                total += _reserved_bytes(Path(entry.path))
            elif not entry.name.startswith("."):
                with suppress(FileNotFoundError):
                    total += entry.stat().st_size
        return total

    def _evict_one(self, spare: set[str]) -> bool:
        """Remove the file that nobody uses and that was used longest ago; False when there is none."""
        paths = [Path(entry.path) for entry in os.scandir(self._files) if not entry.name.startswith(".")]
        for path in sorted(paths, key=_last_use):
            if path.name in spare:
                continue
            with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                lock(file.fileno(), path)
                path.unlink()
                return True
        return False


def _last_use(path: Path) -> tuple[float, str]:
    try:
        return path.stat().st_mtime, path.name
    except FileNotFoundError:
        return 0.0, path.name


def _reserved_bytes(folder: Path) -> int:
    """Return what a download has set aside; 0, and nothing of it left, when its process is dead."""
    path = folder / _RESERVED
    try:
        with path.open("rb") as file:
            try:
                is_dead = lock(file.fileno(), path)  # without locks nobody can tell
            except BlockingIOError:
                is_dead = False
            if not is_dead:
                return path.stat().st_size
    except FileNotFoundError:
        pass  # killed before it was made, or just done
    shutil.rmtree(folder, ignore_errors=True)
    return 0
