"""A finished set in an object store or on the Hugging Face Hub as a `Source`: shards come to this disk when used.

In: ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``hf://[datasets/]OWNER/NAME[@revision][/path]`` with a set of
this project. Out: its shards. ``SHA256SUMS`` is read first and says what everything else must be: small files are
brought once and kept, tars come and go (`cache`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from synclones.base.errors import SynclonesError, VerificationError
from synclones.base.files import sha256_bytes, sha256_file, write_atomic
from synclones.base.manifest import MANIFEST_FILE
from synclones.shards.index import SUMS, Summary, own_summary, read_checksums
from synclones.shards.read import ShardFolder
from synclones.shards.schema import SHARD_PATTERN, ShardFiles
from synclones.shards.shard import ReadRange, Shard, opened
from synclones.shards.sources.cache import CACHE_GB, FileCache, open_remote
from synclones.shards.sources.dataset import check_labels
from synclones.shards.sources.remote import RemoteFile, RemoteFiles
from synclones.shards.stores.store import Missing

MAX_SMALL_BYTES = 64 << 20
_SMALL_AT_ONCE = 256  # jsons of a kilobyte
_SIDECARS_AT_ONCE = 32  # of half a megabyte: a set of 1,600 shards would ask as often, one after the other


class NoSums(VerificationError):
    """There is no finished set of this project."""


class RemoteSource:
    """A set of this project in a store or on the hub. Safe to use from several threads.

    Attributes:
        folder: its URL, as the user wrote it.
        split: which split of a set its images are.
        revision: the commit that is read, of a set on the hub; else empty.
        cache_bytes: how much of the set's tars is kept on this disk at once.
    """

    is_local = False

    def __init__(
        self,
        location: Path | str,
        split: str | None = None,
        *,
        cache: Path | None = None,
        cache_gb: float = CACHE_GB,
        remote: RemoteFiles | None = None,
    ):
        """Bring the small files of a set; ``split`` is read from them by default.

        Args:
            cache: folder for the caches of all sets, by default ``$XDG_CACHE_HOME/synclones/shards``.
            cache_gb: how much of the set's tars is kept on this disk at once, in 10^9 bytes: no less than what a
                training reads in turns, 64 shards.
            remote: the set's files, when they are open already.

        Raises:
            InputError: nothing is there, or no right to read it.
            VerificationError: the set is unfinished or damaged.
            MachineError: the place does not answer; the disk is full or cannot be written.
        """
        self.folder = Path(location)
        self._remote = remote or open_remote(location, cache)
        self._cache = FileCache(self._remote, cache, cache_gb)
        self.cache_bytes = self._cache.max_bytes
        self.revision = self._remote.revision
        self._mirror, self._sums = self._bring_small()
        with self._named():
            self._shards = ShardFolder(self._mirror, split)
        self.split = self._shards.split

    def _bring_small(self) -> tuple[Path, dict[str, str]]:
        """Return a folder with everything but shards' tars and Parquet files, and what SHA256SUMS states."""
        try:
            sums = self._remote.read_small([SUMS], MAX_SMALL_BYTES)[SUMS]
        except Missing:
            raise NoSums(
                f"{self._remote.url}/{SUMS}: missing; give the URL of a finished set of synclones, or of tars"
            ) from None
        # A folder for each state of the set: a changed one finds nothing of the one before.
        mirror = self._cache.folder / f"set-{sha256_bytes(sums)[:16]}"
        with self._cache.on_disk():
            mirror.mkdir(parents=True, exist_ok=True)
            if not (mirror / SUMS).is_file() or (mirror / SUMS).read_bytes() != sums:
                write_atomic(mirror / SUMS, sums)
        with self._named(mirror):
            stated = read_checksums(mirror)
        small = [name for name in stated if not (name.endswith((".tar", ".parquet")) and _is_of_shard(name))]
        missing = [name for name in small if not _has_hash(mirror / name, stated[name])]
        for start in range(0, len(missing), _SMALL_AT_ONCE):
            self._bring(mirror, stated, missing[start : start + _SMALL_AT_ONCE])
        if not (mirror / MANIFEST_FILE).is_file():  # outside SHA256SUMS; without one the images have no labels
            with suppress(Missing), self._cache.on_disk():
                manifest = self._remote.read_small([MANIFEST_FILE], MAX_SMALL_BYTES)[MANIFEST_FILE]
                write_atomic(mirror / MANIFEST_FILE, manifest)
        return mirror, stated

    def _bring(self, mirror: Path, stated: dict[str, str], names: Sequence[str]) -> None:
        """Bring small files, each only if it is what SHA256SUMS states."""
        try:
            contents = self._remote.read_small(names, MAX_SMALL_BYTES)
        except Missing as error:
            raise VerificationError(f"{error}, but {SUMS} names it") from None
        for name, data in contents.items():
            if sha256_bytes(data) != stated[name]:
                raise self._remote.changed(RemoteFile(name, len(data)), f"differs from {SUMS}")
            with self._cache.on_disk():
                write_atomic(mirror / name, data)

    @contextmanager
    def _named(self, mirror: Path | None = None) -> Iterator[None]:
        """Let errors within the context name the set's URL in place of the folder of its small files."""
        try:
            yield
        except SynclonesError as error:
            error.args = (str(error).replace(str(mirror or self._mirror), self._remote.url),)
            raise

    @property
    def class_ids(self) -> tuple[str, ...]:
        """The class of each label, in order.

        Raises:
            InputError: the images have no labels.
        """
        with self._named():
            return self._shards.class_ids

    @property
    def images_per_shard(self) -> Sequence[int]:
        """How many images each shard holds."""
        return self._shards.samples_per_shard

    def bytes_per_shard(self) -> Sequence[int]:
        """Return how many bytes the tar of each shard has."""
        return [own_summary(ShardFiles(self._mirror, name))["tar"]["bytes"] for name in self._shards.shards]

    def content_hash(self) -> str:
        """Return the identity of the set: that of the same set in a folder."""
        return self._shards.content_hash()

    def check(self, *, quick: bool) -> None:
        """Compare the set with SHA256SUMS: presence and sizes by a listing when ``quick``, else every tar is fetched.

        Raises:
            VerificationError: naming what differs.
        """
        listing = self._remote.listing()
        for number, name in enumerate(self._shards.shards):
            files = ShardFiles(self._mirror, name)
            summary = own_summary(files)
            for path, stated in ((files.tar, summary["tar"]), (files.parquet, summary["parquet"])):
                listed = listing.get(path.name)
                if listed is None or listed.size != stated["bytes"]:
                    size = "is missing" if listed is None else f"has {listed.size} bytes"
                    raise VerificationError(f"{self._remote.url}/{path.name}: {size}, {stated['bytes']} are stated")
            if not quick:
                self.open(number)
                with self._cache.file(self._tar(summary)):
                    pass

    def prefetch(self, shards: Sequence[int]) -> None:
        """Fetch the tars of shards in the background, in this order, as far as the cache has room for them."""
        names = (self._shards.shards[number] for number in shards)
        self._cache.prefetch(self._tar(own_summary(ShardFiles(self._mirror, name))) for name in names)

    def open(self, shard: int) -> Shard:
        """Open a shard: its Parquet file is brought, and those of the following ones, unless they are here.

        Raises:
            InputError: a label is no class of the set; names shard and sample.
            VerificationError: its Parquet file is missing or damaged.
        """
        files = ShardFiles(self._mirror, self._shards.shards[shard])
        if not files.parquet.is_file():
            coming = self._shards.shards[shard : shard + _SIDECARS_AT_ONCE]
            names = [f"{name}.parquet" for name in coming if not (self._mirror / f"{name}.parquet").is_file()]
            self._bring(self._mirror, self._sums, names)
        with self._named():
            summary = own_summary(files)
            opened_shard = RemoteShard(files, summary, self._cache, self._tar(summary))
            if self._shards.has_classes:  # as `DatasetSource.open`
                check_labels(opened_shard, len(self.class_ids))
        return opened_shard

    def _tar(self, summary: Summary) -> RemoteFile:
        return RemoteFile(f"{summary['name']}.tar", summary["tar"]["bytes"], summary["tar"]["sha256"])


