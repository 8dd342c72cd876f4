"""A set to look into, in a folder or in an object store: small files at once, shards one after the other.

In: a folder, or a URL such as ``s3://bucket/prefix``. Out: `LocalSet` or `StoredSet`, which both have a folder that the
rest of the code reads. That of a store's set is temporary. In it every object has its name and size, but tars and
Parquet files are sparse and take no room, until one shard is asked for.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal

from synclones.base.errors import InputError, SynclonesError
from synclones.base.resume import CONFIG
from synclones.shards.read import ShardFolder
from synclones.shards.schema import SHARD_PATTERN, Sample, ShardFiles
from synclones.shards.shard import ReadRange
from synclones.shards.stores.store import ObjectStore, open_store, store_url
from synclones.shards.unfinished import resume_command

LOGS = "log/"
MAX_SMALL_BYTES = 64 << 20  # no file beside the shards is as large, so a larger one is somebody else's


class LocalSet:
    """A dataset folder.

    Attributes:
        folder: where its files are.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def shards(self) -> ShardFolder:
        """Open the set's samples."""
        return ShardFolder(self.folder)

    def at_hand(self, files: ShardFiles) -> AbstractContextManager[None]:
        """Enter a context in which a shard's tar and Parquet file can be read."""
        return nullcontext()

    def named(self, text: str) -> str:
        """Return a line for the user, in which the set has its own path or URL."""
        return text

    def resume_command(self) -> str:
        """Return the command that draws the rest of an unfinished set."""
        return resume_command(self.folder)


class StoredSet(LocalSet):
    """A set in a store, as a sparse mirror of it in ``temporary``: a folder whose large files have no bytes yet.

    Attributes:
        sizes: name -> bytes of the objects, when they were last listed.
    """

    def __init__(self, store: ObjectStore, temporary: Path):
        super().__init__(temporary / store.name)
        self.store, self.sizes = store, dict[str, int]()
        (self.folder / LOGS).mkdir(parents=True)

    def refresh(self) -> None:
        """List the store, and bring what is not here yet."""
        before, listing = self.sizes, self.store.listing()
        self.sizes = {name: size for name, size in listing.items() if _is_plain(name.removeprefix(LOGS))}
        new = [name for name, size in self.sizes.items() if before.get(name) != size]
        small = {name for name in new if not _is_hole(name) and self.sizes[name] < MAX_SMALL_BYTES}
        for name, data in self.store.read_many(small).items():
            (self.folder / name).write_bytes(data)
        for name in set(new) - small:
            self._empty(name)

    def shards(self) -> ShardFolder:
        """Open the samples; each is read by its position in the tar, after the shard's whole Parquet file."""
        return StoredShards(self)

    def at_hand(self, files: ShardFiles) -> AbstractContextManager[None]:
        return self.brought(files.parquet, files.tar)

    @contextmanager
    def brought(self, *paths: Path) -> Iterator[None]:
        """Enter a context in which these files of the mirror have their bytes; behind it, they are holes again."""
        names = [path.name for path in paths if path.name in self.sizes]
        try:
            for name in names:
                self.store.fetch(name, self.folder / name, self.sizes[name])
            yield
        finally:
            for name in names:
                self._empty(name)

    def _empty(self, name: str) -> None:
        """Make a hole of the object's size."""
        with (self.folder / name).open("wb") as file:
            file.truncate(self.sizes[name])

    def named(self, text: str) -> str:
        return text.replace(str(self.folder), self.store.url)

    def resume_command(self) -> str:
        return f"synclones generate --config {CONFIG}, with the {CONFIG} copied from {self.store.url}"


class StoredShards(ShardFolder):
    """As `ShardFolder`, of a set in a store."""

    def __init__(self, stored: StoredSet):
        super().__init__(stored.folder)
        self._stored = stored

    def _sidecar_at_hand(self, files: ShardFiles) -> AbstractContextManager[None]:
        return self._stored.brought(files.parquet)

    def _read_range(self, files: ShardFiles) -> ReadRange:
        return partial(self._stored.store.read_range, files.tar.name)

    def sequential(
        self,
        shards: Sequence[str] | None = None,
        *,
        on_bad_shard: Literal["fail", "skip"] = "fail",
        tolerated: int | None = None,
    ) -> Iterator[Sample]:
        """Read as of a folder; one shard after the other is on this disk."""
        for shard in self.shards if shards is None else shards:
            with self._stored.brought(ShardFiles(self.folder, shard).tar):
                yield from super().sequential([shard], on_bad_shard=on_bad_shard, tolerated=tolerated)


@contextmanager
def open_set(location: Path) -> Iterator[LocalSet]:
    """Open the set at a path or URL; errors within the context name that and not a temporary folder.

    Raises:
        InputError: nothing is there, or the store cannot be read.
    """
    url = store_url(location)
    if url is None:
        if not location.is_dir():
            raise InputError(f"{location}: no such folder; give one that `synclones generate` made")
        yield LocalSet(location)
        return
    with stored_set(open_store(url)) as stored:
        if not stored.sizes:
            raise InputError(f"{url}: holds no set; give the URL that was --out of `synclones generate`")
        yield stored


@contextmanager
def stored_set(store: ObjectStore) -> Iterator[StoredSet]:
    """Mirror the set in a store; errors within the context name the store and not the temporary folder."""
    with tempfile.TemporaryDirectory(prefix="synclones-") as temporary:
        stored = StoredSet(store, Path(temporary))
        try:
            stored.refresh()
            yield stored
        except SynclonesError as error:
            error.args = (stored.named(str(error)),)
            raise


def _is_hole(name: str) -> bool:
    path = Path(name)
    return path.suffix in (".tar", ".parquet") and bool(SHARD_PATTERN.fullmatch(path.stem))


def _is_plain(name: str) -> bool:
    """Whether an object's name is that of a visible file: keys in a bucket may be anything, even ``../x``."""
    return bool(name) and "/" not in name and "\\" not in name and not name.startswith(".")
