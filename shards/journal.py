"""The journal of a growing shard: one checked line per finished batch, and what of it survives a kill.

In and out: ``.train-00000.part.jsonl``. Its first line says whose part it is ``{"format", "name", "plan_id"}``; every
other line is one batch ``{"batch", "start", "end", "crc32", "rows"}``. Each line is wrapped as
``{"line": ..., "line_crc32": ...}``. A batch's bytes are on disk before its line is, so a whole line proves a batch.
"""

import io
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from synclones.base.errors import InputError
from synclones.base.json_file import canonical_json, parse_json, read_regular
from synclones.shards.schema import STATUSES, SampleRow, ShardFiles, is_row

FORMAT = 1
MAX_JOURNAL_BYTES = 2**31
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class JournalBatch:
    """A stored batch, as its journal line describes it."""

    batch: int
    """Its number in the shard, from 0."""
    start: int
    """Where its bytes begin in the part, and end."""
    end: int
    crc32: int
    """Of these bytes."""
    rows: list[SampleRow]

    def record(self) -> dict[str, Any]:
        """Return the batch as a JSON object."""
        return vars(self) | {"rows": [row.to_dict() for row in self.rows]}


def encode_line(record: dict[str, Any]) -> bytes:
    """Encode one journal line with the crc32 of its record."""
    return canonical_json({"line": record, "line_crc32": zlib.crc32(canonical_json(record))}) + b"\n"


def header_record(name: str, plan_id: str) -> dict[str, Any]:
    """Return the first record: whose part this is."""
    return {"format": FORMAT, "name": name, "plan_id": plan_id}


def decode_line(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line, or None when the line is torn or damaged."""
    try:
        wrapped = parse_json(line)
    except ValueError:  # also UnicodeDecodeError
        return None
    if not isinstance(wrapped, dict) or not isinstance(wrapped.get("line"), dict):
        return None
    record: dict[str, Any] = wrapped["line"]
    return record if wrapped.get("line_crc32") == zlib.crc32(canonical_json(record)) else None


def header_length(files: ShardFiles, plan_id: str) -> int:
    """Return the bytes of a sound first line, 0 when there is none.

    Raises:
        InputError: the part belongs to another plan.
    """
    if not files.journal.is_file():
        return 0
    with open(files.journal, "rb") as lines:
        line = lines.readline()
    record = decode_line(line)
    if record is None:
        return 0
    if record.get("plan_id") != plan_id:
        raise InputError(
            f"{files.part}: unfinished shard of plan {str(record.get('plan_id'))[:16]}, expected plan {plan_id[:16]}; "
            "finish it with the settings it was started with, choose another --out, or delete the file"
        )
    return len(line) if line.endswith(b"\n") and record == header_record(files.name, plan_id) else 0


def good_batches(files: ShardFiles, header_bytes: int) -> tuple[list[JournalBatch], int]:
    """Return the leading batches whose journal line and bytes are both sound, and the journal's length up to there."""
    batches: list[JournalBatch] = []
    length = header_bytes
    if not header_bytes or not files.part.is_file():
        return batches, length
    with open(files.journal, "rb") as lines, open(files.part, "rb") as part:
        lines.seek(header_bytes)
        for line in lines:
            record = decode_line(line) if line.endswith(b"\n") else None
            batch = None if record is None else _next_batch(record, batches)
            if batch is None or not _bytes_match(part, batch):
                break
            batches.append(batch)
            length += len(line)
    return batches, length


def journalled_rows(files: ShardFiles) -> int:
    """Count the rows of all sound lines, for people: whether their bytes are sound too is left to `good_batches`."""
    if not files.journal.is_file():
        return 0
    with open(files.journal, "rb") as lines:
        records = [decode_line(line) or {} for line in lines]
    return sum(len(record["rows"]) for record in records if isinstance(record.get("rows"), list))


def counted_rows(files: ShardFiles) -> Counter[str]:
    """Count the rows of all whole lines by status, without decoding one: a hundred times as fast as `journalled_rows`.

    In canonical JSON no text holds the quoted word, since quotes in texts are escaped.
    """
    try:
        data = read_regular(files.journal, MAX_JOURNAL_BYTES)
    except (OSError, ValueError):
        return Counter()
    whole = data[: data.rfind(b"\n") + 1]
    return Counter({status: whole.count(f'"status":"{status}"'.encode()) for status in STATUSES})


def journalled_batches(files: ShardFiles) -> list[JournalBatch]:
    """Return the leading batches whose journal line is sound, for readers that check each sample's own crc32."""
    batches: list[JournalBatch] = []
    if not files.journal.is_file():
        return batches
    with open(files.journal, "rb") as lines:
        next(lines, b"")  # whose part it is
        for line in lines:
            record = decode_line(line) if line.endswith(b"\n") else None
            batch = None if record is None else _next_batch(record, batches)
            if batch is None:
                break
            batches.append(batch)
    return batches


def _next_batch(record: dict[str, Any], batches: list[JournalBatch]) -> JournalBatch | None:
    """Return the batch of a record if it follows ``batches`` and everything in it is sound."""
    try:
        batch = JournalBatch(**record)
    except TypeError:
        return None
    numbers, rows = (batch.batch, batch.start, batch.end, batch.crc32), record["rows"]
    if not all(type(number) is int for number in numbers) or not isinstance(rows, list):
        return None
    follows = batch.batch == len(batches) and batch.start == (batches[-1].end if batches else 0)
    if not (follows and batch.end >= batch.start and all(map(is_row, rows))):
        return None
    return replace(batch, rows=[SampleRow(**row) for row in rows])


def _bytes_match(part: io.BufferedReader, batch: JournalBatch) -> bool:
    part.seek(batch.start)
    left, crc = batch.end - batch.start, 0
    while left > 0:
        data = part.read(min(left, _CHUNK))
        if not data:
            return False
        crc = zlib.crc32(data, crc)
        left -= len(data)
    return crc == batch.crc32
