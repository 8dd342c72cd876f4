"""Captions that a model has made so far, on disk as they come, so that a kill costs at most one batch.

In: records by key. Out: a JSONL file whose first line holds the settings; a line that a kill cut short is dropped. The
finished captions are written once, as Parquet, from the journal.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synclones.errors import InputError
from synclones.manifest import canonical_json, write_atomic

Record = dict[str, Any]


class Journal:
    """Records by key; every record holds its ``key``."""

    def __init__(self, path: Path, settings: Record):
        """Raises InputError when the file was made with other settings, or is no journal."""
        self.path, self._settings = path, settings
        self.records: dict[str, Record] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._load()
        else:
            write_atomic(path, canonical_json({"settings": settings}) + b"\n")
        self._file = path.open("ab")

    def _load(self) -> None:
        data = self.path.read_bytes()
        lines = data.split(b"\n")
        whole, sound = lines[:-1], 0
        try:
            there = json.loads(whole[0])["settings"] if whole else None
        except (ValueError, TypeError, KeyError):
            there = None
        if there is None:
            raise InputError(f"{self.path}: is no journal of captions; choose another --out")
        wanted = json.loads(canonical_json(self._settings))
        if there != wanted:
            keys = sorted(key for key in {*there, *wanted} if there.get(key) != wanted.get(key))
            told = ", ".join(f"{key} {there.get(key)!r} there, {wanted.get(key)!r} asked" for key in keys)
            raise InputError(f"{self.path}: made with other settings: {told}; choose another --out, or delete it")
        sound = len(whole[0]) + 1
        for line in whole[1:]:
            try:
                record = json.loads(line)
            except ValueError:
                break  # after a power failure the tail may be anything
            self.records[record["key"]] = record
            sound += len(line) + 1
        os.truncate(self.path, sound)

    def add(self, records: Iterable[Record]) -> None:
        """Append records, and see them on the disk before returning."""
        found = list(records)
        self._file.write(b"".join(canonical_json(record) + b"\n" for record in found))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records |= {record["key"]: record for record in found}

    def close(self, delete: bool = False) -> None:
        """Let go of the file, and with ``delete`` of what is in it: the finished captions hold the same."""
        self._file.close()
        if delete:
            self.path.unlink()


def write_captions(path: Path, rows: list[Record], facts: Record) -> None:
    """The finished captions as Parquet: ``caption``, ``class``, ``source_key`` and whatever else the rows hold."""
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"synclones.captions": canonical_json(facts)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=100_000)
    write_atomic(path, sink.getvalue().to_pybytes())
