"""Divides the shards of a store among machines, and uploads the finished ones whole.

In: a store, a plan, a work folder. Out: the objects of each shard, ``train-00000.json`` last. A lease per shard
(`shards.stores.lease`) keeps machines apart, the locks of the work folder keep its processes apart.
"""

import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path

from synclones.base.errors import MachineError
from synclones.base.files import sha256_file, write_atomic
from synclones.base.resume import CONFIG
from synclones.generate.plan import Plan
from synclones.generate.target import Hold
from synclones.shards.index import read_summary
from synclones.shards.lock import claim, remove_locks
from synclones.shards.schema import ShardFiles
from synclones.shards.stores.lease import LEASES, Lease, acquire, read_holder
from synclones.shards.stores.store import TRIES, Missing, ObjectStore

LISTED_FOR_S = 10.0  # how long a listing spares a worker the question whether a shard is still missing
ACQUIRING_S = 10.0  # how long a stop waits for leases that are just being acquired
SUFFIXES = (".tar", ".parquet", ".json")  # the order in which a shard goes up


class Publisher:
    """The shards of a set in a store, as the workers of one process hold and publish them."""

    def __init__(self, store: ObjectStore, plan: Plan, folder: Path, steal_lease: bool):
        self._store, self._plan, self._folder, self._steal_lease = store, plan, folder, steal_lease
        self._listing, self._listed_at = dict[str, int](), -LISTED_FOR_S
        self._leases, self._lock = list[Lease](), threading.Lock()
        self._acquiring, self._settled = 0, threading.Condition(self._lock)
        self._stopping = False

    @cached_property
    def _owner(self) -> str:
        """Random digits that name the work folder in its leases: the holder of its lock may take over its leases."""
        path = self._folder / ".owner"
        claimed = claim(self._folder, "owner", wait=True)
        assert claimed is not None, "a claim that waits is always granted"
        with claimed:
            if not path.exists():
                write_atomic(path, secrets.token_hex(8).encode())
            return path.read_text()

    @contextmanager
    def hold(self, shard: str) -> Iterator[Hold | None]:
        """Hold the shard's lock in the work folder and its lease in the store; None when either is another's."""
        claimed = None if is_whole(self._recent_listing(), shard) else claim(self._folder, f"{shard}.store")
        if claimed is None:
            yield None
            return
        with claimed:
            lease = self._acquire(shard)
            if lease is None:
                yield None
                return
            with lease, self._forgotten_after(lease):
                files = ShardFiles(self._folder, shard)
                if self._is_whole_by_now(shard):
                    _remove_local(files)
                    yield None
                else:
                    yield Hold(lost=lease.lost, publish=partial(self._publish, files, lease))

    def _acquire(self, shard: str) -> Lease | None:
        """Acquire a lease and remember it; a stop that comes meanwhile waits, or nobody would give it back."""
        with self._lock:
            if self._stopping:
                return None
            self._acquiring += 1
        lease = None
        try:
            lease = acquire(self._store, shard, self._owner, steal=self._steal_lease)
            return lease
        finally:
            with self._lock:
                self._acquiring -= 1
                self._leases += [] if lease is None else [lease]
                self._settled.notify_all()

    @contextmanager
    def _forgotten_after(self, lease: Lease) -> Iterator[None]:
        try:
            yield
        finally:
            with self._lock:
                self._leases.remove(lease)

    def release_leases(self) -> None:
        """Give all leases back, of a process that is about to stop with its workers still drawing."""
        with self._lock:
            self._stopping = True
            self._settled.wait_for(lambda: not self._acquiring, timeout=ACQUIRING_S)
            leases = list(self._leases)
        for lease in leases:
            with suppress(MachineError):  # then it goes stale by itself
                lease.release()

    def _recent_listing(self) -> dict[str, int]:
        with self._lock:
            if time.monotonic() - self._listed_at > LISTED_FOR_S:
                self._listing, self._listed_at = self._store.listing(), time.monotonic()
            return self._listing

    def _is_whole_by_now(self, shard: str) -> bool:
        objects = self._store.listing(f"{shard}.")
        if not is_whole(objects, shard) and f"{shard}.json" in objects:
            self._store.remove(f"{shard}.json")  # it describes objects that somebody removed
        return is_whole(objects, shard)

    def _publish(self, files: ShardFiles, lease: Lease) -> bool:
        """Upload a finished shard, json last, and remove the local copy; return False when the lease was lost.

        Raises:
            MachineError: when the disk gives back other bytes than were written, or others write the same objects.
        """
        summary = read_summary(files.json)
        for path in (files.tar, files.parquet, files.json):
            # What is uploaded must be what was written: a disk may have lost bytes since.
            digest = sha256_file(path)
            if path is not files.json and digest != summary[path.suffix[1:]]["sha256"]:
                _remove_local(files)
                raise MachineError(f"{path}: the disk gave back other bytes than were written; run the command again")
            if not self._upload(path, digest, lease):
                return False
        _remove_local(files)
        return True

    def _upload(self, path: Path, digest: str, lease: Lease) -> bool:
        """Create one object while the lease is ours; return False when it was lost."""
        for _ in range(TRIES):
            if not lease.renew():
                return False
            if self._store.create_file(path.name, path, digest):
                return True
            # Left by a holder that is gone, and other bytes than ours: only on a GPU.
            if not lease.renew():
                return False
            self._store.remove(path.name)
        raise MachineError(f"{self._store.url}/{path.name}: others write it too; run the same command again to resume")

    def lease_holder(self, shards: Sequence[int]) -> str:
        """Return in words who holds one of these shards."""
        names = {self._plan.shard_name(shard) for shard in shards}
        for lease in sorted(self._store.listing(LEASES)):
            shard = lease.removeprefix(LEASES).removesuffix(".json")
            if shard in names:
                try:
                    holder = read_holder(self._store, shard)
                except Missing:
                    continue  # given back since
                return f"{shard} is held by {holder}; if it is dead, run with --steal-lease"
        return "no process holds them"

    def clear(self) -> None:
        """Remove all leases of a finished set, and from the work folder its shards and what resumed it.

        Logs and the folder stay, since another process may be just ending there.
        """
        for lease in self._store.listing(LEASES):
            self._store.remove(lease)
        for shard in {path.name.lstrip(".").partition(".")[0] for path in self._folder.glob(f"*{self._plan.split}-*")}:
            claimed = claim(self._folder, f"{shard}.store")
            if claimed is not None:
                with claimed:
                    _remove_local(ShardFiles(self._folder, shard))
        (self._folder / CONFIG).unlink(missing_ok=True)
        remove_locks(self._folder)


def is_whole(listing: dict[str, int], shard: str) -> bool:
    """Return whether all objects of a shard are in a listing of the store."""
    return all(f"{shard}{suffix}" in listing for suffix in SUFFIXES)


def _remove_local(files: ShardFiles) -> None:
    for path in (files.json, files.tar, files.parquet, files.journal, files.part, *files.temporaries()):
        path.unlink(missing_ok=True)
