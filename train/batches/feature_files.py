"""Features of images in files that are whole or absent, mapped into memory: what a frozen network makes of a set.

In: blocks of `record` rows, numbered. Out: rows by number. Each file holds 2,048 rows and has the SHA-256 of its bytes
in its name, so that a listing says what is there, and reading it whether it is right.
"""

import io
import re
import sys
from collections.abc import Container
from pathlib import Path

import numpy as np

from synclones.base.errors import VerificationError
from synclones.base.files import sha256_bytes, sha256_file, write_atomic

ROWS_PER_FILE = 2048
NAME = re.compile(r"(\d{5,})-([0-9a-f]{64})\.npy")


def record(width: int) -> np.dtype:
    """Return the type of a row: features float32[width], class and number of the image, weight 0 for a damaged one."""
    return np.dtype([("features", "<f4", (width,)), ("label", "<i8"), ("index", "<i8"), ("weight", "<f4")])


class FeatureFiles:
    """The files of one set in a folder of their own."""

    def __init__(self, folder: Path, rows: int):
        """Prepare to read or write ``rows`` rows; nothing is read yet."""
        self.folder, self.rows = folder, rows
        self._mapped: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return -(-self.rows // ROWS_PER_FILE)

    def span(self, number: int) -> range:
        """Return which rows a file holds."""
        return range(number * ROWS_PER_FILE, min((number + 1) * ROWS_PER_FILE, self.rows))

    def whole(self, numbers: Container[int]) -> dict[int, str]:
        """Return the names of those of the files ``numbers`` that are there and right; damaged ones are told of."""
        listed = [match for match in (NAME.fullmatch(path.name) for path in self.folder.glob("*.npy")) if match]
        names = {}
        for match in sorted(listed, key=lambda match: match[0]):
            number, path = int(match[1]), self.folder / match[0]
            if number not in numbers or number in names:
                continue
            if sha256_file(path) == match[2]:
                names[number] = match[0]
            else:
                print(f"{path}: differs from the hash in its name; made again", file=sys.stderr, flush=True)
        return names

    def write(self, number: int, rows: np.ndarray) -> str:
        """Write a file, whole or not at all; return its name.

        Raises:
            ValueError: not as many rows as the file has.
        """
        if len(rows) != len(self.span(number)):
            raise ValueError(f"{len(rows)} rows for file {number}")
        buffer = io.BytesIO()
        np.save(buffer, rows, allow_pickle=False)
        data = buffer.getvalue()
        name = f"{number:05d}-{sha256_bytes(data)}.npy"
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / name, data)
        for damaged in self.folder.glob(f"{number:05d}-*.npy"):  # which `whole` has told of
            if damaged.name != name:
                damaged.unlink()
        return name

    def open(self, names: dict[int, str]) -> None:
        """Map all files into memory, by what `whole` and `write` returned on all processes together.

        Raises:
            VerificationError: one is missing or damaged.
        """
        for number in range(len(self)):
            path = self.folder / names.get(number, f"{number:05d}-*.npy")
            try:
                mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            except (FileNotFoundError, ValueError, EOFError):
                raise VerificationError(f"{path}: missing or damaged; run the same command again") from None
            self._mapped[number] = mapped

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of any numbers, int64[n], in their order."""
        files, within = np.divmod(rows, ROWS_PER_FILE)
        read = np.empty(len(rows), dtype=self._mapped[0].dtype)
        for number in np.unique(files):
            mine = files == number
            read[mine] = self._mapped[int(number)][within[mine]]
        return read
