"""Lists the near-duplicates inside a finished set; tars stay as they are, so that shards do not depend on each other.

In: a finished dataset folder. Out: a Parquet file with a row per image to leave out: ``index``, ``kept_index`` (the
image it nearly is), ``distance`` in bits of the perceptual hash, ``same_bytes`` (the very same JPEG); in its metadata
the content hash of the set and the largest distance.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from synclones.base.files import write_atomic
from synclones.base.json_file import canonical_json
from synclones.base.weights import refuse_old_libraries
from synclones.shards.read import ShardFolder
from synclones.shards.similarity.near import drop_list
from synclones.shards.similarity.phash import ImageHashes, hash_folder
from synclones.shards.write import parquet_bytes

SHOWN = 3


def list_duplicates(folder: Path, max_distance: int, out: Path) -> str:
    """Write the drop list and return what it says in a few lines.

    Raises:
        InputError: no such folder, or no shards in it; libraries with known holes.
        VerificationError: the set is unfinished, or an image is damaged.
    """
    refuse_old_libraries()
    content = ShardFolder(folder).content_hash()
    hashes = hash_folder(folder, "DIR")
    table = find_duplicates(hashes, max_distance)
    facts = {"content_hash": content, "max_distance": max_distance}
    write_atomic(out, parquet_bytes(table.replace_schema_metadata({"synclones": canonical_json(facts)})))
    n, same = len(table), int(np.sum(table["same_bytes"].to_numpy()))
    examples = "".join(
        f"\n  {row['index']} is nearly {row['kept_index']} ({row['distance']} bits)"
        for row in table.slice(0, SHOWN).to_pylist()
    )
    return (
        f"{folder}: {n} of {len(hashes.keys)} images within {max_distance} of 64 bits of an earlier one, "
        f"{same} with the same bytes{examples}\ndrop list: {out}"
    )


def find_duplicates(hashes: ImageHashes, max_distance: int) -> pa.Table:
    """Return the rows of the drop list, by index, of images whose keys are indices."""
    indices = np.array([int(key) for key in hashes.keys], dtype=np.int64)
    dropped, kept, distance = drop_list(hashes.hashes, max_distance)
    return pa.table(
        {
            "index": indices[dropped],
            "kept_index": indices[kept],
            "distance": distance.astype(np.int32),
            "same_bytes": hashes.contents[dropped] == hashes.contents[kept],
        }
    )
