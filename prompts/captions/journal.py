"""Keep the captions that a model has written so far on disk, so that a kill costs at most one batch.

In: batches of records. Out: a JSONL file per piece of the work; every line carries a checksum, and what a kill cut off
is dropped. Also the journal that earlier versions kept for all of a file, read only, and the finished Parquet file.
"""

import fcntl
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from synclones.base.differences import differences
from synclones.base.errors import InputError
from synclones.base.files import NO_LOCKS, append_durably, write_atomic
from synclones.base.json_file import canonical_json, parse_json
from synclones.shards.journal import decode_line, encode_line

Record = dict[str, Any]
FACTS = b"synclones.captions"
_BEGINNING = b'{"settings":'


class PieceJournal:
    """The finished batches of one piece, in order: a line each, behind a first line that says whose piece it is."""

    def __init__(self, path: Path, work_id: str, number: int):
        """Open or create the journal; the caller holds the piece. A torn or damaged end is cut off."""
        self._file = path.open("ab", buffering=0)
        self.batches, self._end = _sound(path.read_bytes(), _header(work_id, number))
        os.truncate(path, self._end)
        if not self._end:
            self._append(_header(work_id, number))

    def add(self, records: Sequence[Record]) -> None:
        """Append a batch, and see it on the disk before returning."""
        self._append({"batch": len(self.batches), "records": list(records)})
        self.batches.append(list(records))

    def _append(self, record: Record) -> None:
        self._end = append_durably(self._file, self._end, encode_line(record))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def read_piece(path: Path, work_id: str, number: int) -> list[list[Record]]:
    """Return the batches of a piece's journal, those before the first damaged line."""
    return _sound(path.read_bytes(), _header(work_id, number))[0]


def counted_rows(path: Path) -> int:
    """Count the records of a growing piece's whole lines, for people, without decoding them."""
    try:
        data = path.read_bytes()
    except OSError:
        return 0
    # In canonical JSON no text holds the quoted word, since quotes in texts are escaped.
    return data[: data.rfind(b"\n") + 1].count(b'"fault":"')


def _header(work_id: str, number: int) -> Record:
    return {"work": work_id, "piece": number}


def _sound(data: bytes, header: Record) -> tuple[list[list[Record]], int]:
    """Return the batches up to the first line that is torn, damaged or another piece's, and where they end."""
    batches, end = list[list[Record]](), 0
    for number, line in enumerate(data.split(b"\n")[:-1]):
        record = decode_line(line)
        if number == 0:
            if record != header:
                break
        elif record is None or record.get("batch") != number - 1 or not _are_records(record.get("records")):
            break
        else:
            batches.append(record["records"])
        end += len(line) + 1
    return batches, end


def _are_records(values: object) -> bool:
    return isinstance(values, list) and all(_is_record(value) for value in values)


def _is_record(value: object) -> bool:
    names = ("key", "caption", "fault")
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in names)


class EarlierJournal:
    """What an earlier version wrote: one journal a file of captions, of one process. It is read and never written."""

    def __init__(self, path: Path, settings: Mapping[str, Any]):
        """Read the journal, if there is one, and keep its writer away for as long as this process lives.

        Raises:
            InputError: when its process still runs, it was made with other settings, or it is no journal.
        """
        self.path = path
        self.records: dict[str, Record] = {}
        self._file: BinaryIO | None = None
        try:
            self._file = path.open("rb")
        except FileNotFoundError:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # its writers take it for themselves alone
        except BlockingIOError:
            raise InputError(f"{path}: another process is writing these captions; choose another --out") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        self._load(self._file.read(), settings)

    def _load(self, data: bytes, settings: Mapping[str, Any]) -> None:
        whole = data.split(b"\n")[:-1]
        if not whole and _BEGINNING.startswith(data[: len(_BEGINNING)]):
            return  # killed in its first line
        try:
            earlier = parse_json(whole[0])["settings"] if whole else None
        except (ValueError, TypeError, KeyError):
            earlier = None
        if not isinstance(earlier, dict):
            raise InputError(f"{self.path}: is no journal of captions; choose another --out")
        # It knew fewer settings than are recorded today: those that it knew must agree.
        wanted = parse_json(canonical_json({key: settings.get(key) for key in earlier}))
        if earlier != wanted:
            changes = differences(earlier, wanted)
            raise InputError(f"{self.path}: made with other settings: {changes}; choose another --out, or delete it")
        for line in whole[1:]:
            try:
                record = parse_json(line)
            except ValueError:
                return  # after a power failure the tail may be anything
            if not _is_record(record):
                return
            self.records[record["key"]] = record

    def remove(self) -> None:
        """Remove the journal: the finished captions hold the same."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let its writer in again."""
        if self._file is not None:
            self._file.close()


def encode_captions(table: pa.Table, facts: Record) -> bytes:
    """Return captions as Parquet: ``caption``, ``class``, ``source_key`` and other columns of ``table``."""
    table = table.replace_schema_metadata({FACTS: canonical_json(facts)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=100_000)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def write_captions(path: Path, table: pa.Table, facts: Record) -> None:
    """Write the finished captions as one Parquet file."""
    write_atomic(path, encode_captions(table, facts))


def caption_facts(path: Path) -> Record | None:
    """Return the facts of a file of captions; None for any other file."""
    try:
        facts = parse_json((pq.read_schema(path).metadata or {})[FACTS])
    except (OSError, ValueError, KeyError):  # pyarrow's own errors are of these kinds
        return None
    return facts if isinstance(facts, dict) else None
