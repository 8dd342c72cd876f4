"""A set that others made as a `Source`: read where it lies, by its index, every image checked against its crc32.

In: a `Collection` and its `Index`. Out: encoded images, labels, captions by shard and row.
"""

import os
import stat
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.shards.schema import MAX_INDEX
from synclones.shards.sidecar import read_sidecar
from synclones.shards.sources.class_lists import Classes
from synclones.shards.sources.huggingface import ParquetCollection, RowGroups
from synclones.shards.sources.indexing import Index, changed_files, is_below
from synclones.shards.sources.listing import SCHEMA, Collection, Facts, SourceFile, facts_in, file_stamp

OPEN_FILES, CACHED_TEXTS = 64, 256  # more shards than one window of the training order


class IndexedSource:
    """A foreign set. Safe to use from several threads.

    Attributes:
        folder: where it is, as the user wrote it.
        root: the folder that names of files are below.
        index: what is known of it.
        command: what makes the index again.
    """

    def __init__(self, folder: Path, collection: Collection, index: Index, classes: Classes, command: str):
        """Hold what was found; no image is read."""
        self.folder, self.root, self.index, self.command = folder, collection.root, index, command
        self._groups = RowGroups(collection.columns.image) if isinstance(collection, ParquetCollection) else None
        self._classes = classes
        self._starts = np.cumsum([0, *(facts.images for facts in index.shards)])
        self._texts = lru_cache(maxsize=CACHED_TEXTS)(self._read_texts)
        self._file = lru_cache(maxsize=OPEN_FILES)(self._open_file)

    @property
    def class_ids(self) -> tuple[str, ...]:
        """The class of each label, in order.

        Raises:
            InputError: the images have no labels, or numbers that nobody gave a meaning.
        """
        if self._classes.fault:
            raise InputError(self._classes.fault)
        return self._classes.ids

    @property
    def images_per_shard(self) -> Sequence[int]:
        """How many images each shard holds."""
        return [facts.images for facts in self.index.shards]

    @property
    def is_local(self) -> bool:
        """Whether any image costs as little as any other: Parquet files are read by row groups."""
        return self.index.kind != "parquet"

    def content_hash(self) -> str:
        """Return the identity of the set: contents of its files in order, where labels come from, what they mean."""
        shards = [facts.sha256 for facts in self.index.shards]
        return sha256_bytes(canonical_json([self.index.kind, self.index.rule, shards, list(self._classes.ids)]))

    def check(self, *, quick: bool) -> None:
        """Compare files with the index: presence and sizes only when ``quick``, else every byte.

        Raises:
            VerificationError: naming the first that differs.
        """
        for difference in changed_files(self.index, contents=not quick):
            raise difference
        if self.index.kind in ("folder", "table"):
            for number in range(len(self.index.shards)):
                self.open(number).check(quick=quick)

    def prefetch(self, shards: Sequence[int]) -> None:
        """Do nothing: everything is on this disk."""

    def open(self, shard: int) -> "IndexedShard":
        """Open a shard; not cached.

        Raises:
            VerificationError: its part of the index is missing, damaged or of another set.
        """
        return IndexedShard(self, shard)

    def columns(self, shard: int, names: list[str]) -> tuple[pa.Table, Facts]:
        """Read columns of the index, and what it says of the shard.

        Raises:
            VerificationError: they are damaged, or not of this set.
        """
        facts = self.index.shards[shard]
        path = self.index.where / f"{facts.name}.parquet"
        try:
            table = read_sidecar(path, names, SCHEMA)
            stated = facts_in(table.schema)
            if replace(stated, labels={}) != facts or len(table) != facts.images:
                raise ValueError("of another index")
        except FileNotFoundError:
            raise VerificationError(f"{path}: missing; run: {self.command}") from None
        except ValueError as error:
            raise VerificationError(f"{path}: damaged ({error}); run: {self.command}") from None
        return table, stated

    def first(self, shard: int) -> int:
        """Return the number of a shard's first image."""
        return int(self._starts[shard])

    def numbers_of(self, labels: Iterable[str]) -> np.ndarray:
        """Return the class number of each label, and -1 for none behind them: int32[labels + 1]."""
        return np.array([*(self._classes.number.get(text, -1) for text in labels), -1], dtype=np.int32)

    def texts(self, shard: int, column: str) -> pa.Array:
        """Read a column of texts; it is read whole and kept for a while."""
        return self._texts(shard, column)

    def _read_texts(self, shard: int, column: str) -> pa.Array:
        return self.columns(shard, [column])[0][column].combine_chunks()

    def opened(self, shard: int) -> "OpenFile":
        """Return the tar of a shard, open.

        Raises:
            VerificationError: it is missing.
        """
        return self._file(shard)

    def name_of(self, name: str) -> str:
        """Return how messages call a file of the set."""
        return str(self.root / name)

    def _open_file(self, shard: int) -> "OpenFile":
        file = SourceFile(**self.index.shards[shard].files[0])
        return _OpenFile(self.root / file.name, file, self.command)

    def read_row(self, file: SourceFile, row: int) -> bytes:
        """Read an image of a Parquet file.

        Raises:
            VerificationError: the file is missing, or no longer what was indexed.
        """
        assert self._groups is not None  # for this kind of set it was made
        path = self.root / file.name
        if file_stamp(self.root, path) != [file.name, file.size, file.mtime_ns]:
            raise VerificationError(f"{path}: changed since it was indexed; {self.command}")
        return self._groups.read(path, row)


