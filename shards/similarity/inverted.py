"""Finds near vectors among more than one wants to look at: inverted lists of product-quantised vectors (FAISS).

In: `Vectors`, or index files that others made. Out: `Pairs` that hold most of the nearest. An index of ours is a folder
with ``settings.json``, ``trained.faiss`` and a file per million vectors; any number of processes divide the files, and
the same command goes on after a kill. Jegou, Douze, Schmid, "Product quantization for nearest neighbor search" (2011).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import remove_dead_temporaries, write_atomic
from synclones.base.json_file import pretty_json, read_json
from synclones.base.machine import cores
from synclones.shards.lock import claim, remove_locks
from synclones.shards.similarity.neighbours import Pairs, best, in_order, joined, scored
from synclones.shards.similarity.vectors import UNIT, Vectors

SETTINGS, TRAINED = "settings.json", "trained.faiss"
ROWS_PER_FILE = 2**20
_TRAINING_ROWS_PER_LIST, _LEAST_ROWS_PER_LIST = 64, 39  # FAISS warns below 39
_NUMBERS_PER_BYTE = 4


@dataclass(frozen=True, kw_only=True)
class InvertedSettings:
    """What an index depends on beside its vectors."""

    vectors_sha256: str
    width: int
    rows: int
    lists: int
    bytes_per_vector: int
    rows_per_file: int = ROWS_PER_FILE


def settings_for(vectors: Vectors) -> InvertedSettings:
    """Choose lists and bytes: about 4 sqrt(n) lists, a power of two, and a byte for every four numbers.

    Raises:
        InputError: so few vectors that comparing all of them is the way.
    """
    lists = 2 ** int(np.log2(4 * max(1, len(vectors)) ** 0.5))
    while lists > 1 and len(vectors) < lists * _LEAST_ROWS_PER_LIST:
        lists //= 2
    size = max(n for n in range(1, max(1, vectors.width // _NUMBERS_PER_BYTE) + 1) if vectors.width % n == 0)
    if len(vectors) < 256 * _LEAST_ROWS_PER_LIST:  # of 256 centroids for each byte
        raise InputError(f"--index: ivfpq for {len(vectors)} vectors, which are too few to train it; use --index flat")
    return InvertedSettings(
        vectors_sha256=vectors.sha256, width=vectors.width, rows=len(vectors), lists=lists, bytes_per_vector=size
    )


def load_faiss() -> Any:
    """Return the library.

    Raises:
        InputError: it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise InputError(
            "--index: needs FAISS, which is not installed; pip install 'synclones[retrieve]', or use --index flat"
        ) from None
    faiss.omp_set_num_threads(cores())  # it would take all cores of the machine, those of sibling processes too
    return faiss


def build_inverted(vectors: Vectors, folder: Path, settings: InvertedSettings) -> list[Path]:
    """Write what is missing of an index; return its files in order.

    Raises:
        InputError: FAISS is missing, or the folder holds an index of something else.
    """
    faiss = load_faiss()
    folder.mkdir(parents=True, exist_ok=True)
    _begin(folder, settings)
    # Trained by one process, before any of its files: what they hold depends on it.
    with _claimed(folder, "trained"):
        if not (folder / TRAINED).exists():
            write_atomic(folder / TRAINED, _bytes(faiss, _trained(faiss, vectors, settings)))
    starts = range(0, settings.rows, settings.rows_per_file)
    paths = [folder / f"part-{number:05d}.faiss" for number in range(len(starts))]
    for wait in (False, True):  # first what nobody else works on, then what a killed process left
        for path, start in zip(paths, starts, strict=True):
            held = None if path.exists() else claim(folder, path.stem, wait=wait)
            if held is not None:
                with held:
                    if not path.exists():
                        write_atomic(path, _bytes(faiss, _filled(faiss, vectors, folder, settings, start)))
    remove_dead_temporaries(folder)
    remove_locks(folder)
    return paths


