"""Writes one shard so that a kill at any point costs at most the batch in hand, and never changes a byte.

In: batches of `Sample` and `FailedSample` in order. Out: ``train-00000.tar``, ``.parquet`` and, last, ``.json``. Until
then only hidden files exist: ``.train-00000.part`` and its journal, re-verified and reused by the next `ShardWriter`.
The caller holds the shard's `claim`; two writers on one shard are not this file's business.
"""

import io
import os
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from synclones.base.errors import InputError
from synclones.base.files import append_durably, sha256_bytes, sha256_file, sync, write_atomic
from synclones.base.json_file import pretty_json, read_json
from synclones.shards.journal import (
    JournalBatch,
    encode_line,
    good_batches,
    header_length,
    header_record,
    journalled_rows,
)
from synclones.shards.schema import (
    MEMBERS,
    PARQUET_SCHEMA,
    STATUSES,
    FailedSample,
    Sample,
    SampleRow,
    ShardFiles,
    check_sample,
    sample_key,
)
from synclones.shards.tar import encode_sample, trailer


def is_complete(folder: Path, name: str) -> bool:
    """Tell whether the shard is finished: its json is there and the tar and the parquet have the sizes it states."""
    files = ShardFiles(Path(folder), name)
    try:
        stated = read_json(files.json)
        sizes = [stated["tar"]["bytes"], stated["parquet"]["bytes"]]
        return sizes == [files.tar.stat().st_size, files.parquet.stat().st_size]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def stored_rows(folder: Path, name: str) -> int:
    """Count the planned samples of a shard that are in its batches or in the whole shard; 0 where nothing was begun."""
    files = ShardFiles(Path(folder), name)
    if is_complete(folder, name):
        return int(read_json(files.json)["planned"])
    return journalled_rows(files)


class ShardWriter:
    """A shard that grows batch by batch. After an exception close it and open it again: it goes on where it was."""

    def __init__(self, folder: Path, name: str, plan_id: str):
        """Open shard ``name`` of ``folder``, taking over what a killed run of the same plan left.

        Raises:
            InputError: the shard is complete, or the part belongs to another plan.
            OSError: from the disk.
        """
        self.files = ShardFiles(Path(folder), name)
        self.plan_id = plan_id
        if is_complete(folder, name):
            raise InputError(f"{self.files.json}: the shard is complete; skip it, or delete its three files to redo it")
        batches, journal_end = _recover(self.files, plan_id)
        self.next_batch = len(batches)
        self.rows = [row for batch in batches for row in batch.rows]
        self._end = batches[-1].end if batches else 0
        self._part = _open_for_update(self.files.part)
        self._journal = _open_for_update(self.files.journal)
        try:
            self._cut(journal_end)
        except BaseException:
            self.close()
            raise

    def _cut(self, journal_end: int) -> None:
        append_durably(self._part, self._end, b"")
        start = b"" if journal_end else encode_line(header_record(self.files.name, self.plan_id))
        self._journal_end = append_durably(self._journal, journal_end, start)
        sync(self.files.folder)

    def add_batch(self, batch_number: int, samples: Sequence[Sample | FailedSample]) -> None:
        """Store batch ``batch_number`` (0, 1, 2, ...), index ascending; on disk, with its journal line, on return.

        Raises:
            InputError: a batch out of order, or a sample that the format cannot hold.
            OSError: from the disk.
        """
        if batch_number != self.next_batch:
            raise InputError(
                f"{self.files.part}: batch {batch_number} was given, expected {self.next_batch}; add batches in order"
            )
        data, rows = self._encode(samples)
        end = append_durably(self._part, self._end, data)
        batch = JournalBatch(batch=batch_number, start=self._end, end=end, crc32=zlib.crc32(data), rows=rows)
        self._journal_end = append_durably(self._journal, self._journal_end, encode_line(batch.record()))
        self._end, self.next_batch = end, batch_number + 1
        self.rows += rows

    def _encode(self, samples: Sequence[Sample | FailedSample]) -> tuple[bytes, list[SampleRow]]:
        chunks: list[bytes] = []
        rows: list[SampleRow] = []
        end, last = self._end, self.rows[-1].index if self.rows else -1
        for sample in samples:
            if sample.index <= last:
                raise InputError(f"{self.files.part}: sample {sample.index} after {last}; give samples by rising index")
            check_sample(sample)
            data, places = encode_sample(sample) if isinstance(sample, Sample) else (b"", {})
            rows.append(_row(sample, data, places, end))
            chunks.append(data)
            end, last = end + len(data), sample.index
        self._check_members(rows)
        return b"".join(chunks), rows

    def _check_members(self, rows: list[SampleRow]) -> None:
        # Hugging Face refuses a tar whose samples have different members.
        first = next((row for row in chain(self.rows, rows) if row.status == "ok"), None)
        for row in rows:
            if first is not None and row.status == "ok" and bool(row.cls_size) != bool(first.cls_size):
                raise InputError(
                    f"{self.files.part}: sample {row.index} and sample {first.index}: one has a label and the "
                    "other has none; label all samples of a dataset or none"
                )

    def finish(self, extra: dict[str, Any] | None = None) -> dict[str, Any]:
        """Give the shard its final names and return its json: sha256, bytes and counts, with ``extra`` added.

        Steps: trailer, parquet, tar renamed, json, journal removed. A kill between any two is finished by the next
        writer with the same bytes, so ``extra`` must be a function of the plan alone (no time, host or path).
        """
        if not self.rows:
            raise InputError(f"{self.files.part}: no batch was added; a shard needs at least one planned sample")
        append_durably(self._part, self._end, trailer(self._end))
        columns = {name: [getattr(row, name) for row in self.rows] for name in PARQUET_SCHEMA.names}
        parquet = parquet_bytes(pa.table(columns, schema=PARQUET_SCHEMA))
        write_atomic(self.files.parquet, parquet)
        os.replace(self.files.part, self.files.tar)
        sync(self.files.folder)
        summary = self._summary(parquet) | (extra or {})
        write_atomic(self.files.json, pretty_json(summary))
        self.files.journal.unlink(missing_ok=True)
        self.close()
        return summary

    def _summary(self, parquet: bytes) -> dict[str, Any]:
        counts: dict[str, Any] = {status: sum(row.status == status for row in self.rows) for status in STATUSES}
        if reasons := _reasons(self.rows):
            counts["reasons"] = reasons
        first_ok = next((row for row in self.rows if row.status == "ok"), None)
        members = [] if first_ok is None else [m for m in MEMBERS if getattr(first_ok, f"{m}_offset")]
        return {
            "format": 1,
            "name": self.files.name,
            "plan_id": self.plan_id,
            "planned": len(self.rows),
            **counts,
            "first_index": self.rows[0].index,
            "last_index": self.rows[-1].index,
            "members": members,
            "tar": {"bytes": self.files.tar.stat().st_size, "sha256": sha256_file(self.files.tar)},
            "parquet": {"bytes": len(parquet), "sha256": sha256_bytes(parquet)},
        }

    def close(self) -> None:
        """Close the files; what is finished stays, for the next writer."""
        self._part.close()
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _reasons(rows: list[SampleRow]) -> dict[str, dict[str, int]]:
    """Status -> reason -> number of rows, of the rows that have a reason."""
    counters: dict[str, Counter[str]] = {}
    for row in rows:
        if row.reason:
            counters.setdefault(row.status, Counter())[row.reason] += 1
    return {status: dict(counter) for status, counter in counters.items()}


