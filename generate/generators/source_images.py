"""The real images that a generation starts from, found by the prompt table's ``source_key``.

In: what ``--images`` names (shards of this project or another, or a folder of images), source keys. Out: square RGB
images. Every image is centre-cropped to a square and resized by Pillow's bicubic filter (antialiased, in whole
numbers: the same bytes on every machine), so that plain diffusers draws the same from them.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes, sha256_file
from synclones.base.json_file import canonical_json
from synclones.generate.generators.mended_sources import keep_as_planned, planned_sources
from synclones.prompts.table import PromptTable
from synclones.shards.sources.decode import bad_images, decode_image
from synclones.shards.sources.files import PassedOver, file_key, name_below, tar_key
from synclones.shards.sources.images import find_images
from synclones.shards.sources.tars import image_offsets, read_image

THREADS = 4
WHOLE_FILE = -1  # the offset of an image that is a file of its own
NAMED = 50  # bad images in one message
BAD_SOURCE = "source image unusable"  # the reason of rows that are dropped for theirs

OnBadSource = Literal["fail", "drop"]


class SourceImages:
    """The images of one source, addressed by their keys. Safe to use from several threads.

    Attributes:
        path: where they lie.
        source: the hash that their keys begin with, of file names and sizes.
        sha256: SHA-256 of the files' contents, which decides the bytes that are drawn.
    """

    def __init__(self, path: Path, on_bad: OnBadSource = "fail", out: Path | None = None, parent: Path | None = None):
        """Read every file once for its hash.

        Args:
            on_bad: what an image that cannot be used does: stop everything, or have its rows dropped.
            out: the dataset folder, in which `mended_sources` keeps what a mended file was when the set was planned.
            parent: the folder of an earlier version of the set, which may have such a record too.

        Raises:
            InputError: without images, or with two of one key.
        """
        self.path, self._on_bad, self._out = path, on_bad, out
        self._faults: dict[str, str] = {}
        passed = PassedOver()
        self.source, self._files, self._tars = find_images(path, passed)
        with ThreadPoolExecutor(THREADS) as pool:
            hashes = dict(zip(self._files, pool.map(sha256_file, self._files), strict=True))
        # A file that could not be used and was mended since keeps the name and hash that the set was planned with.
        self.source, mended = planned_sources([parent, out], self.source)
        self._hashes = {
            file: mended.get(name_below(path, file), hashes[file]) if mended else hashes[file] for file in hashes
        }
        self.sha256 = sha256_bytes(canonical_json([self.source, *self._hashes.values()]))
        entries = list(self._entries(passed))
        passed.tell(path)
        if not entries:
            raise InputError(f"--images: no images in the tars of {path}; give shards with jpg, png or webp members")
        # Fixed-width bytes: millions of keys in one block of memory, found by bisection.
        keys = np.array([key.encode() for key, _, _ in entries])
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._number, self._offset = (np.array([row[n] for row in entries], dtype=np.int64)[order] for n in (1, 2))
        twice = np.flatnonzero(self._keys[1:] == self._keys[:-1])
        if len(twice):
            raise InputError(
                f"--images: {path} has two images of one key, {self._keys[twice[0]].decode()!r}; repack it"
            )

    def _entries(self, passed: PassedOver) -> Iterator[tuple[str, int, int]]:
        """(key, file's number, offset) of every image."""
        for number, file in enumerate(self._files):
            if not self._tars:
                yield file_key(self.source, self.path, file), number, WHOLE_FILE
                continue
            for key, offset in image_offsets(file, passed):
                yield tar_key(self.source, file, key), number, offset

    def check(self, table: PromptTable, num_rows: int) -> None:
        """Look at all images that the first ``num_rows`` rows of a table start from, before one is drawn.

        Raises:
            InputError: naming the row that has no image here, or all images that cannot be used, unless their rows
                are to be dropped.
        """
        known = pa.array(self._keys.astype(object), pa.binary())
        for first, block in table.blocks(num_rows):
            column = block["source_key"].combine_chunks().cast(pa.binary())
            missing = pc.invert(pc.is_in(column, known))
            if pc.any(missing).as_py():
                at = pc.index(missing, True).as_py()
                raise InputError(f"{table.path}: row {first + at}: {self._fault(column[at].as_py().decode())}")
        wanted = {key: None for _, block in table.blocks(num_rows) for key in block["source_key"].unique().to_pylist()}
        self._faults = bad_images(wanted, self._read)
        if self._faults and self._on_bad == "fail":
            raise InputError(
                f"--images: {len(self._faults)} of {len(wanted)} images cannot be used: {self.bad()}; mend them and "
                "build the table again, or give --on-bad-source drop"
            )

    def bad(self) -> str:
        """Return the images that cannot be used, with the reasons; the first of them where there are many."""
        named = [f"{key.partition('/')[2]} ({fault})" for key, fault in self._faults.items()]
        return ", ".join(named[:NAMED]) + (f", and {len(named) - NAMED} more" if len(named) > NAMED else "")

    def unusable(self, keys: Iterable[str]) -> set[int]:
        """Return the positions of the keys whose image cannot be used, as far as it was looked at or read."""
        return {position for position, key in enumerate(keys) if key in self._faults}

    def _fault(self, key: str) -> str:
        if not key:
            return (
                "source_key is empty, but --images needs one; "
                "build the table with the recipe real-images, or from captions of real images"
            )
        if not key.startswith(f"{self.source}/"):
            return (
                f"source_key {key[:60]!r} is of another source than {self.path} ({self.source}); give its own --images"
            )
        return f"source_key {key[:100]!r} is of no image in {self.path}; give the --images that the table was made from"

    def read(self, keys: Sequence[str], side_px: int) -> list[Image.Image]:
        """Return square RGB images of ``side_px``, one per key; black ones for those that `unusable` then names.

        Raises:
            VerificationError: for one that does not decode, unless such rows are dropped.
        """

        def one(key: str) -> Image.Image:
            if key not in self._faults:
                try:
                    return square(decode_image(self._read(key), where=f"{self.path}: {key}"), side_px)
                except VerificationError as error:
                    self._note(key, error)
            return Image.new("RGB", (side_px, side_px))

        with ThreadPoolExecutor(THREADS) as pool:  # one after the other would keep a GPU waiting
            return list(pool.map(one, keys))

    def _note(self, key: str, error: VerificationError) -> None:
        """Remember an image whose header was right and whose pixels are not, or stop for it."""
        if self._on_bad == "drop":
            self._faults[key] = str(error)
            return
        choice = "put back what the file was"
        if self._out is not None and not self._tars:
            file = self._files[self._number[self._position(key)]]
            keep_as_planned(self._out, self.source, name_below(self.path, file), self._hashes[file])
            choice = "mend the file"
        raise VerificationError(f"{error}; {choice} and run the same command, or add --on-bad-source drop")

    def _position(self, key: str) -> int:
        at = int(np.searchsorted(self._keys, key.encode()))
        if at == len(self._keys) or self._keys[at].decode() != key:
            raise InputError(f"--images: {self._fault(key)}")
        return at

    def _read(self, key: str) -> bytes:
        at = self._position(key)
        file, offset = self._files[self._number[at]], int(self._offset[at])
        return file.read_bytes() if offset == WHOLE_FILE else read_image(file, offset)


def square(pixels: np.ndarray, side_px: int) -> Image.Image:
    """Return the largest centred square of uint8[h, w, 3], resized to ``side_px`` by Pillow, bicubic, antialiased."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    cut = Image.fromarray(np.ascontiguousarray(pixels[top : top + side, left : left + side]))
    return cut.resize((side_px, side_px), Image.Resampling.BICUBIC)
