"""Finds pictures that nearly are one of a given test set: a clone must not train on what it is tested with.

In: uint8[n, h, w, 3] as they were drawn, and the perceptual hashes of the test set. Out: for each row the distance in
bits to the nearest test picture, and its key; of several equally near ones the first. The hashes are kept in the
dataset folder, as ``test_set.parquet``, so that a restart decodes no test picture again.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synclones.base.files import write_atomic
from synclones.base.json_file import canonical_json, parse_json
from synclones.generate.gates.policy import NEAR_DUPLICATE, Look
from synclones.shards.similarity.phash import PictureHashes, distances, hash_folder, listing_of, picture_hashes
from synclones.shards.write import parquet_bytes

FLAG, KEPT = "--near-duplicates-of", "test_set.parquet"
DISTANCE, NEAREST = "test_set_distance", "test_set_nearest"


class NearDuplicates:
    """Finds pictures whose hash differs from a test picture's in at most ``max_distance`` of 64 bits."""

    reason = NEAR_DUPLICATE

    def __init__(self, test_set: PictureHashes, max_distance: int):
        self._test_set, self._max_distance = test_set, max_distance

    def look(self, images: np.ndarray, prompts: Sequence[str]) -> list[Look]:
        """Whether a test picture is as near as that, its distance and its key."""
        return [self._look(one) for one in picture_hashes(images)]

    def _look(self, one: np.uint64) -> Look:
        found = distances(self._test_set.hashes, one)
        nearest = int(found.argmin())
        distance = int(found[nearest])
        return Look(distance <= self._max_distance, {DISTANCE: distance, NEAREST: self._test_set.keys[nearest]})


def read_test_set(test_set: Path, out: Path) -> PictureHashes:
    """The hashes of a test set: those kept in ``out``, if its files still have their names and sizes, else new ones.

    Raises:
        InputError: no such folder, or no picture in it.
        VerificationError: a picture that cannot be decoded.
    """
    kept = _read_kept(out / KEPT, test_set)
    return kept if kept is not None else hash_folder(test_set, FLAG)


def keep_test_set(hashes: PictureHashes, test_set: Path, out: Path) -> None:
    """Write ``test_set.parquet`` unless it is there; the plan names the hash of its content."""
    if _read_kept(out / KEPT, test_set) is None:
        columns = {"key": hashes.keys, "hash": hashes.hashes, "content": hashes.contents}
        facts = canonical_json({"listing": listing_of(test_set)})
        write_atomic(out / KEPT, parquet_bytes(pa.table(columns).replace_schema_metadata({"synclones": facts})))


def _read_kept(path: Path, test_set: Path) -> PictureHashes | None:
    if not path.is_file() or not test_set.is_dir():
        return None
    try:
        table = pq.read_table(path)
        if parse_json((table.schema.metadata or {})[b"synclones"])["listing"] != listing_of(test_set):
            return None
        return PictureHashes(table["key"].to_pylist(), table["hash"].to_numpy(), table["content"].to_numpy())
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError):
        return None  # cut or foreign: hashed again; another content would be another plan