def parquet_bytes(table: pa.Table, use_dictionary: bool = True) -> bytes:
    """Encode the table as one parquet file: the same bytes for the same rows under one version of pyarrow.

    ``use_dictionary``: for values that repeat; of vectors it makes reading three times as long.
    """
    sink, how = pa.BufferOutputStream(), {"compression": "zstd", "compression_level": 3, "version": "2.6"}
    pq.write_table(table, sink, row_group_size=100_000, use_dictionary=use_dictionary, **how)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _row(sample: Sample | FailedSample, data: bytes, places: dict[str, tuple[int, int]], start: int) -> SampleRow:
    failed = isinstance(sample, FailedSample)
    where = {member: (start + offset, size) for member, (offset, size) in places.items()}
    return SampleRow(
        key=sample_key(sample.index),
        index=sample.index,
        status=sample.status if isinstance(sample, FailedSample) else "ok",
        reason=sample.reason,
        attempt=sample.attempt,
        seed=sample.seed,
        label=-1 if sample.label is None else sample.label,
        scores=sample.scores,
        offset=0 if failed else start,
        nbytes=len(data),
        crc32=zlib.crc32(data),  # of nothing: 0
        **{f"{member}_offset": where.get(member, (0, 0))[0] for member in MEMBERS},
        **{f"{member}_size": where.get(member, (0, 0))[1] for member in MEMBERS},
    )


def _recover(files: ShardFiles, plan_id: str) -> tuple[list[JournalBatch], int]:
    """Bring the folder back to what a running writer would have left; the good batches and the journal's length."""
    header_bytes = header_length(files, plan_id)  # refuses another plan before anything is touched
    for path in files.temporaries():
        path.unlink()
    files.json.unlink(missing_ok=True)  # incomplete, or we would not be here: it lies about the tar
    if header_bytes and not files.part.exists() and files.tar.exists():
        os.replace(files.tar, files.part)  # killed between the tar's rename and the json
    return good_batches(files, header_bytes)


def _open_for_update(path: Path) -> io.FileIO:
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is no regular file; move it away, and run the same command again")
    return io.FileIO(path, "r+", opener=lambda name, flags: os.open(name, flags | os.O_CREAT | os.O_NOFOLLOW, 0o644))
