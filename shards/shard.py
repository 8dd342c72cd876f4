"""One finished shard: its columns, held compactly, and its samples by position, each checked when it is read.

In: ``train-00000.json``, ``.parquet`` and ``.tar``. Out: numpy arrays over the stored samples (status ok), and their
bytes. Everything that reads a shard reads it through `Shard`, which is small enough to be held for thousands of shards.
"""

import os
import stat
import threading
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synclones.base.errors import VerificationError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import read_regular
from synclones.base.resume import typed
from synclones.shards.caption_ids import caption_ids
from synclones.shards.index import Summary
from synclones.shards.schema import Sample, SampleRow, ShardFiles, sample_key
from synclones.shards.sidecar import number_range, read_sidecar
from synclones.shards.tar import BLOCK, decode_sample, trailer

# What reading an image needs, and what reading a whole sample needs besides.
_TO_FIND = ("index", "label", "offset", "nbytes", "crc32", "jpg_offset", "jpg_size")
_REST = ("offset", "nbytes", "json_offset", "json_size", "seed", "attempt", "scores", "reason")

KEPT_DESCRIPTORS = 128  # a process may have 256 files open where least are allowed (macOS)

ReadRange = Callable[[int, int], bytes]
"""(offset, nbytes) -> at most ``nbytes`` bytes of a tar from ``offset`` on."""


