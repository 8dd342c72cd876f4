"""Token ids of captions beside a set: a side column whose values are mapped into memory, not read.

In and out: ``columns/NAME/`` as `column_files` describes it, with ``train-00000.ids`` for a Parquet file. It is,
little-endian and one behind the other: uint32[n], the number in the set of each stored image; uint32[n + 1], where the
captions of each begin among all of the shard, and where the last end; uint16[m, length], their ids. A caption that is
empty has no id but 0.
"""

import mmap
import os
import stat
import threading
from collections import OrderedDict
from hashlib import sha256
from pathlib import Path

import numpy as np

from synclones.base.errors import InputError, VerificationError
from synclones.shards.column_files import TOKENS, ColumnFiles, checked_record, open_column, values_hash
from synclones.shards.columns import chosen_text
from synclones.shards.index import own_summary, present_split, shard_names
from synclones.shards.schema import ShardFiles

MAPPED_SHARDS = 128  # each holds a descriptor, and a process may have 256 files open where least are allowed
MAX_ID = 2**16 - 1


def packed(index: np.ndarray, counts: np.ndarray, ids: np.ndarray) -> bytes:
    """Return the bytes of a file.

    Args:
        index: of the stored images, int[n].
        counts: captions of each, int[n].
        ids: of all captions in this order, int[m, length], at most `MAX_ID`.
    """
    starts = np.concatenate([[0], np.cumsum(counts)])
    return b"".join((index.astype("<u4").tobytes(), starts.astype("<u4").tobytes(), ids.astype("<u2").tobytes()))


class TokenShard:
    """The ids of one shard, as they lie in its file.

    Attributes:
        index: uint32[n].
        starts: uint32[n + 1].
        ids: uint16[m, length].
    """

    def __init__(self, data: mmap.mmap | bytes, rows: int, length: int):
        """Look at the bytes of a file.

        Raises:
            ValueError: this is none of so many rows and such a length.
        """
        before = 4 * rows + 4 * (rows + 1)
        if len(data) < before or (len(data) - before) % (2 * length):
            raise ValueError(f"{len(data)} bytes, which {rows} images and {length} ids do not make up")
        self.index = np.frombuffer(data, "<u4", rows)
        self.starts = np.frombuffer(data, "<u4", rows + 1, 4 * rows)
        self.ids = np.frombuffer(data, "<u2", offset=before).reshape(-1, length)
        sound = self.starts[0] == 0 and self.starts[-1] == len(self.ids)
        if not (sound and (np.diff(self.starts.astype(np.int64)) >= 0).all()):
            raise ValueError("its captions do not follow each other")


def map_tokens(files: ColumnFiles, shard: str, *, checked: bool = False) -> TokenShard:
    """Map the ids of a shard; every byte is compared with its hash, unless that was done before.

    Raises:
        VerificationError: they are missing or damaged, or belong to another shard.
    """
    path = files.values(shard)
    try:
        record = checked_record(files, own_summary(ShardFiles(files.set_folder, shard)))
        data = _mapped(path)
        if len(data) != record["bytes"] or not (checked or sha256(data).hexdigest() == record["sha256"]):
            raise ValueError("other bytes than its json states")
        return TokenShard(data, record["rows"], files.type.shape[0])
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise VerificationError(f"{path}: missing; run the same command again") from None
    except ValueError as error:
        raise VerificationError(f"{path}: damaged ({error}); remove it and run the same command again") from None


def _mapped(path: Path) -> mmap.mmap | bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait for its writer
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("no regular file")
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) if status.st_size else b""
    finally:
        os.close(descriptor)


class TokenColumn:
    """The token ids of a set's captions, by shard and row. Safe to use from several threads.

    Attributes:
        files: of the column.
        length: ids of a caption.
    """

    def __init__(self, folder: Path | str, name: str, split: str | None = None):
        """Open a column; no ids are read.

        Raises:
            InputError: there is none of this name, or it holds something else.
            VerificationError: its ``column.json`` is broken.
        """
        self.files = open_column(Path(folder), name)
        if self.files.type.kind != TOKENS:
            raise InputError(f"{self.files.folder}: holds {self.files.type}, expected token ids; name another column")
        self.length = self.files.type.shape[0]
        self._shards = shard_names(Path(folder), split or present_split(Path(folder)))
        self._mapped: OrderedDict[int, TokenShard] = OrderedDict()
        self._checked: set[int] = set()
        self._lock = threading.Lock()

    def hashes(self) -> list[str]:
        """Return the sha256 of the ids of every shard, in order.

        Raises:
            VerificationError: those of a shard are missing, or belong to another shard.
        """
        return [values_hash(self.files, shard) for shard in self._shards]

    def counts(self) -> tuple[int, int]:
        """Return how many captions there are, and how many of them lost their end.

        Raises:
            VerificationError: as `hashes`.
        """
        records = [checked_record(self.files, own_summary(ShardFiles(self.files.set_folder, s))) for s in self._shards]
        numbers = [[record.get(key) for key in ("captions", "cut")] for record in records]
        captions, cut = (sum(n for n in column if type(n) is int) for column in zip(*numbers, strict=True))
        return captions, cut

    def shard(self, number: int) -> TokenShard:
        """Return the ids of a shard, mapped.

        Raises:
            VerificationError: as `map_tokens`.
        """
        with self._lock:
            if number in self._mapped:
                self._mapped.move_to_end(number)
                return self._mapped[number]
        # Outside the lock: two threads may map the same shard, and none waits for another one's.
        mapped = map_tokens(self.files, self._shards[number], checked=number in self._checked)
        with self._lock:
            self._checked.add(number)
            self._mapped[number] = mapped
            while len(self._mapped) > MAPPED_SHARDS:
                self._mapped.popitem(last=False)
        return mapped

    def drawn(self, shard: int, row: int, showing: int, seed: int) -> np.ndarray:
        """Return the ids of the caption that an image has at a showing, uint16[length]; all 0 without one.

        Of several it is the one that `SideColumn.caption` returns.

        Raises:
            VerificationError: as `map_tokens`.
        """
        mapped = self.shard(shard)
        first, end = int(mapped.starts[row]), int(mapped.starts[row + 1])
        if first == end:
            return np.zeros(self.length, np.uint16)
        if end - first > 1:
            first += chosen_text(int(mapped.index[row]), showing, seed, end - first)
        ids: np.ndarray = mapped.ids[first]
        return ids