class IndexedShard:
    """The images of one shard; 24 bytes each. Safe to use from several threads."""

    def __init__(self, source: IndexedSource, number: int):
        """Read the columns of numbers.

        Raises:
            VerificationError: they are damaged, or lead out of the file.
        """
        self._source, self._number = source, number
        table, facts = source.columns(number, ["offset", "size", "crc32", "label"])
        self._offset, self._size = table["offset"].to_numpy(), table["size"].to_numpy().astype("i4")
        self._crc32 = table["crc32"].to_numpy().astype("u4")
        first, count = source.first(number), len(table)
        self.index = np.arange(first, first + count, dtype="u4" if first + count <= MAX_INDEX else "i8")
        codes, numbers = table["label"].to_numpy(), source.numbers_of(sorted(facts.labels))
        self._within = SourceFile(**facts.files[0]) if facts.files else None
        is_tar = source.index.kind == "tars"
        ends = self._offset + self._size
        beyond = is_tar and self._within is not None and bool((ends > self._within.size).any())
        if beyond or (count and codes.max() >= len(numbers) - 1):
            raise VerificationError(f"{source.index.where}: shard {number} is damaged; run: {source.command}")
        self.label = numbers[codes]
        self._read: Callable[[int], bytes] = self._from_tar if is_tar else self._from_file
        if source.index.kind == "parquet":
            self._read = self._from_parquet

    def __len__(self) -> int:
        return len(self.index)

    def image(self, row: int) -> bytes:
        """Read the encoded image.

        Raises:
            VerificationError: it is damaged, missing, or changed since it was indexed.
        """
        data = self._read(row)
        if zlib.crc32(data) != self._crc32.item(row) or len(data) != self._size.item(row):
            raise VerificationError(
                f"{self.where(row)} is damaged or changed; fetch it again, or: {self._source.command}"
            )
        return data

    def caption(self, row: int) -> str:
        """Read the image's text from the index; empty when it has none.

        Raises:
            VerificationError: the index is damaged.
        """
        return self._text("caption", row)

    def caption_ids(self) -> np.ndarray:
        """Return a number for each caption, the same for equal ones in all shards: int64[n]; without one, -1 - row."""
        coded = self._source.texts(self._number, "caption").dictionary_encode()
        numbers = [int(sha256_bytes(text.encode())[:15], 16) for text in coded.dictionary.to_pylist()]
        ids = np.array(numbers, dtype=np.int64)[coded.indices.to_numpy()]
        empty = pc.equal(self._source.texts(self._number, "caption"), "").to_numpy(zero_copy_only=False)
        return np.where(empty, -1 - np.arange(len(self)), ids)

    def _text(self, column: str, row: int) -> str:
        text: str = self._source.texts(self._number, column)[row].as_py()
        return text

    def name(self, row: int) -> str:
        """Return the image's path below the root, or its sample's key."""
        return self._text("key", row)

    def where(self, row: int) -> str:
        """Name the image in messages."""
        key = self._text("key", row)
        if self._within is None:
            return f"{self._source.root}: image {key}"
        kind = "row" if self._source.index.kind == "parquet" else "sample"
        return f"{self._source.name_of(self._within.name)}: {kind} {key}"

    def check(self, *, quick: bool) -> None:
        """Compare image files with the index.

        Raises:
            VerificationError: one is missing, or of other bytes.
        """
        for row in range(len(self)):
            if not quick:
                self.image(row)
                continue
            path = self._path(row)
            try:
                size = path.stat().st_size
            except OSError:
                raise VerificationError(f"{path}: missing; fetch it again, or: {self._source.command}") from None
            if size != self._size[row]:
                raise VerificationError(f"{path}: {size} bytes, indexed with {self._size[row]}; {self._source.command}")

    def _path(self, row: int) -> Path:
        name = os.fsdecode(self._source.texts(self._number, "file")[row].as_py())
        if not is_below(name):
            raise VerificationError(f"{self._source.index.where}: names {name!r}; run: {self._source.command}")
        return self._source.root / name

    def _from_file(self, row: int) -> bytes:
        path, size = self._path(row), int(self._size[row])
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait for its writer
        except (FileNotFoundError, NotADirectoryError):
            raise VerificationError(f"{path}: missing; fetch it again, or: {self._source.command}") from None
        try:
            return os.pread(descriptor, size + 1, 0)
        finally:
            os.close(descriptor)

    def _from_tar(self, row: int) -> bytes:
        return self._source.opened(self._number).read(self._size.item(row), self._offset.item(row))

    def _from_parquet(self, row: int) -> bytes:
        assert self._within is not None  # every shard of Parquet files is of one
        return self._source.read_row(self._within, int(self._offset[row]))


class OpenFile(Protocol):
    """A file that holds many images."""

    def read(self, size: int, offset: int) -> bytes:
        """Read ``size`` bytes from ``offset`` on.

        Raises:
            VerificationError: it changed since it was indexed.
        """


class _OpenFile:
    """A descriptor that is closed when nobody uses it any more, not when it leaves the cache."""

    def __init__(self, path: Path, file: SourceFile, command: str):
        self._path, self._command, self._descriptor = path, command, -1
        self._size, self._mtime_ns = file.size, file.mtime_ns
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            raise VerificationError(f"{path}: missing; fetch it again") from None

    def read(self, size: int, offset: int) -> bytes:
        status = os.fstat(self._descriptor)
        if status.st_mtime_ns != self._mtime_ns or status.st_size != self._size or not stat.S_ISREG(status.st_mode):
            raise VerificationError(f"{self._path}: changed since it was indexed; if that is right: {self._command}")
        return os.pread(self._descriptor, size, offset)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
