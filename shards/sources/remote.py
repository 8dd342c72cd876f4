"""The files of a set that is not on this disk, by name: what a cache brings here, from whatever kind of place.

In: a place. Out: names with sizes and what they are known by, small files at once, large ones one at a time.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from synclones.base.errors import MachineError, VerificationError
from synclones.base.files import sha256_bytes
from synclones.shards.stores.store import Missing, ObjectStore


@dataclass(frozen=True)
class RemoteFile:
    """One file, and what it is known by."""

    name: str
    """Its path below the set's."""
    size: int
    """Bytes."""
    sha256: str = ""
    """Of its content, where somebody states it; a file is used only if it has this hash."""
    version: str = ""
    """What the place says of its state (etag, generation): a file that has another one by now is not used."""

    @cached_property
    def key(self) -> str:
        """What its content is filed under: another content has another key."""
        state = f"sha256 {self.sha256}" if self.sha256 else f"version {self.version}"
        return sha256_bytes(f"{self.name}\n{self.size}\n{state}".encode())[:32] + Path(self.name).suffix


class RemoteFiles(ABC):
    """The files of one set. Safe to use from several threads.

    Attributes:
        url: as the user wrote it.
        revision: the commit that is read, of places that have commits; else empty.
    """

    url: str
    revision: str = ""

    @abstractmethod
    def listing(self) -> dict[str, RemoteFile]:
        """List all files by name: one request for a thousand of a store, one for all of the hub.

        Raises:
            InputError: no such place, or no right to read it.
            MachineError: it does not answer.
        """

    @abstractmethod
    def read_small(self, names: Iterable[str], max_bytes: int) -> dict[str, bytes]:
        """Read several small files at once, of each no more than one byte above ``max_bytes``.

        Raises:
            Missing: one is not there.
            MachineError: the place does not answer.
        """

    @abstractmethod
    def fetch(self, file: RemoteFile, folder: Path) -> Path:
        """Bring a file into an empty folder of the caller's; return where it is.

        Raises:
            VerificationError: it is gone, or another one than when it was listed.
            MachineError: the place does not answer.
            OSError: from this disk.
        """

    def changed(self, file: RemoteFile, why: str) -> VerificationError:
        """Return the error for a file that is not what it was."""
        return VerificationError(
            f"{self.url}/{file.name}: {why}: the set changed while it was read, or is damaged; "
            "verify it, and start again with a set that stays"
        )


class StoreFiles(RemoteFiles):
    """The objects under a prefix of an object store."""

    def __init__(self, store: ObjectStore):
        self._store, self.url = store, store.url

    def listing(self) -> dict[str, RemoteFile]:
        described = self._store.described()
        return {name: RemoteFile(name, size, version=version) for name, (size, version) in described.items()}

    def read_small(self, names: Iterable[str], max_bytes: int) -> dict[str, bytes]:
        return self._store.read_many(names, max_bytes + 1)

    def fetch(self, file: RemoteFile, folder: Path) -> Path:
        path = folder / "data"
        try:
            self._store.fetch(file.name, path, file.size)
            version = self._store.version(file.name) if file.version else ""
        except Missing:
            raise self.changed(file, "is gone") from None
        except MachineError:
            size = self._store.described(file.name).get(file.name, (file.size, ""))[0]
            if size != file.size:
                raise self.changed(file, f"has {size} bytes, expected {file.size}") from None
            raise
        if version != file.version:
            raise self.changed(file, f"has the version {version}, it was {file.version}")
        return path
