"""Reads the samples of a finished dataset folder, one after the other or any of them, every one checked.

In: a folder of shards with their sidecars. Out: `Sample` objects; nothing is decoded unless asked, nothing extracted.
"""

import os
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from synclones.base.errors import InputError, VerificationError
from synclones.base.manifest import read_manifest
from synclones.shards.index import content_hash, present_split, read_summary, shard_names
from synclones.shards.schema import Sample, ShardFiles
from synclones.shards.sidecar import read_sidecar
from synclones.shards.stores.store import refuse_store
from synclones.shards.tar import decode_sample

Row = dict[str, Any]


class ShardFolder:
    """The complete shards of a folder. Safe to use from several threads.

    Attributes:
        split: which split of a set these are.
        shards: names of the complete shards, in order.
        num_samples: stored samples (status ok) of all of them.
        skipped: what `sequential` left out, as (shard, sample key or "", reason).
    """

    def __init__(self, folder: Path | str, split: str | None = None):
        """Find the shards of ``split``, which is read from the folder by default.

        Raises:
            InputError: no such folder, or no shards in it.
            VerificationError: the json of a shard is broken.
        """
        self.folder = Path(folder)
        refuse_store(folder)
        if not self.folder.is_dir():
            raise InputError(f"{folder}: no such folder; give one that `synclones generate` made")
        self.split = split or present_split(self.folder)
        self.shards = shard_names(self.folder, self.split)
        if not self.shards:
            raise InputError(f"{folder}: no finished shards; run `synclones generate --out {folder}`")
        self._summaries = [read_summary(ShardFiles(self.folder, name).json) for name in self.shards]
        self.num_samples: int = sum(summary["ok"] for summary in self._summaries)
        self._firsts = [summary["first_index"] for summary in self._summaries]
        self.skipped: list[tuple[str, str, str]] = []
        self._cached_rows = lru_cache(maxsize=8)(self._read_rows)

    @cached_property
    def class_ids(self) -> tuple[str, ...]:
        """The class of each label in order, from ``manifest.json``. InputError for a folder without labels."""
        classes = read_manifest(self.folder).get("classes")
        if not isinstance(classes, list) or not classes:
            raise InputError(f"{self.folder}: the images have no labels; give a folder whose prompts name classes")
        return tuple(str(class_id) for class_id in classes)

    def content_hash(self) -> str:
        """The identity of the folder; VerificationError while it is unfinished."""
        return content_hash(self.folder)

    def rows(self, shard: str) -> list[Row]:
        """The rows of a shard's parquet, one per planned sample. Raises VerificationError when it cannot be read."""
        return self._cached_rows(shard)

    def _read_rows(self, shard: str) -> list[Row]:
        path = ShardFiles(self.folder, shard).parquet
        try:
            rows: list[Row] = read_sidecar(path).to_pylist()
            return rows
        except (ValueError, OSError):
            raise VerificationError(
                f"{path}: missing or damaged; run `synclones shards verify {self.folder}`"
            ) from None

    def get(self, index: int) -> Sample:
        """The sample ``index`` by position in its tar. Raises InputError when the folder has none, or it failed."""
        place = bisect_right(self._firsts, index) - 1
        rows = self.rows(self.shards[place]) if place >= 0 else []
        position = bisect_left(rows, index, key=lambda row: row["index"])
        row = rows[position] if position < len(rows) else None
        if row is None or row["index"] != index:
            raise InputError(f"{self.folder}: no sample {index}; the folder holds {self._firsts[0]} and following")
        if row["status"] != "ok":
            raise InputError(f"{self.folder}: sample {index} has no image ({row['status']}: {row['reason']})")
        path = ShardFiles(self.folder, self.shards[place]).tar
        return _to_sample(self._read_bytes(path, row["offset"], row["nbytes"]), row, path)

    def _read_bytes(self, tar: Path, offset: int, nbytes: int) -> bytes:
        descriptor = os.open(tar, os.O_RDONLY)
        try:
            return os.pread(descriptor, nbytes, offset)
        finally:
            os.close(descriptor)

    def sequential(
        self, shards: Sequence[str] | None = None, *, on_bad_shard: Literal["fail", "skip"] = "fail"
    ) -> Iterator[Sample]:
        """The stored samples in order, each checked before it is given out.

        Damage raises VerificationError naming shard and sample, or with ``skip`` drops whole samples into ``skipped``.
        """
        for shard in self.shards if shards is None else shards:
            path = ShardFiles(self.folder, shard).tar
            try:
                rows = self.rows(shard)
                file = path.open("rb")
            except (VerificationError, OSError) as error:
                self._bad(shard, "", error, on_bad_shard)
                continue
            with file:
                for row in (row for row in rows if row["status"] == "ok"):
                    file.seek(row["offset"])
                    try:
                        sample = _to_sample(file.read(row["nbytes"]), row, path)
                    except VerificationError as error:
                        self._bad(shard, row["key"], error, on_bad_shard)
                        continue
                    yield sample

    def _bad(self, shard: str, key: str, error: Exception, policy: str) -> None:
        if policy == "fail":
            raise error if isinstance(error, VerificationError) else VerificationError(f"{shard}: {error}")
        self.skipped.append((shard, key, str(error)))


def _to_sample(data: bytes, row: Row, path: Path) -> Sample:
    if len(data) != row["nbytes"] or zlib.crc32(data) != row["crc32"]:
        raise VerificationError(f"{path}: sample {row['key']} is damaged; run `synclones shards verify {path.parent}`")
    members = decode_sample(data, row["index"], str(path))
    try:
        txt, jpg, facts = members["txt"].decode(), members["jpg"], members["json"]
    except (KeyError, UnicodeDecodeError):
        raise VerificationError(
            f"{path}: sample {row['key']} lacks its jpg, json or txt; run `synclones shards verify {path.parent}`"
        ) from None
    return Sample(
        index=row["index"],
        jpg=jpg,
        json=facts,
        txt=txt,
        label=None if row["label"] < 0 else row["label"],
        seed=row["seed"],
        attempt=row["attempt"],
        scores=row["scores"],
        reason=row["reason"],
    )
