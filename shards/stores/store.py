"""A dataset's place in an object store: whole objects, conditional writes, one listing.

In: a URL such as ``s3://bucket/prefix``. Out: objects under it. None is visible before it is whole: an object is one
request, or a multipart upload that is aborted on any exception. Transient errors are tried again by the store's own
client, with jitter, `TRIES` times in all; then MachineError names the object and the cause.
"""

import errno
import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

from synclones.base.errors import InputError, MachineError, SynclonesError

TRIES = 6
DOWNLOAD_TRIES = 3
PART_BYTES = 16 << 20  # four at once are 64 MiB of memory for each upload; files below twice this are one request
PARTS_AT_ONCE = 4
_OF_THIS_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
NOT_KINDS = ("store", "lease")  # of the files beside this one; every other is a kind of store, named after its scheme


class Refused(MachineError):
    """A condition did not hold: another object was there."""


class Missing(MachineError):
    """There is no such object."""


@dataclass(frozen=True)
class Upload:
    """A multipart upload that nobody completed."""

    name: str
    started: datetime
    abort: Callable[[], None]
    """Removes its parts."""


def store_url(path: Path | str) -> str | None:
    """Return the URL that a path stands for (pathlib drops one slash of ``s3://``), or None for a path on a disk."""
    match = re.fullmatch(r"([a-z][a-z0-9+.-]+):/{1,2}(.*)", str(path))
    return f"{match[1]}://{match[2].strip('/')}" if match else None


class StoreKind(Protocol):
    """A file of this folder: a kind of store, whose URL scheme and extra in pyproject.toml have the file's name."""

    MODULE: str
    """The module that the extra brings."""
    COPY: str
    """The command that copies from a URL to a folder, both of which follow it."""

    def open_url(self, url: str) -> "ObjectStore":
        """Return the store at a URL; nothing is asked of it yet."""


def store_schemes() -> list[str]:
    """List the URL schemes of the kinds of stores, one per file in this folder."""
    names = (path.stem for path in Path(__file__).parent.glob("*.py"))
    return sorted(name for name in names if name not in NOT_KINDS)


def _kind(url: str) -> StoreKind:
    """Return the kind of store of a URL, or refuse a scheme that has none."""
    scheme = url.partition("://")[0]
    if scheme not in store_schemes():
        expected = " or ".join(f"{name}://" for name in store_schemes())
        raise InputError(f"{scheme}://: is no store with conditional writes that synclones knows; give {expected}")
    kind: StoreKind = import_module(f"synclones.shards.stores.{scheme}")
    return kind


def copy_command(url: str, folder: str) -> str:
    """Return the shell command that brings a set from a store to a disk."""
    return f"{_kind(url).COPY} {url} {folder}"


def refuse_store(path: Path | str) -> None:
    """Refuse a URL where only a folder can be read.

    Raises:
        InputError: it is a URL.
    """
    url = store_url(path)
    if url is not None:
        is_known = url.partition("://")[0] in store_schemes()
        step = f"copy it first, as in `{copy_command(url, 'data/x')}`" if is_known else "give a folder"
        raise InputError(f"{url}: is read from a disk only; {step}")


def open_store(url: str) -> "ObjectStore":
    """Return the store at a URL; nothing is asked of it yet.

    Raises:
        InputError: no such kind of store, no bucket and prefix, credentials inside the URL, or a missing extra.
    """
    kind = _kind(url)
    scheme, _, rest = url.partition("://")
    if set(rest) & set("@?#*["):
        raise InputError(
            f"{scheme}://...: the URL has one of @ ? # * [; credentials and options belong into the environment or a "
            "profile, since manifests and logs repeat the URL"
        )
    if not all(rest.partition("/")):
        raise InputError(f"{url}: expected {scheme}://bucket/prefix, so that the bucket can hold more than one set")
    if find_spec(kind.MODULE) is None:
        raise InputError(f"{url}: needs {kind.MODULE}; run `pip install 'synclones[{scheme}]'`")
    return kind.open_url(url)


