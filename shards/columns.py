"""Reads the side columns of a set: captions, numbers and vectors beside its images, by shard and row.

In: a dataset folder with ``columns/NAME/`` (format: `column_files`). Out: values; of several captions, or of vectors
for several showings, the one of this showing, as a function of nothing but seed, image and showing.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from synclones.base.draws import hash64
from synclones.base.errors import InputError
from synclones.shards.column_files import (
    TOKENS,
    ColumnFiles,
    ColumnType,
    column_names,
    open_column,
    read_values,
    values_hash,
)
from synclones.shards.index import present_split, shard_names

CACHE_BYTES = 1 << 30  # a window of 64 shards of 10,000 vectors of 512 halves is 0.66 GB
_OF_CAPTIONS = 0xCA971025  # so that the choice of a caption knows nothing of other draws with the same numbers
Rows = int | Sequence[int] | np.ndarray
AtHand = Callable[[Path], AbstractContextManager[Any]]


@dataclass(frozen=True)
class _Values:
    index: np.ndarray
    values: Any
    num_bytes: int


class SideColumns:
    """The columns of a dataset folder; a folder without any has no names. Safe to use from several threads.

    Attributes:
        folder: the dataset folder.
        names: of its columns, sorted.
    """

    def __init__(
        self,
        folder: Path | str,
        split: str | None = None,
        *,
        cache_bytes: int = CACHE_BYTES,
        at_hand: AtHand = nullcontext,
    ):
        """Look which columns there are.

        Args:
            split: read from the folder by default.
            cache_bytes: how much of what was read is kept for the next time, all columns together.
            at_hand: a context in which a file of a column has its bytes, for folders that are mirrors of a store.
        """
        self.folder = Path(folder)
        self.names = tuple(column_names(self.folder))
        self._shards = shard_names(self.folder, split or present_split(self.folder))
        self._kept: OrderedDict[tuple[str, int], _Values] = OrderedDict()
        self._cache_bytes, self._at_hand, self._lock = cache_bytes, at_hand, threading.Lock()
        self._columns: dict[str, SideColumn] = {}

    def column(self, name: str) -> "SideColumn":
        """Return a column.

        Raises:
            InputError: there is none of this name.
            VerificationError: its ``column.json`` is broken.
        """
        if name not in self._columns:
            self._columns[name] = SideColumn(self, open_column(self.folder, name))
        return self._columns[name]

    def drawn(self, name: str, shard: int, row: int, showing: int, seed: int) -> Any:
        """Return the value of one image for one showing, as `SideColumn.drawn`."""
        return self.column(name).drawn(shard, row, showing, seed)

    def hashes(self, files: ColumnFiles) -> list[str]:
        """Return the sha256 of the values of every shard of a column, in order.

        Raises:
            VerificationError: as `column_files.values_hash`.
        """
        return [values_hash(files, shard) for shard in self._shards]

    def values(self, files: ColumnFiles, shard: int) -> _Values:
        """Return the values of a shard, from memory or from the disk.

        Raises:
            InputError: they are token ids (`token_files`).
            VerificationError: as `column_files.read_values`.
        """
        if files.type.kind == TOKENS:
            raise InputError(f"{files.folder}: holds {files.type}, which a training alone reads; name another column")
        key = (files.name, shard)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        # Read outside the lock: two threads may read the same shard, and none waits for another one's.
        with self._at_hand(files.values(self._shards[shard])):
            table = read_values(files, self._shards[shard])
        values = _in_memory(table, files.type)
        with self._lock:
            self._kept[key] = values
            while sum(kept.num_bytes for kept in self._kept.values()) > self._cache_bytes and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return values


class SideColumn:
    """One column, by shard and row: the number of a shard in its set, and of a stored image in its shard, from 0.

    Attributes:
        name: of the column.
        type: what its values are.
    """

    def __init__(self, columns: SideColumns, files: ColumnFiles):
        self.name, self.type = files.name, files.type
        self._columns, self._files = columns, files

    def hashes(self) -> list[str]:
        """Return the sha256 of the values of every shard, in order: what the column is known by.

        Raises:
            VerificationError: the values of a shard are missing, or belong to another shard.
        """
        return self._columns.hashes(self._files)

    def index(self, shard: int) -> np.ndarray:
        """Return the number in the set of each image of a shard, int64[n]: what rows are checked by."""
        return self._columns.values(self._files, shard).index

    def read(self, shard: int, rows: Rows) -> pa.Array | np.ndarray:
        """Read the values of some rows.

        Returns:
            Arrays: float16 or float32 [n, k] or [n, showings, k], of NaN where there is none. Everything else: an Arrow
            array of n strings, lists of strings or numbers, null where there is none.

        Raises:
            VerificationError: the shard's values are missing or damaged, or belong to another shard.
        """
        values, wanted = self._columns.values(self._files, shard).values, np.atleast_1d(np.asarray(rows, np.int64))
        if isinstance(values, np.ndarray):
            return values[wanted]
        return values.take(pa.array(wanted))

    def drawn(self, shard: int, row: int, showing: int, seed: int) -> Any:
        """Return the value of an image for its showing number ``showing``, from 0: a function of its arguments alone.

        Of several texts one is drawn by (seed, the image's number in the set, showing); of an array with showings it is
        row ``showing`` modulo their number. Everything else is the same at each showing. None where there is no value,
        but NaN in arrays.

        Raises:
            VerificationError: as `read`.
        """
        kept = self._columns.values(self._files, shard)
        if isinstance(kept.values, np.ndarray):
            value = kept.values[row]
            return value[showing % len(value)] if value.ndim == 2 else value
        if self.type.kind != "texts":
            return kept.values[row].as_py()
        texts = kept.values[row].values
        if not texts:
            return None
        return texts[chosen_text(int(kept.index[row]), showing, seed, len(texts))].as_py()

    def caption(self, shard: int, row: int, showing: int, seed: int) -> str:
        """Return the text of an image for one showing, as `drawn`; empty where it has none.

        Raises:
            InputError: the column holds no texts.
            VerificationError: as `read`.
        """
        if self.type.kind not in ("text", "texts"):
            raise InputError(f"{self._files.folder}: holds {self.type}, expected captions; name a column of texts")
        return self.drawn(shard, row, showing, seed) or ""


def chosen_text(index: int, showing: int, seed: int, count: int) -> int:
    """Return which of ``count`` texts the image with this number in its set has at a showing."""
    return int(hash64(_OF_CAPTIONS, seed, index, showing)) % count


def _in_memory(table: pa.Table, type: ColumnType) -> _Values:
    index, values = table["index"].to_numpy(), table["value"].combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # what pyarrow makes of no rows, in some releases
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], type.arrow)
    if type.kind == "array":
        numbers = values.values.to_numpy(zero_copy_only=False).reshape(-1, *type.shape)
        numbers = numbers[values.offset : values.offset + len(values)]
        return _Values(index, numbers, numbers.nbytes + index.nbytes)
    return _Values(index, values, values.nbytes + index.nbytes)
