"""A labelled dataset folder as training reads it: groups of images by position, each checked when it is read.

In: a finished folder. Out: `Picture`s (decoded pixels with label and index). Safe to use from several threads.
"""

import os
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import parse_json
from synclones.shards.index import read_summary
from synclones.shards.read import ShardFolder
from synclones.shards.schema import ShardFiles, sample_key
from synclones.shards.sidecar import read_sidecar
from synclones.shards.sources.decode import decode_image

COLUMNS = ("index", "label", "offset", "nbytes", "crc32", "jpg_offset", "jpg_size", "json_offset", "json_size")
CACHED_SHARDS = 128  # about 1 MB each: more than one window of the training order


@dataclass(frozen=True)
class Picture:
    """One decoded image."""

    pixels: np.ndarray
    """uint8[h, w, 3]."""
    label: int
    index: int


class LabelledSource:
    """A folder whose images all have labels, addressed by shard and group.

    Attributes:
        shards: the names of its shards.
        groups_per_shard: how many groups each of them holds.
    """

    def __init__(self, folder: Path | str, images_per_group: int = 1, split: str | None = None):
        """``images_per_group`` > 1: a group is that many images of one caption; captions with fewer are left out.
        ``split``: read from the folder by default.

        Raises:
            InputError: no shards, no labels, or no group at all.
        """
        self._shards = ShardFolder(folder, split)
        self.folder, self.split, self.shards = self._shards.folder, self._shards.split, self._shards.shards
        self._tars = {shard: str(ShardFiles(self.folder, shard).tar) for shard in self.shards}
        self.class_ids, self.images_per_group = self._shards.class_ids, images_per_group
        self._columns = lru_cache(maxsize=CACHED_SHARDS)(self._read_columns)
        self._groups = lru_cache(maxsize=CACHED_SHARDS)(self._find_groups)
        self.groups_per_shard = [self._count_groups(shard) for shard in self.shards]
        if not sum(self.groups_per_shard):
            wanted = f"caption with {images_per_group} images" if images_per_group > 1 else "image"
            raise InputError(f"{self.folder}: holds no {wanted}; generate more, or lower --images-per-group")

    def content_hash(self) -> str:
        """The identity of the folder."""
        return self._shards.content_hash()

    def rows_of_group(self, shard: str, group: int) -> np.ndarray:
        """Numbers, among the shard's stored samples, of the images in a group: int64[images_per_group]."""
        rows: np.ndarray = self._groups(shard)[group]
        return rows

    def locate(self, shard: str, row: int) -> tuple[int, int]:
        """(index, label) of a stored sample, from the sidecar."""
        columns = self._columns(shard)
        return int(columns["index"][row]), int(columns["label"][row])

    def read(self, shard: str, row: int) -> Picture:
        """One stored sample, checked and decoded.

        Raises:
            VerificationError: the sample differs from its sidecar, or cannot be decoded; names shard and sample.
        """
        columns = {name: int(values[row]) for name, values in self._columns(shard).items()}
        data = self._read_bytes(shard, columns["offset"], columns["nbytes"])
        if len(data) != columns["nbytes"] or zlib.crc32(data) != columns["crc32"]:
            raise VerificationError(
                f"{self._where(shard, columns)} is damaged; run `synclones shards verify {self.folder}`"
            )
        start = columns["jpg_offset"] - columns["offset"]
        pixels = decode_image(data[start : start + columns["jpg_size"]], where=self._where(shard, columns))
        return Picture(pixels, columns["label"], columns["index"])

    def _where(self, shard: str, columns: dict[str, int]) -> str:
        return f"{self._tars[shard]}: sample {sample_key(columns['index'])}"

    def _read_bytes(self, shard: str, offset: int, nbytes: int) -> bytes:
        path = self._tars[shard]
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise VerificationError(f"{path}: missing; run `synclones shards verify {self.folder}`") from None
        try:
            return os.pread(descriptor, nbytes, offset)
        finally:
            os.close(descriptor)

    def _read_columns(self, shard: str) -> dict[str, np.ndarray]:
        """The sidecar's columns of the stored samples; the whole sidecar is checked against its hash."""
        files = ShardFiles(self.folder, shard)
        try:
            data = files.parquet.read_bytes()
            if sha256_bytes(data) != read_summary(files.json)["parquet"]["sha256"]:
                raise ValueError("other bytes than its json states")
            table = read_sidecar(pa.py_buffer(data), [*COLUMNS, "status"])
        except (ValueError, FileNotFoundError):
            message = f"{files.parquet}: missing or damaged; run `synclones shards verify {self.folder}`"
            raise VerificationError(message) from None
        stored = table.filter(pc.equal(table["status"], "ok"))
        columns = {name: stored[name].to_numpy() for name in COLUMNS}
        self._check_labels(files, columns)
        return columns

    def _check_labels(self, files: ShardFiles, columns: dict[str, np.ndarray]) -> None:
        bad = np.flatnonzero((columns["label"] < 0) | (columns["label"] >= len(self.class_ids)))
        if len(bad):
            label, key = columns["label"][bad[0]], sample_key(columns["index"][bad[0]])
            known = f"expected 0 to {len(self.class_ids) - 1}; every image needs a label of the folder's classes"
            raise InputError(f"{files.parquet}: sample {key} has label {label}, {known}")

    def _count_groups(self, shard: str) -> int:
        if self.images_per_group == 1:
            count: int = read_summary(ShardFiles(self.folder, shard).json)["ok"]
            return count
        return len(self._groups(shard))

    def _find_groups(self, shard: str) -> np.ndarray:
        """Row numbers int64[groups, images_per_group]: stored samples of one shard that share a caption."""
        columns, size = self._columns(shard), self.images_per_group
        if size == 1:
            return np.arange(len(columns["index"]))[:, None]
        rows_of: dict[int, list[int]] = {}
        for row in range(len(columns["index"])):
            facts = self._read_bytes(shard, int(columns["json_offset"][row]), int(columns["json_size"][row]))
            rows_of.setdefault(_caption_of(facts, -1 - row), []).append(row)
        groups = [rows[i : i + size] for rows in rows_of.values() for i in range(0, len(rows) - size + 1, size)]
        return np.array(groups, dtype=np.int64).reshape(-1, size)


def _caption_of(facts: bytes, otherwise: int) -> int:
    """The ``caption_id`` in a sample's json, or ``otherwise`` when it names none."""
    try:
        found = parse_json(facts)
    except ValueError:
        return otherwise
    number = found.get("caption_id", otherwise) if isinstance(found, dict) else otherwise
    return number if type(number) is int else otherwise
