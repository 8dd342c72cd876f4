"""Who works on which shard of an object store: a lease object per shard, made and taken over by conditional writes.

In: a store, a shard's name. Out: ``.leases/train-00000.json`` with host, pid and heartbeat for as long as somebody
draws that shard. A lease can be lost (its holder was paused for long, or somebody stole it): holders look at
`Lease.lost`, and shards are published by creation only, so that even a holder who does not know it yet overwrites
nothing.
"""

import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

from synclones.base.errors import MachineError
from synclones.base.json_file import canonical_json, parse_json
from synclones.base.units import format_duration
from synclones.shards.stores.store import Missing, ObjectStore

LEASES = ".leases/"
BEAT_S = 60.0
# Ten missed beats: no pause of a network or a store is as long, and clocks that differ by minutes do no harm.
STALE_S = 10 * BEAT_S


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, as it says of itself."""

    owner: str
    """Names the work folder: whoever has that folder's own lock knows that an earlier holder with it is dead."""
    host: str
    pid: int
    heartbeat: float
    """Seconds since 1970, by the holder's clock."""

    @property
    def is_stale(self) -> bool:
        return time.time() - self.heartbeat > STALE_S

    def __str__(self) -> str:
        age = format_duration(max(0.0, time.time() - self.heartbeat))
        return f"host {self.host}, pid {self.pid}, last seen {age} ago"


class Lease:
    """A held lease that a thread renews; leave the ``with`` block to give it back.

    Attributes:
        shard: the shard's name.
        lost: set when somebody else has taken the lease over.
    """

    def __init__(self, store: ObjectStore, shard: str, owner: str, version: str):
        self.shard, self.lost = shard, threading.Event()
        self._store, self._owner, self._version = store, owner, version
        self._ended, self._turn = threading.Event(), threading.Lock()
        self._beat = threading.Thread(target=self._renew_again_and_again, name=f"lease {shard}", daemon=True)
        self._beat.start()

    def renew(self) -> bool:
        """Write a new heartbeat; return whether the lease is still ours.

        Raises:
            MachineError: the store is silent.
        """
        with self._turn:
            if not self.lost.is_set():
                version = self._store.replace(lease_name(self.shard), _record(self._owner), self._version)
                if version is None:
                    self.lost.set()
                else:
                    self._version = version
            return not self.lost.is_set()

    def _renew_again_and_again(self) -> None:
        while not self._ended.wait(BEAT_S) and not self.lost.is_set():
            try:
                self.renew()
            except MachineError:
                continue  # nine more beats before anybody may take it over; publishing renews first, and says so

    def release(self) -> None:
        """Remove the lease object if it is still ours."""
        self._ended.set()
        if self.renew():  # just renewed, nobody takes it over before it is removed
            self._store.remove(lease_name(self.shard))
            self.lost.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        if not isinstance(error, MachineError):  # a store that does not answer would hide what went wrong
            self.release()


def acquire(store: ObjectStore, shard: str, owner: str, *, steal: bool = False) -> Lease | None:
    """Take the lease on a shard, or return None while somebody else holds it.

    A lease of the same ``owner``, whose lock the caller has, and a stale one are taken over; ``steal`` takes any.
    """
    name, record = lease_name(shard), _record(owner)
    version = store.create(name, record)
    if version is None:
        try:
            seen = store.version(name)
            holder = read_holder(store, shard)
        except Missing:
            return None  # given back a moment ago: its shard is complete, or next time it is free
        if steal or holder is None or holder.owner == owner or holder.is_stale:
            version = store.replace(name, record, seen)
    return None if version is None else Lease(store, shard, owner, version)


def lease_name(shard: str) -> str:
    """Name the object that says who draws a shard."""
    return f"{LEASES}{shard}.json"


def read_holder(store: ObjectStore, shard: str) -> Holder | None:
    """Read who holds a shard; None when the object is not one of ours.

    Raises:
        Missing: nobody does.
    """
    try:
        holder = Holder(**parse_json(store.read(lease_name(shard))))
    except (ValueError, TypeError):
        return None
    sound = type(holder.heartbeat) in (int, float) and abs(holder.heartbeat) < 2**53
    return holder if sound and isinstance(holder.owner, str) else None


def _record(owner: str) -> bytes:
    return canonical_json(asdict(Holder(owner, socket.gethostname(), os.getpid(), time.time())))
