"""Lists the near-duplicates inside a finished set, or of a test set; the set stays as it is.

In: a finished dataset folder; test images as a folder, tars or another set. Out: a Parquet file with a row per image to
leave out: ``index``, ``kept_index`` or ``test_image`` (what it nearly is), ``distance`` in bits of the perceptual hash,
``same_bytes`` (the very same JPEG); in its metadata the content hash of the set, of the test set's hashes, and the
largest distance.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from synclones.base.errors import InputError, one_line
from synclones.base.files import write_atomic
from synclones.base.json_file import canonical_json
from synclones.base.weights import refuse_old_libraries
from synclones.shards.index import present_split, shard_names
from synclones.shards.read import ShardFolder
from synclones.shards.similarity.near import drop_list, nearest_of
from synclones.shards.similarity.phash import ImageHashes, hash_folder, hash_images
from synclones.shards.sources.files import PassedOver, list_files
from synclones.shards.sources.images import SourceImage, read_images
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


def list_test_duplicates(folder: Path, test_set: Path, max_distance: int, out: Path) -> str:
    """Write the list of images that nearly are one of a test set, and return what it says in a few lines.

    Raises:
        InputError: no such folder, no shards or images in it; libraries with known holes.
        VerificationError: a set is unfinished, or an image is damaged.
    """
    refuse_old_libraries()
    content = ShardFolder(folder).content_hash()
    tests = hash_test_set(test_set)
    hashes = hash_folder(folder, "DIR")
    table = find_test_duplicates(hashes, tests, max_distance)
    facts = {"content_hash": content, "max_distance": max_distance, "test_set_sha256": tests.sha256}
    write_atomic(out, parquet_bytes(table.replace_schema_metadata({"synclones": canonical_json(facts)})))
    same, hit = int(np.sum(table["same_bytes"].to_numpy())), len(set(table["test_image"].to_pylist()))
    examples = "".join(
        f"\n  {row['index']} is nearly {one_line(row['test_image'])} ({row['distance']} bits)"
        for row in table.slice(0, SHOWN).to_pylist()
    )
    return (
        f"{folder}: {len(table)} of {len(hashes.keys)} images within {max_distance} of 64 bits of {hit} of the "
        f"{len(tests.keys)} images of {test_set}, {same} with the same bytes{examples}\ndrop list: {out}"
    )


def hash_test_set(path: Path) -> ImageHashes:
    """Hash the images of a finished set, of a tar or a folder of tars, or of a folder of image files.

    Raises:
        InputError: there is no image.
        VerificationError: an image, a tar or the set is damaged, or the set is unfinished.
    """
    if path.is_dir() and shard_names(path, present_split(path)):
        ShardFolder(path).content_hash()  # of half a test set nothing follows
        return hash_folder(path, "--against")
    passed = PassedOver()
    if not list_files(path, passed)[1]:
        return hash_folder(path, "--against")
    passed = PassedOver()
    images = [(image.source_key, image.data) for image in _with_flag(path, passed)]
    passed.tell(path)
    return hash_images(images)


def _with_flag(path: Path, passed: PassedOver) -> Iterator[SourceImage]:
    try:
        yield from read_images(path, passed)
    except InputError as error:
        raise InputError(str(error).replace("--images", "--against", 1)) from None


def find_test_duplicates(hashes: ImageHashes, tests: ImageHashes, max_distance: int) -> pa.Table:
    """Return the rows of the list, by index, of images whose keys are indices."""
    indices = np.array([int(key) for key in hashes.keys], dtype=np.int64)
    positions, nearest, distance = nearest_of(hashes.hashes, tests.hashes, max_distance)
    return pa.table(
        {
            "index": indices[positions],
            "test_image": pa.array([tests.keys[number] for number in nearest], pa.string()),
            "distance": distance.astype(np.int32),
            "same_bytes": hashes.contents[positions] == tests.contents[nearest],
        }
    )
