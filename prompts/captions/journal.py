"""Keep the captions that a model has written so far on disk, so that a kill costs at most one batch.

In: records by key. Out: a JSONL file whose first line holds the settings; a line that a kill cut short is dropped. The
finished captions are written once, as Parquet, from the journal.
"""

import fcntl
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synclones.base.differences import differences
from synclones.base.errors import InputError
from synclones.base.files import append_durably, write_atomic
from synclones.base.json_file import canonical_json, parse_json

Record = dict[str, Any]
EVERY_S = 10.0


class Journal:
    """Records by key; every record holds its ``key``."""

    def __init__(self, path: Path, settings: Record):
        """Open or create the journal, and lock it.

        Raises:
            InputError: when another process writes it, it was made with other settings, or it is no journal.
        """
        self.path, self._settings = path, settings
        self.records: dict[str, Record] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel releases it when the process dies
        except BlockingIOError:
            raise InputError(f"{path}: another process is writing these captions; choose another --out") from None
        first = canonical_json({"settings": settings}) + b"\n"
        if len(first) > path.stat().st_size and first.startswith(path.read_bytes()):  # new, or killed in its first line
            os.truncate(path, 0)
            self._append([{"settings": settings}])
        else:
            self._load()

    def _load(self) -> None:
        data = self.path.read_bytes()
        lines = data.split(b"\n")
        whole = lines[:-1]
        try:
            earlier = parse_json(whole[0])["settings"] if whole else None
        except (ValueError, TypeError, KeyError):
            earlier = None
        if not isinstance(earlier, dict):
            raise InputError(f"{self.path}: is no journal of captions; choose another --out")
        wanted = parse_json(canonical_json(self._settings))
        if earlier != wanted:
            changes = differences(earlier, wanted)
            raise InputError(f"{self.path}: made with other settings: {changes}; choose another --out, or delete it")
        # Cut behind the last sound line, so that the next record does not continue a broken one.
        sound = len(whole[0]) + 1
        for line in whole[1:]:
            try:
                record = parse_json(line)
                self.records[record["key"]] = record
            except (ValueError, TypeError, KeyError):
                break  # after a power failure the tail may be anything
            sound += len(line) + 1
        os.truncate(self.path, sound)

    def add(self, records: Iterable[Record]) -> None:
        """Append records, and see them on the disk before returning."""
        added = list(records)
        self._append(added)
        self.records |= {record["key"]: record for record in added}

    def _append(self, records: list[Record]) -> None:
        data = b"".join(canonical_json(record) + b"\n" for record in records)
        append_durably(self._file, self.path.stat().st_size, data)

    def close(self, delete: bool = False) -> None:
        """Close the file, and with ``delete`` remove it: the finished captions hold the same."""
        if delete:
            self.path.unlink()
        self._file.close()


class Progress:
    """Reports of how far a long command is: now and then, and at the end."""

    def __init__(self, every_s: float = EVERY_S):
        self._every_s, self._reported = every_s, time.monotonic()

    def report(self, text: str, last: bool = False) -> None:
        """Print ``text`` to stderr, unless something was printed a moment ago."""
        if last or time.monotonic() - self._reported >= self._every_s:
            print(text, file=sys.stderr, flush=True)
            self._reported = time.monotonic()


def write_captions(path: Path, table: pa.Table, facts: Record) -> None:
    """Write the finished captions as Parquet: ``caption``, ``class``, ``source_key`` and other columns of ``table``."""
    table = table.replace_schema_metadata({"synclones.captions": canonical_json(facts)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=100_000)
    write_atomic(path, sink.getvalue().to_pybytes())