class ObjectStore(ABC):
    """The objects under one prefix, by their names below it. Safe to use from several threads.

    A kind of store adds what differs between stores, and names the packages whose exceptions are its client's. Reading
    an object that is not there raises `Missing`.

    Attributes:
        url: the prefix.
        name: its last part.
    """

    clients: ClassVar[frozenset[str]]
    """Top-level packages of the client, whose exceptions become one line."""

    def __init__(self, url: str, filesystem: Any):
        """``filesystem``: the fsspec file system of the store's client."""
        self.url, self.name = url, url.rpartition("/")[2]
        self._fs, self._root = filesystem, url.partition("://")[2]
        self._has_written = False

    def listing(self, prefix: str = "") -> dict[str, int]:
        """List name -> bytes of every object whose name begins with ``prefix``, a thousand a request."""
        return {name: size for name, (size, _) in self.described(prefix).items()}

    def described(self, prefix: str = "") -> dict[str, tuple[int, str]]:
        """List name -> (bytes, version as `version` returns it), as `listing`."""
        try:
            objects = self._call("", self._fs.find, self._root, prefix=prefix, detail=True)
        except Missing:
            bucket = self._root.partition("/")[0]
            raise InputError(f"{self.url}: no bucket {bucket!r}; make it, or check its name") from None
        start = f"{self._root}/"
        names = [path for path in objects if path.startswith(start) and not path.endswith("/")]  # consoles make folders
        return {path.removeprefix(start): (objects[path]["size"], self._version(objects[path])) for path in names}

    def read(self, name: str) -> bytes:
        """Read a (small) object."""
        data: bytes = self._call(name, self._fs.cat_file, self._path(name))
        return data

    def read_many(self, names: Iterable[str], max_bytes: int = 0) -> dict[str, bytes]:
        """Read several small objects at once; of each at most ``max_bytes`` where that is given."""
        paths = {self._path(name): name for name in names}
        if max_bytes and paths:
            ends = [max_bytes] * len(paths)
            parts = self._call("", self._fs.cat_ranges, list(paths), [0] * len(paths), ends, on_error="raise")
            return dict(zip(paths.values(), parts, strict=True))
        contents = self._call("", self._fs.cat, list(paths)) if paths else {}
        return {paths[path]: data for path, data in contents.items()}

    def read_range(self, name: str, offset: int, nbytes: int) -> bytes:
        """Read at most ``nbytes`` of an object from ``offset`` on."""
        data: bytes = self._call(name, self._fs.cat_file, self._path(name), start=offset, end=offset + nbytes)
        return data

    def fetch(self, name: str, path: Path, nbytes: int) -> None:
        """Download an object of ``nbytes`` as the file ``path``, a piece at a time.

        The stores' clients do not repeat an answer that broke off within its body, so this does.

        Raises:
            Missing: there is none.
            MachineError: another number of bytes arrived, several times.
        """
        for attempt in range(DOWNLOAD_TRIES):
            try:
                self._call(name, self._fs.get_file, self._path(name), str(path))
                arrived = path.stat().st_size
                if arrived == nbytes:
                    return
                raise MachineError(
                    f"{self.url}/{name}: {arrived} of {nbytes} bytes arrived; run the same command again"
                )
            except MachineError as error:
                if isinstance(error, Missing) or attempt == DOWNLOAD_TRIES - 1:
                    raise
            time.sleep(random.random() * 2**attempt)

    def version(self, name: str) -> str:
        """Return what `replace` compares: it changes with every write."""
        return self._version(self._call(name, self._fs.info, self._path(name)))

    def put(self, name: str, data: bytes) -> None:
        """Write a small object, whatever was there."""
        self._call(name, self._fs.pipe_file, self._path(name), data)
        self._has_written = True

    def put_if_absent(self, name: str, data: bytes) -> str | None:
        """Write a small object; return its version if the store accepted it on the condition that there was none."""
        try:
            answer = self._call(name, self._fs.pipe_file, self._path(name), data, mode="create")
        except Refused:
            return None
        self._has_written = True
        return self._written(name, data, answer)

    def create(self, name: str, data: bytes) -> str | None:
        """Create a small object; return its version, None when another was there first.

        ``data`` must be unique to the caller: an answer that got lost makes the client ask again, and the second try is
        refused because of the first.
        """
        for attempt in range(TRIES):
            version = self.put_if_absent(name, data)
            if version is not None:
                return version
            try:
                return self._version_if(name, data)
            except Missing:  # two puts collided and neither stands, or its holder has removed it since
                time.sleep(random.random() * 0.1 * 2**attempt)
        raise MachineError(f"{self.url}/{name}: written and removed again and again by others; run the command again")

    def replace(self, name: str, data: bytes, version: str) -> str | None:
        """Write a small object that still has ``version``; return its new version, None when it has another."""
        try:
            return self._written(name, data, self._replace(name, data, version))
        except (Refused, Missing):
            pass  # or our own first try succeeded and its answer got lost: look
        try:
            return self._version_if(name, data)
        except Missing:
            return None

    def create_file(self, name: str, path: Path, sha256: str) -> bool:
        """Upload a file as a new object and check what arrived; False when another object is there already.

        Raises:
            MachineError: the store holds something else than was sent.
        """
        try:
            self._create_file(name, path, sha256)
        except (Refused, Missing):  # Missing: of an upload that was completed by a first try whose answer got lost
            pass
        size = path.stat().st_size
        try:
            stored_size, stored_sha256, checksum = self._facts(name)
        except Missing:
            raise MachineError(
                f"{self.url}/{name}: its upload got lost; run the same command again to resume"
            ) from None
        if stored_sha256 != sha256:
            return False
        self._has_written = True
        if stored_size != size or checksum not in ("", sha256):
            self.remove(name)
            raise MachineError(
                f"{self.url}/{name}: {stored_size} bytes with sha256 {checksum or 'unknown'} arrived, {size} with "
                f"{sha256} were sent; it was removed, run the same command again"
            )
        return True

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        try:
            self._call(name, self._fs.rm_file, self._path(name))
        except Missing:
            pass

    def uploads(self) -> list[Upload]:
        """List multipart uploads under the prefix that nobody completed."""
        return []

    # -------------------------------------------------------------- what differs between stores

    @abstractmethod
    def _version(self, info: dict[str, Any]) -> str:
        """The version in what the store says of an object."""

    def _written(self, name: str, data: bytes, answer: Any) -> str | None:
        """The version that a write has made; None when another write has followed already."""
        return self._version_if(name, data)

    @abstractmethod
    def _replace(self, name: str, data: bytes, version: str) -> Any:
        """Write a small object on the condition that it still has ``version``; the store's answer."""

    @abstractmethod
    def _create_file(self, name: str, path: Path, sha256: str) -> None:
        """Upload a file on the condition that there is no such object; nothing is visible until all of it is."""

    @abstractmethod
    def _facts(self, name: str) -> tuple[int, str, str]:
        """Bytes of an object, the sha256 its writer meant, and the one the store computed ("" when it gives none)."""

    # -------------------------------------------------------------- helpers

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _version_if(self, name: str, data: bytes) -> str | None:
        # The version first: read after the bytes, it could be that of a later write.
        version = self.version(name)
        return version if self.read(name) == data else None

    def _call(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if not (isinstance(error, OSError) or type(error).__module__.partition(".")[0] in self.clients):
                raise
            if isinstance(error, OSError) and error.errno in _OF_THIS_DISK:
                raise  # of a download, and not the store's
            raise self._explained(name, error) from None

    def _explained(self, name: str, error: Exception) -> SynclonesError:
        code, where = _code(error), f"{self.url}/{name}" if name else self.url
        if isinstance(error, FileExistsError) or code in ("PreconditionFailed", "412", "ConditionalRequestConflict"):
            return Refused(f"{where}: another command writes it too; run the same command again")
        if isinstance(error, FileNotFoundError):
            return Missing(f"{where}: is gone; run the same command again")
        reason = " ".join(str(error).split()) or type(error).__name__
        denied = isinstance(error, PermissionError) or "Credential" in type(error).__name__ or "Forbidden" in reason
        if denied or code == "InvalidBucketName":
            # Before the first write this is the user's input; later a token has expired.
            kind = MachineError if self._has_written else InputError
            return kind(
                f"{where}: {reason}; check the bucket's name, the credentials and their right to list and write"
            )
        return MachineError(f"{where}: {reason} (up to {TRIES} tries); run the same command again to resume")


def _code(error: BaseException | None) -> str:
    """The store's own name of an error, behind what fsspec made of it."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""
