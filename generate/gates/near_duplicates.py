"""Images that are nearly one of a given test set: a clone must not train on what it is tested with.

In: uint8[n, h, w, 3] as they were drawn, and the perceptual hashes of the test set. Out: for each row the distance in
bits to the nearest test image, and its key; of several equally near ones the first. The hashes are kept in the
dataset folder, as ``test_set.parquet``, so that a restart decodes no test image again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from synclones.base.config import check_ranges
from synclones.base.errors import InputError
from synclones.base.files import write_atomic
from synclones.base.json_file import canonical_json, parse_json
from synclones.generate.gates.policy import CheckedGate, Finding, GateFacts, Policy
from synclones.generate.generators.model import ModelFolder

if TYPE_CHECKING:
    import numpy as np

    from synclones.shards.similarity.phash import ImageHashes

FLAG, KEPT = "--near-duplicates-of", "test_set.parquet"
DISTANCE, NEAREST = "test_set_distance", "test_set_nearest"

ORDER = 3


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The flags of this gate."""

    near_duplicates_of: Path | None = None
    """Test set whose images must not come up: a dataset folder or a folder of images."""
    near_duplicate_bits: int = 6
    """Of the 64 bits of two perceptual hashes, how many may differ between near-duplicates, 0 to 32."""
    on_near_duplicate: Policy = "mark"
    """What happens to a near-duplicate of the test set."""


def check(settings: Settings, model: ModelFolder, out: Path) -> CheckedGate | None:
    """Read the hashes of the test set, those kept in ``out`` or new ones.

    Raises:
        InputError: when there is no image, or a flag would have no effect.
    """
    check_ranges(settings, near_duplicate_bits=(0, 32))
    folder, bits, policy = settings.near_duplicates_of, settings.near_duplicate_bits, settings.on_near_duplicate
    if folder is None:
        if policy != "mark":
            raise InputError("--on-near-duplicate: has no effect without a test set; give --near-duplicates-of")
        return None
    test_set = read_test_set(folder, out)
    facts: GateFacts = {"near_duplicate": policy, "test_set_distance": bits, "test_set_sha256": test_set.sha256}
    return CheckedGate(
        facts=facts,
        policy=policy,
        libraries=("pillow",),
        open=lambda device: NearDuplicates(test_set, bits),
        keep=lambda: keep_test_set(test_set, folder, out),
    )


class NearDuplicates:
    """Finds images whose hash differs from a test image's in at most ``max_distance`` of 64 bits."""

    reason = "near duplicate"

    def __init__(self, test_set: "ImageHashes", max_distance: int):
        self._test_set, self._max_distance = test_set, max_distance

    def inspect(self, images: "np.ndarray", prompts: Sequence[str]) -> list[Finding]:
        """Return whether a test image is as near as that, its distance and its key."""
        from synclones.shards.similarity.phash import image_hashes

        return [self._finding(one) for one in image_hashes(images)]

    def _finding(self, one: "np.uint64") -> Finding:
        from synclones.shards.similarity.phash import distances

        bits = distances(self._test_set.hashes, one)
        nearest = int(bits.argmin())
        distance = int(bits[nearest])
        return Finding(distance <= self._max_distance, {DISTANCE: distance, NEAREST: self._test_set.keys[nearest]})


def read_test_set(test_set: Path, out: Path) -> "ImageHashes":
    """Return the hashes of a test set: those kept in ``out`` while its files have equal names and sizes, else new.

    Raises:
        InputError: no such folder, or no image in it.
        VerificationError: an image that cannot be decoded.
    """
    from synclones.shards.similarity.phash import hash_folder

    kept = _read_kept(out / KEPT, test_set)
    return kept if kept is not None else hash_folder(test_set, FLAG)


def keep_test_set(hashes: "ImageHashes", test_set: Path, out: Path) -> None:
    """Write ``test_set.parquet`` unless it is there; the plan names the hash of its content."""
    import pyarrow as pa

    from synclones.shards.similarity.phash import listing_of
    from synclones.shards.write import parquet_bytes

    if _read_kept(out / KEPT, test_set) is None:
        columns = {"key": hashes.keys, "hash": hashes.hashes, "content": hashes.contents}
        facts = canonical_json({"listing": listing_of(test_set)})
        write_atomic(out / KEPT, parquet_bytes(pa.table(columns).replace_schema_metadata({"synclones": facts})))


def _read_kept(path: Path, test_set: Path) -> "ImageHashes | None":
    import pyarrow as pa
    import pyarrow.parquet as pq

    from synclones.shards.similarity.phash import ImageHashes, listing_of

    if not path.is_file() or not test_set.is_dir():
        return None
    try:
        table = pq.read_table(path)
        if parse_json((table.schema.metadata or {})[b"synclones"])["listing"] != listing_of(test_set):
            return None
        return ImageHashes(table["key"].to_pylist(), table["hash"].to_numpy(), table["content"].to_numpy())
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError):
        return None  # cut or foreign: hashed again; another content would be another plan
