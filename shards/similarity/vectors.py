"""Embeddings of images as rows of whole numbers, block by block or some of them: what neighbours are sought among.

In: parts of float vectors (a column, files that others made). Out: units: each vector scaled to length 2^15 and
rounded. Products of such rows are whole numbers that float64 adds without rounding, so that a score depends on nothing
but its two vectors: not on blocks, threads or the order of a sum.
"""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate

import numpy as np

from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.shards.column_files import ColumnFiles, checked_record, read_values
from synclones.shards.column_makers import ColumnSet

UNIT = 2**15  # of one number; a score is a product of two, divided by its square
BLOCK_ROWS = 2**14


class Vectors(ABC):
    """Vectors by position, part after part. Safe to use from several threads.

    Attributes:
        width: how many numbers each has.
        counts: how many vectors each part has.
    """

    def __init__(self, width: int, counts: Sequence[int]):
        self.width, self.counts = width, tuple(counts)
        self.starts = [0, *accumulate(self.counts)]

    def __len__(self) -> int:
        return self.starts[-1]

    @abstractmethod
    def part(self, number: int) -> np.ndarray:
        """Read the vectors of a part: float16 or float32[n, width].

        Raises:
            VerificationError: they are damaged, or not those that were embedded.
        """

    @cached_property
    @abstractmethod
    def sha256(self) -> str:
        """Identity of all vectors."""

    def blocks(self, at_most: int = 2**62) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (position of the first, units float32[n, width]) of all vectors in order, at most so many at once."""
        rows = min(at_most, BLOCK_ROWS)
        for number, start in enumerate(self.starts[:-1]):
            vectors = self.part(number)
            for first in range(0, len(vectors), rows):
                yield start + first, units(vectors[first : first + rows])

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Return the units of some vectors, given by ascending int64[m]: float32[m, width]."""
        taken = np.empty((len(positions), self.width), np.float32)
        done = 0
        while done < len(positions):
            number = bisect_right(self.starts, int(positions[done])) - 1
            end = int(np.searchsorted(positions, self.starts[number + 1]))
            taken[done:end] = units(self.part(number)[positions[done:end] - self.starts[number]])
            done = end
        return taken


class ColumnVectors(Vectors):
    """The column of a set."""

    def __init__(self, shards: ColumnSet, files: ColumnFiles):
        """Look which shards there are; nothing is read.

        Raises:
            VerificationError: the json of a shard is missing, or of another set.
        """
        self._files, self._names = files, shards.shards
        self._summaries = [shards.summary(name) for name in self._names]
        super().__init__(files.type.shape[0], [summary["ok"] for summary in self._summaries])

    def part(self, number: int) -> np.ndarray:
        values = read_values(self._files, self._names[number], self._summaries[number])["value"].combine_chunks()
        flat = values.values.to_numpy(zero_copy_only=False)
        start = values.offset * self.width
        vectors: np.ndarray = flat[start : start + len(values) * self.width].reshape(-1, self.width)
        return vectors

    @cached_property
    def sha256(self) -> str:
        """Identity of all vectors: the hashes of the column's files."""
        return sha256_bytes(
            canonical_json([checked_record(self._files, summary)["sha256"] for summary in self._summaries])
        )


def units(vectors: np.ndarray) -> np.ndarray:
    """Return float32[n, d] of whole numbers: vectors scaled to length 2^15 and rounded; zeros for one without a length.

    A vector without a length is zero, or holds a number that is not finite.
    """
    exact = np.asarray(vectors, dtype=np.float64)
    with np.errstate(all="ignore"):
        lengths = np.sqrt((exact * exact).sum(axis=1, keepdims=True))
        scaled = np.rint(exact * (UNIT / lengths))
    sound = np.isfinite(lengths) & (lengths > 0)
    return np.where(sound, scaled, 0).astype(np.float32)
