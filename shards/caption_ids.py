"""The caption of each image of a shard as a number, kept once it was read: else every start reads every sample's json.

In: a shard, and what reads the numbers out of its tar. Out: int64[n], from ``SET/.synclones/captions/train-00000.ids``
(`kept`) where that is of this very tar. The file is a cache: of another tar, or damaged, it is made again, never
believed.
"""

import zlib
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from synclones.base import machine
from synclones.base.errors import InputError
from synclones.base.files import write_atomic
from synclones.base.json_file import canonical_json, parse_json, read_regular
from synclones.shards.kept import kept_folders, note_once, writable_folder

CAPTIONS, FORMAT = "captions", 1
_DIGEST_BYTES = 32


def caption_of(facts: bytes, otherwise: int) -> int:
    """Return the ``caption_id`` in a sample's json, or ``otherwise`` when it has none.

    Raises:
        ValueError: this is no JSON object.
    """
    record = parse_json(facts)
    if not isinstance(record, dict):
        raise ValueError("no JSON object")
    number = record.get("caption_id", otherwise)
    return number if type(number) is int and 0 <= number < 2**63 else otherwise


def caption_ids(
    folder: Path,
    shard: str,
    tar_sha256: str,
    rows: int,
    stamp: Callable[[], list[int]],
    read: Callable[[], list[bytes]],
) -> np.ndarray:
    """Return the ``caption_id`` of each sample of a shard, int64[rows]; one without has a negative number of its own.

    Args:
        folder: of the set.
        tar_sha256: what the shard's json states.
        stamp: returns what tells whether the tar was written again, such as size and times; empty of one that its hash
            was compared with.
        read: returns the json of each sample; they are not checked, since a crc32 is of the whole sample.
    """
    # A damaged json would give a wrong number under the hash of the sound tar; whoever mends the tar writes it again.
    identity = {"format": FORMAT, "rows": rows, "tar_sha256": tar_sha256, "tar": stamp()}
    for location in kept_folders(folder, CAPTIONS):
        if (kept := _read(location / f"{shard}.ids", identity)) is not None:
            return kept
    numbers, sound = _numbers(read())
    if sound and stamp() == identity["tar"] and machine.local_rank() == 0:
        _keep(folder, shard, identity, numbers)
    return numbers


def _numbers(texts: Sequence[bytes]) -> tuple[np.ndarray, bool]:
    """Return the numbers, and whether every json could be read."""
    numbers, sound = np.empty(len(texts), dtype=np.int64), True
    for row, text in enumerate(texts):
        try:
            numbers[row] = caption_of(text, -1 - row)
        except ValueError:
            numbers[row], sound = -1 - row, False
    return numbers, sound


def _read(path: Path, identity: dict[str, Any]) -> np.ndarray | None:
    """Return the numbers in a file that was written for this tar; None for any other, whatever is wrong with it."""
    num_bytes = 8 * identity["rows"]
    try:
        data = read_regular(path, 2 * num_bytes + 4096)
        if sha256(data[_DIGEST_BYTES:]).digest() != data[:_DIGEST_BYTES]:
            return None
        stated, _, packed = data[_DIGEST_BYTES:].partition(b"\n")
        numbers = zlib.decompressobj().decompress(packed, num_bytes + 1) if stated == canonical_json(identity) else b""
    except (OSError, ValueError, zlib.error):
        return None
    return np.frombuffer(numbers, dtype="<i8").astype(np.int64) if len(numbers) == num_bytes else None


def _keep(folder: Path, shard: str, identity: dict[str, Any], numbers: np.ndarray) -> None:
    """Write the file; where that fails the next start reads the tar again, which is said."""
    body = canonical_json(identity) + b"\n" + zlib.compress(numbers.astype("<i8").tobytes(), 1)
    try:
        where = writable_folder(kept_folders(folder, CAPTIONS), folder, "list of captions")
        write_atomic(where / f"{shard}.ids", sha256(body).digest() + body)
    except (OSError, InputError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        note_once(f"{folder}: which images share a caption cannot be kept ({reason}); the next start reads it again")