def _claimed(folder: Path, name: str) -> Any:
    held = claim(folder, name, wait=True)
    assert held is not None, "a claim that waits is always granted"
    return held


def _begin(folder: Path, settings: InvertedSettings) -> None:
    with _claimed(folder, "settings"):
        path = folder / SETTINGS
        if path.exists() and read_json(path) != asdict(settings):
            raise InputError(f"{folder}: holds the index of other vectors; remove it")
        write_atomic(path, pretty_json(asdict(settings)))


def _trained(faiss: Any, vectors: Vectors, settings: InvertedSettings) -> Any:
    """Train the centroids on vectors at equal steps of the set, a number of them for each list."""
    wanted = max(settings.lists, 256) * _TRAINING_ROWS_PER_LIST
    positions = np.unique(np.linspace(0, settings.rows - 1, min(wanted, settings.rows)).astype(np.int64))
    factory = f"IVF{settings.lists},PQ{settings.bytes_per_vector}"
    index = faiss.index_factory(settings.width, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors.take(positions) / UNIT)
    return index


def _filled(faiss: Any, vectors: Vectors, folder: Path, settings: InvertedSettings, start: int) -> Any:
    index = faiss.read_index(str(folder / TRAINED))
    end = min(start + settings.rows_per_file, settings.rows)
    for first in range(start, end, 2**16):
        index.add(vectors.take(np.arange(first, min(first + 2**16, end))) / UNIT)
    return index


def _bytes(faiss: Any, index: Any) -> bytes:
    data: bytes = faiss.serialize_index(index).tobytes()
    return data


class InvertedIndex:
    """Index files in order, mapped into memory; the vectors of each follow those of the file before.

    Attributes:
        width: how many numbers a vector has.
    """

    def __init__(self, paths: Sequence[Path], probes: int):
        """Open the files; ``probes``: how many lists of each are searched.

        Raises:
            InputError: FAISS is missing, or a file is of another kind than is searched here.
            VerificationError: a file is damaged.
        """
        faiss = load_faiss()
        self._files = [_opened(faiss, path, probes) for path in paths]
        widths = {file.d for file in self._files}
        if len(widths) != 1:
            raise InputError(f"{paths[0].parent}: its indexes are of widths {sorted(widths)}; give one")
        self.width = int(widths.pop())
        self._starts = np.cumsum([0, *(file.ntotal for file in self._files)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def near(self, queries: np.ndarray, k: int) -> Pairs:
        """Return about the k nearest of each query, given as units, with the scores that the index estimates."""
        with ThreadPoolExecutor(cores(), thread_name_prefix="search") as pool:
            return best(joined(list(pool.map(lambda n: self._search(n, queries, k), range(len(self._files))))), k)

    def _search(self, number: int, queries: np.ndarray, k: int) -> Pairs:
        scores, rows = self._files[number].search(queries / np.float32(UNIT), min(k, self._files[number].ntotal))
        which = np.repeat(np.arange(len(queries)), rows.shape[1])
        pairs = Pairs(which, self._starts[number] + rows.ravel(), scores.ravel().astype(np.float64))
        return pairs.take(rows.ravel() >= 0)


def _opened(faiss: Any, path: Path, probes: int) -> Any:
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-120:]
        raise VerificationError(f"{path}: no index that FAISS reads ({reason}); remove it, or fetch it again") from None
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise InputError(f"{path}: measures another distance than the inner product; make it with metric_type ip")
    try:
        faiss.extract_index_ivf(index).nprobe = probes
    except RuntimeError:
        pass  # a flat or graph index has no lists
    return index


def nearest_of_index(index: InvertedIndex, vectors: Vectors | None, queries: np.ndarray, k: int, refine: int) -> Pairs:
    """Return k neighbours of each query: the best by exact score of ``refine`` times as many that the index names.

    ``vectors``: None where only the index is at hand; then its own scores count.
    """
    if vectors is None:
        return in_order(index.near(queries, k))
    near = index.near(queries, k * refine)
    return best(scored(vectors, queries, near.query, near.position), k)