class RemoteShard(Shard):
    """A shard whose tar is on this disk while somebody reads from it."""

    def __init__(self, files: ShardFiles, summary: Summary, cache: FileCache, tar: RemoteFile):
        self._cache, self._tar = cache, tar
        super().__init__(files, summary, partial(cache.read_range, tar), images_only=True)

    @contextmanager
    def _opened(self) -> Iterator[ReadRange]:
        with self._cache.file(self._tar) as path, opened(path) as read_range:
            yield read_range

    def _tar_stamp(self) -> list[int]:
        return []  # it comes and goes, and its hash is compared when it comes

    def where(self, position: int) -> str:
        return super().where(position).replace(str(self.files.folder), self._cache.remote.url)

    def read(self, position: int, read_range: ReadRange | None = None) -> bytes:
        """Read as `Shard` does; what is damaged on this disk is fetched again once.

        Raises:
            VerificationError: the sample is damaged in the set itself.
        """
        try:
            return super().read(position, read_range)
        except VerificationError:
            self._cache.drop(self._tar)
        try:
            return super().read(position)
        except VerificationError as error:
            error.args = (str(error).replace(str(self.files.folder), self._cache.remote.url),)
            raise


def _is_of_shard(name: str) -> bool:
    return SHARD_PATTERN.fullmatch(Path(name).stem) is not None


def _has_hash(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256
