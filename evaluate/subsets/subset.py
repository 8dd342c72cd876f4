"""Which images of a set are looked at when not all are: those whose names' keyed hashes are smallest.

In: names of images. Out: their positions. A hash knows nothing of order, folders' sizes or processes, so that the same
images are chosen everywhere; a subset holds every smaller one, and sets whose images have the same names (ImageNet and
the folders of ImageNet-C) give the same images, whose answers are then paired.
"""

from collections.abc import Sequence

import numpy as np

from synclones.base.files import sha256_bytes

KEY = "synclones subset 1"
"""Changing it would change every subset; results of subsets are known by the images' content."""


def hashed_order(names: Sequence[str], key: str = KEY) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of all images in the order of their hashes, int64[n], as good as drawn; and these, S64[n].

    Args:
        names: paths below the root of the set, each once; an ending such as .JPEG is passed over, since corrupted
            copies may be stored in another format; names that differ in nothing else are ordered by it.
        key: another one is another order.
    """
    hashes = np.array([hash_of(name, key) for name in names], dtype="S64")
    order = np.lexsort((np.array(names, dtype=object), hashes)) if len(names) else np.empty(0, np.int64)
    return order, hashes[order]


def hash_of(name: str, key: str = KEY) -> str:
    """Return the hash of a name below the root of its set, its ending left out."""
    folder, slash, file = name.rpartition("/")
    return sha256_bytes(f"{key}\n{folder}{slash}{file.rpartition('.')[0] or file}".encode(errors="surrogateescape"))