class Shard:
    """The stored samples of one shard, by position from 0, ascending by index. Safe to use from several threads.

    Attributes:
        files: where the shard is.
        index: uint32[n], of each stored sample.
        label: int32[n], class number, or -1 for none.
        crc32: uint32[n], of the bytes of each sample in the tar.
    """

    def __init__(
        self, files: ShardFiles, summary: Summary, read_range: ReadRange | None = None, *, images_only: bool = False
    ):
        """Read and check the Parquet file; the tar is not opened.

        ``summary``: the shard's json. ``read_range``: reads the tar, by default the file on this disk. ``images_only``:
        read now what finding an image takes, 28 bytes a sample, and the rest when it is asked for.

        Raises:
            VerificationError: the Parquet file is missing or damaged, or does not describe the tar.
        """
        self.files = files
        self._read_range = read_range or _Tar(files.tar)
        self._summary = summary
        numbers = stored_columns(self.files, self._summary, _TO_FIND)
        self._check_layout(numbers)
        # Compact, since a training holds many shards at once; whatever is in a tar begins at a block.
        self.index, self.label = numbers["index"].astype("u4"), numbers["label"].astype("i4")
        self._block, self._nbytes = (numbers["offset"] // BLOCK).astype("u4"), numbers["nbytes"].astype("i4")
        self.crc32 = numbers["crc32"].astype("u4")
        self._jpg = (numbers["jpg_offset"] - numbers["offset"]).astype("i4"), numbers["jpg_size"].astype("i4")
        if not images_only:
            self._rest  # noqa: B018 - now, while the file is at hand

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def _rest(self) -> dict[str, Any]:
        columns = stored_columns(self.files, self._summary, _REST)
        self._check_member("json", columns)
        return columns

    def _check_member(self, member: str, columns: dict[str, np.ndarray]) -> None:
        start = columns[f"{member}_offset"] - columns["offset"]
        if not ((start >= 0) & (start + columns[f"{member}_size"] <= columns["nbytes"])).all():
            raise _damaged(self.files, f"its offsets do not tile {self.files.tar.name}")

    def _check_layout(self, columns: dict[str, np.ndarray]) -> None:
        """Refuse columns by which a wrong part of the tar would be read."""
        index, offset, nbytes = columns["index"], columns["offset"], columns["nbytes"]
        starts = np.concatenate([[0], np.cumsum(nbytes)])
        tar_bytes = int(starts[-1]) + len(trailer(int(starts[-1])))
        sound = bool((np.diff(index) > 0).all() and (offset == starts[:-1]).all())
        if not (sound and tar_bytes == self._summary["tar"]["bytes"]):
            raise _damaged(self.files, f"its offsets do not tile {self.files.tar.name}")
        self._check_member("jpg", columns)

    def position(self, index: int) -> int | None:
        """Return where the sample ``index`` is, or None when the shard does not store it."""
        position = int(np.searchsorted(self.index, index))
        return position if position < len(self) and self.index[position] == index else None

    def name(self, position: int) -> str:
        """Return a sample's key."""
        return sample_key(int(self.index[position]))

    def where(self, position: int) -> str:
        """Name a sample in messages."""
        return f"{self.files.tar}: sample {sample_key(int(self.index[position]))}"

    def read(self, position: int, read_range: ReadRange | None = None) -> bytes:
        """Read the tar bytes of a sample, all its members; ``read_range`` as `opened` gives it.

        Raises:
            VerificationError: they differ from their crc32, or the tar is missing.
        """
        nbytes = self._nbytes.item(position)  # half the time of int(self._nbytes[position])
        data = (read_range or self._read_range)(self._block.item(position) * BLOCK, nbytes)
        if len(data) != nbytes or zlib.crc32(data) != self.crc32.item(position):
            raise VerificationError(f"{self.where(position)} is damaged; {_how_to_find_out(self.files.folder)}")
        return data

    def image(self, position: int) -> bytes:
        """Read the encoded image of a sample; the whole sample is checked.

        Raises:
            VerificationError: as `read`.
        """
        starts, sizes = self._jpg
        start = starts.item(position)
        return self.read(position)[start : start + sizes.item(position)]

    def caption(self, position: int) -> str:
        """Read the prompt of a sample.

        Raises:
            VerificationError: as `read`, and when it has none.
        """
        return self.sample(position).txt

    def caption_ids(self) -> np.ndarray:
        """Return the ``caption_id`` of each sample, int64[n]; one without has a negative number of its own.

        Kept once every json was read (`caption_ids`); they are not checked, since a crc32 is of a whole sample.

        Raises:
            VerificationError: the tar is missing.
        """
        tar_sha256 = self._summary["tar"]["sha256"]
        return caption_ids(
            self.files.folder, self.files.name, tar_sha256, len(self), self._tar_stamp, self._sample_jsons
        )

    def _sample_jsons(self) -> list[bytes]:
        starts, sizes = (self._rest[f"json_{name}"].tolist() for name in ("offset", "size"))
        with self._opened() as read_range:
            return [read_range(start, size) for start, size in zip(starts, sizes, strict=True)]

    def _tar_stamp(self) -> list[int]:
        """Return what tells whether the tar was written again."""
        with self._opened():  # refuses one that is missing
            status = self.files.tar.stat()
        return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]

    def _opened(self) -> AbstractContextManager[ReadRange]:
        return opened(self.files.tar)

    def sample(self, position: int, read_range: ReadRange | None = None) -> Sample:
        """Read a sample; ``read_range`` as `opened` gives it.

        Raises:
            VerificationError: as `read`; a member is missing.
        """
        data, label = self.read(position, read_range), int(self.label[position])
        members = decode_sample(data, int(self.index[position]), str(self.files.tar))
        try:
            txt, jpg, facts = members["txt"].decode(), members["jpg"], members["json"]
        except (KeyError, UnicodeDecodeError):
            raise VerificationError(
                f"{self.where(position)} lacks its jpg, json or txt; {_how_to_find_out(self.files.folder)}"
            ) from None
        return Sample(
            index=int(self.index[position]),
            jpg=jpg,
            json=facts,
            txt=txt,
            label=None if label < 0 else label,
            seed=int(self._rest["seed"][position]),
            attempt=int(self._rest["attempt"][position]),
            scores=self._rest["scores"][position].as_py(),
            reason=self._rest["reason"][position].as_py(),
        )


def stored_columns(files: ShardFiles, summary: Summary, names: tuple[str, ...]) -> dict[str, Any]:
    """Read columns of the stored samples of a shard by its json: numbers as arrays, texts as Arrow arrays.

    Raises:
        VerificationError: the Parquet file is missing or damaged.
    """
    all_stored = summary["ok"] == summary["planned"]
    table = read_rows(files, summary, names if all_stored else (*names, "status"))
    if not all_stored:
        table = table.filter(pc.equal(table["status"], "ok"))
    columns = {name: table[name] for name in names}
    return {
        name: column.combine_chunks() if pa.types.is_string(column.type) else column.to_numpy()
        for name, column in columns.items()
    }


