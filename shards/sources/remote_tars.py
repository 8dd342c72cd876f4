"""Tars that another program wrote, in an object store or on the hub, as a `Source`: whole tars come here when used.

In: `RemoteFiles` with tars. Out: a `Collection` that is indexed once, by bringing every tar into the bounded cache, and
a source that reads by that index. The index keeps size and version (etag, generation) of each object, so one that
changed is noticed and refused. A set's content hash is that of the same tars in a folder.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from synclones.base.errors import InputError, SynclonesError, VerificationError
from synclones.base.files import sha256_file, write_atomic
from synclones.shards.index import PLAN
from synclones.shards.schema import SHARD_PATTERN
from synclones.shards.sources.cache import FileCache
from synclones.shards.sources.class_lists import CLASS_LIST, Classes
from synclones.shards.sources.decode import IMAGE_SUFFIXES
from synclones.shards.sources.files import PassedOver, plain_text
from synclones.shards.sources.foreign_tars import TarCollection
from synclones.shards.sources.indexed import IndexedShard, IndexedSource
from synclones.shards.sources.indexing import Index, is_below
from synclones.shards.sources.listing import Part, Row, SourceFile
from synclones.shards.sources.remote import RemoteFile
from synclones.shards.sources.splits import of_split

_MAX_CLASS_LIST = 64 << 20


@dataclass(frozen=True)
class RemoteTarCollection:
    """Tars of one remote place, in the order of their names."""

    cache: FileCache
    tars: tuple[RemoteFile, ...]
    label_key: str | None = None
    caption_key: str | None = None

    kind: ClassVar[str] = TarCollection.kind
    keeps_index: ClassVar[bool] = False
    has_text_labels: ClassVar[bool] = False

    @property
    def root(self) -> Path:
        """The folder that stands for the place on this disk; its class list lies there."""
        return self.cache.folder / "tars"

    def sources(self) -> list[SourceFile]:
        """Return the tars as they are listed."""
        return [SourceFile(tar.name, tar.size, 0, version=_version(tar)) for tar in self.tars]

    def listing(self) -> str:
        """Return nothing: images are no files."""
        return ""

    def parts(self) -> Sequence[Part]:
        """Return a part per tar."""
        return [_RemoteTar(self, tar, f"{number:05d}") for number, tar in enumerate(self.tars)]

    def class_names(self) -> tuple[str, ...]:
        """Return nothing: tars do not say what numbers mean."""
        return ()

    def rule(self) -> str:
        """Return where labels and captions come from."""
        return self.on_disk([]).rule()

    def on_disk(self, tars: list[Path]) -> TarCollection:
        """Return what reads tars that were brought here."""
        return TarCollection(self.root, tars, self.label_key, self.caption_key)


@dataclass(frozen=True)
class _RemoteTar:
    collection: RemoteTarCollection
    file: RemoteFile
    name: str

    def stamp(self) -> list[Any]:
        return [self.file.name, self.file.size, _version(self.file)]

    def files(self) -> list[SourceFile]:
        with self.collection.cache.file(self.file) as path:
            return [SourceFile(self.file.name, self.file.size, 0, sha256_file(path), _version(self.file))]

    def rows(self, passed: PassedOver) -> Iterator[Row]:
        cache = self.collection.cache
        with cache.file(self.file) as path:
            try:
                yield from self.collection.on_disk([path]).parts()[0].rows(passed)
            except SynclonesError as error:
                error.args = (str(error).replace(str(path), f"{cache.remote.url}/{self.file.name}"),)
                raise


def _version(file: RemoteFile) -> str:
    return file.version or file.sha256


def collect_tars(
    cache: FileCache, split: str | None, label_key: str | None, caption_key: str | None
) -> RemoteTarCollection | None:
    """Find the tars of a place, and bring the class list beside them; None where there are none, or an unfinished set.

    Raises:
        InputError: tars of several splits, or of names that are no plain text; no such place.
        MachineError: the place does not answer.
    """
    url, listing = cache.remote.url, cache.remote.listing()
    names = sorted(name for name in listing if name.endswith(".tar") and not name.rpartition("/")[2].startswith("."))
    # Without SHA256SUMS shards of ours are an unfinished set; img2dataset too writes Parquet files, of other names.
    ours = [name.removesuffix(".tar") for name in names if SHARD_PATTERN.fullmatch(name.removesuffix(".tar"))]
    if not names or PLAN in listing or any(f"{name}.parquet" in listing for name in ours):
        return None
    bad = next((name for name in names if not (name.isprintable() and is_below(name))), None)
    if bad is not None:
        raise InputError(f"{url}: the object {bad!r} has a name that is no plain text; rename it")
    passed = PassedOver()
    for name in sorted(listing):
        if name.lower().endswith(IMAGE_SUFFIXES):
            passed.add("beside the tars", plain_text(name))
    passed.tell(Path(url))
    chosen = tuple(listing[name] for name in of_split(url, names, split))
    collection = RemoteTarCollection(cache, chosen, label_key, caption_key)
    _bring_class_list(collection, CLASS_LIST in listing)
    return collection


def _bring_class_list(collection: RemoteTarCollection, is_listed: bool) -> None:
    path = collection.root / CLASS_LIST
    if not is_listed:
        path.unlink(missing_ok=True)
        return
    data = collection.cache.remote.read_small([CLASS_LIST], _MAX_CLASS_LIST)[CLASS_LIST]
    with collection.cache.on_disk():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_bytes() != data:
            write_atomic(path, data)


class RemoteTarSource(IndexedSource):
    """Foreign tars in a store or on the hub. Safe to use from several threads.

    Attributes:
        cache_bytes: how much of the set is kept on this disk at once.
    """

    def __init__(
        self, location: Path | str, collection: RemoteTarCollection, index: Index, classes: Classes, command: str
    ):
        """Hold what was listed and indexed; nothing is fetched."""
        super().__init__(Path(location), collection, index, classes, command)
        self._cache, self._tars = collection.cache, collection.tars
        self.cache_bytes = self._cache.max_bytes

    @property
    def is_local(self) -> bool:
        """Return that whole tars are fetched."""
        return False

    def bytes_per_shard(self) -> Sequence[int]:
        """Return how many bytes each tar has."""
        return [tar.size for tar in self._tars]

    def check(self, *, quick: bool) -> None:
        """Compare the place with the index: presence, sizes and versions by a listing; else every tar is fetched.

        Raises:
            VerificationError: naming the first that differs.
        """
        listing = self._cache.remote.listing()
        for file, tar in zip(self.index.sources, self._tars, strict=True):
            where, now = self.name_of(file.name), listing.get(file.name)
            if now is None:
                raise VerificationError(f"{where}: missing; put it back, or run: {self.command}")
            if (now.size, _version(now)) != (file.size, file.version):
                raise VerificationError(f"{where}: changed since it was indexed; if that is right, run: {self.command}")
            if not quick:
                with self._cache.file(tar) as path:
                    if sha256_file(path) != file.sha256:
                        raise VerificationError(f"{where}: other bytes than when it was indexed; run: {self.command}")

    def prefetch(self, shards: Sequence[int]) -> None:
        """Fetch tars in the background, in this order, as far as the cache has room for them."""
        self._cache.prefetch(self._tars[number] for number in shards)

    def open(self, shard: int) -> IndexedShard:
        """Open a shard: read its part of the index; its tar is fetched with the first image.

        Raises:
            VerificationError: its part of the index is missing, damaged or of another set.
        """
        return _RemoteTarShard(self, shard)

    def name_of(self, name: str) -> str:
        return f"{self._cache.remote.url}/{name}"

    def drop(self, shard: int) -> None:
        """Remove a tar that turned out to be damaged on this disk, so that it is fetched again."""
        self._cache.drop(self._tars[shard])

    def _open_file(self, shard: int) -> "_FetchedFile":
        return _FetchedFile(self._cache, self._tars[shard])


class _RemoteTarShard(IndexedShard):
    """A shard whose tar is fetched again, once, when this disk has damaged it."""

    def __init__(self, source: RemoteTarSource, number: int):
        super().__init__(source, number)
        self._drop = source.drop

    def image(self, row: int) -> bytes:
        try:
            return super().image(row)
        except VerificationError:
            self._drop(self._number)
        return super().image(row)


@dataclass(frozen=True)
class _FetchedFile:
    cache: FileCache
    file: RemoteFile

    def read(self, size: int, offset: int) -> bytes:
        return self.cache.read_range(self.file, offset, size)
