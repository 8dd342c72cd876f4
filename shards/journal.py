"""The journal of a growing shard: one checked line per finished batch, and what of it survives a kill.

In and out: ``.train-00000.part.jsonl``. Its first line says whose part it is ``{"format", "name", "plan_id"}``; every
other line is one batch ``{"batch", "start", "end", "crc32", "rows"}``. Each line is wrapped as
``{"line": ..., "line_crc32": ...}``. A batch's bytes are on disk before its line is, so a whole line proves a batch.
"""

import io
import zlib
from typing import Any

from synclones.base.errors import InputError
from synclones.base.json_file import canonical_json, parse_json
from synclones.shards.schema import ShardFiles, is_row

FORMAT = 1
_CHUNK = 1 << 20


def encode_line(record: dict[str, Any]) -> bytes:
    """One journal line with the crc32 of its record."""
    return canonical_json({"line": record, "line_crc32": zlib.crc32(canonical_json(record))}) + b"\n"


def header_record(name: str, plan_id: str) -> dict[str, Any]:
    """The first record: whose part this is."""
    return {"format": FORMAT, "name": name, "plan_id": plan_id}


def decode_line(line: bytes) -> dict[str, Any] | None:
    """The record of a line, or None when the line is torn or damaged."""
    try:
        wrapped = parse_json(line)
    except ValueError:  # also UnicodeDecodeError
        return None
    if not isinstance(wrapped, dict) or not isinstance(wrapped.get("line"), dict):
        return None
    record: dict[str, Any] = wrapped["line"]
    return record if wrapped.get("line_crc32") == zlib.crc32(canonical_json(record)) else None


def header_length(files: ShardFiles, plan_id: str) -> int:
    """Bytes of a sound first line, 0 when there is none. Errors: InputError when the part belongs to another plan."""
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


def good_batches(files: ShardFiles, header_bytes: int) -> tuple[list[dict[str, Any]], int]:
    """The leading batches whose journal line and bytes are both sound, and the journal's length up to there."""
    batches: list[dict[str, Any]] = []
    length = header_bytes
    if not header_bytes or not files.part.is_file():
        return batches, length
    with open(files.journal, "rb") as lines, open(files.part, "rb") as part:
        lines.seek(header_bytes)
        for line in lines:
            record = decode_line(line) if line.endswith(b"\n") else None
            if record is None or not _is_next(record, batches) or not _bytes_match(part, record):
                break
            batches.append(record)
            length += len(line)
    return batches, length


def _is_next(record: dict[str, Any], batches: list[dict[str, Any]]) -> bool:
    start, end, rows = record.get("start"), record.get("end"), record.get("rows")
    if record.get("batch") != len(batches) or start != (batches[-1]["end"] if batches else 0):
        return False
    return type(start) is type(end) is int and end >= start and isinstance(rows, list) and all(map(is_row, rows))


def _bytes_match(part: io.BufferedReader, record: dict[str, Any]) -> bool:
    part.seek(record["start"])
    left, crc = record["end"] - record["start"], 0
    while left > 0:
        data = part.read(min(left, _CHUNK))
        if not data:
            return False
        crc = zlib.crc32(data, crc)
        left -= len(data)
    return crc == record.get("crc32")
