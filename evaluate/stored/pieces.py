"""What has been predicted so far, kept while a long prediction runs: a kill costs about twenty seconds.

In: the logits of batches by number. Out: files in ``logits/KEY-BATCHSIZE.parts/``, each with its own digest, and what
is sound among them when the same command runs again.
"""

import shutil
import time
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.json_file import read_regular
from synclones.evaluate.stored.tensors import tensor_bytes

SECONDS = 20.0
"""After how long a file is written; a batch that takes longer is one by itself."""
NAMES = ("logits", "labels", "index")
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""float32[n, classes], int64[n], int64[n]: logits, labels, the images' numbers."""


class Pieces:
    """The batches of one prediction that one process computes; the numbers of processes differ."""

    def __init__(self, folder: Path, key: str, batch_size: int):
        """``folder`` is made with the first file; ``key`` names the prediction, whose batches are of ``batch_size``."""
        self.key, self.folder = key, folder / f"{key}-{batch_size}.parts"
        self._waiting: dict[int, Batch] = {}
        self._written = time.monotonic()

    def read(self, most_bytes: int) -> dict[int, Batch]:
        """Return the batches of all sound files, by number; what is damaged or another's is passed over.

        Args:
            most_bytes: no file is larger.
        """
        batches: dict[int, Batch] = {}
        for path in sorted(self.folder.glob("*.safetensors")) if self.folder.is_dir() else ():
            batches |= _read(path, self.key, most_bytes)
        return batches

    def add(self, number: int, batch: Batch) -> None:
        """Keep a batch; written with others after a while."""
        self._waiting[number] = batch
        if time.monotonic() - self._written >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            numbers = np.array(sorted(self._waiting))
            sizes = np.array([len(self._waiting[int(number)][1]) for number in numbers])
            parts = zip(*(self._waiting[int(number)] for number in numbers), strict=True)
            tensors = {"numbers": numbers, "sizes": sizes}
            tensors |= {name: np.concatenate(part) for name, part in zip(NAMES, parts, strict=True)}
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{int(numbers[0]):08d}.safetensors"
            write_atomic(path, tensor_bytes(tensors | {"sha256": _digest(tensors, self.key)}))
        self._waiting, self._written = {}, time.monotonic()

    def remove(self) -> None:
        """Remove the files of this prediction, those of other sizes of batches too."""
        for folder in self.folder.parent.glob(f"{self.key}-*.parts"):
            shutil.rmtree(folder, ignore_errors=True)


def remove_finished(folder: Path) -> None:
    """Remove the pieces of predictions whose file of all is in ``folder``: a kill came between the two."""
    for parts in folder.glob("*.parts"):
        if (folder / f"{parts.name.partition('-')[0]}.safetensors").is_file():
            shutil.rmtree(parts, ignore_errors=True)


def _digest(tensors: dict[str, np.ndarray], key: str) -> np.ndarray:
    joined = b"".join(np.ascontiguousarray(tensors[name]).tobytes() for name in sorted(tensors))
    return np.frombuffer(sha256_bytes(key.encode() + joined).encode(), dtype=np.uint8)


def _read(path: Path, key: str, most_bytes: int) -> dict[int, Batch]:
    try:
        tensors = load(read_regular(path, most_bytes))
        stated = tensors.pop("sha256")
        if not np.array_equal(stated, _digest(tensors, key)):
            return {}
        ends = np.cumsum(tensors["sizes"])[:-1]
        parts = zip(*(np.split(tensors[name], ends) for name in NAMES), strict=True)
        return dict(zip(tensors["numbers"].tolist(), parts, strict=True))
    except (SafetensorError, KeyError, ValueError, OSError):
        return {}