def sample_rows(files: ShardFiles, summary: Summary) -> list[SampleRow]:
    """Read the rows of all planned samples of a shard, failed and dropped ones too.

    Raises:
        VerificationError: the Parquet file is missing or damaged.
    """
    return [SampleRow(**row) for row in read_rows(files, summary).to_pylist()]


def read_rows(files: ShardFiles, summary: Summary, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the Parquet file of a shard whose json is ``summary``, or some columns: a row per planned sample.

    Raises:
        VerificationError: it is missing or damaged.
    """
    table: pa.Table = _of_sidecar(files, summary, lambda data: read_sidecar(data, columns))
    if len(table) != summary["planned"]:
        raise _damaged(files, f"{len(table)} rows, expected {summary['planned']}")
    return table


def label_range(files: ShardFiles, summary: Summary) -> tuple[int, int] | None:
    """Return the lowest and the highest label of the planned samples of a shard, as its Parquet file notes them.

    Raises:
        VerificationError: it is missing or damaged.
    """
    noted: tuple[int, int] | None = _of_sidecar(files, summary, lambda data: number_range(data, "label"))
    return noted


def _of_sidecar(files: ShardFiles, summary: Summary, read: Callable[[pa.Buffer], Any]) -> Any:
    """Return what ``read`` makes of the Parquet file, whose bytes are those that the json states."""
    try:
        data = read_regular(files.parquet, files.parquet.stat().st_size)
        if sha256_bytes(data) != summary["parquet"]["sha256"]:
            raise ValueError("other bytes than its json states")
        return read(pa.py_buffer(data))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise _damaged(files, "no such file") from None
    except ValueError as error:
        raise _damaged(files, str(error)) from None


@contextmanager
def opened(tar: Path) -> Iterator[ReadRange]:
    """Open a tar once for many reads.

    Raises:
        VerificationError: there is none, or something else under its name.
    """
    descriptor = _Descriptor(tar)
    yield lambda offset, nbytes: os.pread(descriptor.number, nbytes, offset)


class _Descriptor:
    """An open tar, closed when nobody holds it any more."""

    def __init__(self, tar: Path):
        advice = _how_to_find_out(tar.parent)
        try:
            self.number = os.open(tar, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait for its writer
        except (FileNotFoundError, NotADirectoryError):
            raise VerificationError(f"{tar}: missing; {advice}") from None
        if not stat.S_ISREG(os.fstat(self.number).st_mode):
            raise VerificationError(f"{tar}: no regular file; {advice}")

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class _Tar:
    """A tar that stays open between reads, as long as it is among the last that were opened.

    Opening costs more than reading a small image; and a training may have more shards than a process open files.
    """

    _lock = threading.Lock()
    _kept: deque["weakref.ref[_Tar]"] = deque()

    def __init__(self, path: Path):
        self._path = path
        self._held: _Descriptor | None = None

    def __call__(self, offset: int, nbytes: int) -> bytes:
        # Held by this call as well: another thread that lets go of it meanwhile does not close it.
        held = self._held or self._open()
        return os.pread(held.number, nbytes, offset)

    def _open(self) -> _Descriptor:
        with self._lock:
            held = self._held
            if held is None:
                held = self._held = _Descriptor(self._path)
                self._kept.append(weakref.ref(self))
            while len(self._kept) > KEPT_DESCRIPTORS:
                oldest = self._kept.popleft()()
                if oldest is not None:
                    oldest._held = None
        return held


def _damaged(files: ShardFiles, reason: str) -> VerificationError:
    return VerificationError(f"{files.parquet}: missing or damaged ({reason}); {_how_to_find_out(files.folder)}")


def _how_to_find_out(folder: Path) -> str:
    return f"run `{typed(['shards', 'verify', str(folder)])}`"
