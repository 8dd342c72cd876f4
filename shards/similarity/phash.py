"""Perceptual hashes: 64 bits that stay nearly the same when an image is resized, recompressed or slightly changed.

In: images, or a folder of them. Out: `ImageHashes`. The hash is the DCT hash of C. Zauner, "Implementation and
benchmarking of perceptual image hash functions" (2010), section 3.2.1: luminance, 32 x 32, the lowest 8 x 8 discrete
cosine coefficients without the first row and column, each compared with their median. Ours shrinks with an antialiased
filter and counts in whole numbers, so that every machine finds the same bits.
"""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.base.machine import cores
from synclones.shards.index import present_split, shard_names
from synclones.shards.read import ShardFolder
from synclones.shards.schema import sample_key
from synclones.shards.sources.decode import IMAGE_SUFFIXES, decode_image
from synclones.shards.sources.files import PassedOver, image_files, listing_sha256, name_below

BITS = 64
_SIDE, _KEPT = 32, 8
_FILES_PER_PART = 256
_COSINES = np.round(
    4096 * np.cos(np.pi / (2 * _SIDE) * np.outer(np.arange(1, _KEPT + 1), 2 * np.arange(_SIDE) + 1))
).astype(np.int64)


@dataclass(frozen=True)
class ImageHashes:
    """Images by key: the key of a sample, or the path of a file below its folder."""

    keys: list[str]
    hashes: np.ndarray
    """uint64[n]: perceptual hash."""
    contents: np.ndarray
    """uint64[n]: the first 8 bytes of the encoded image's SHA-256."""

    @property
    def sha256(self) -> str:
        """Identity of keys and perceptual hashes."""
        return sha256_bytes(canonical_json([self.keys, self.hashes.tolist()]))


def image_hash(pixels: np.ndarray) -> int:
    """Return 64 bits of uint8[h, w, 3]; 0 for an image of one colour."""
    grey = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    coefficients = (_COSINES @ np.asarray(grey, dtype=np.int64) @ _COSINES.T).ravel()
    middle = np.sort(coefficients)[BITS // 2 - 1 : BITS // 2 + 1].sum()  # twice the median
    return int.from_bytes(np.packbits(2 * coefficients > middle).tobytes(), "big")


def image_hashes(images: np.ndarray) -> np.ndarray:
    """Return uint64[n] of uint8[n, h, w, 3]."""
    return np.array([image_hash(image) for image in images], dtype=np.uint64)


def distances(hashes: np.ndarray, one: int | np.integer) -> np.ndarray:
    """Count the bits, 0..64, in which each of uint64[n] differs from ``one``: uint8[n]."""
    bits: np.ndarray = np.bitwise_count(hashes ^ np.uint64(one))
    return bits


def hash_folder(folder: Path, flag: str) -> ImageHashes:
    """Hash all images of a dataset folder (of its test, val or train split) or of a folder of image files.

    Raises:
        InputError: no such folder, or no image in it; ``flag`` is what the user gave it by.
        VerificationError: an image that cannot be decoded.
    """
    if not folder.is_dir():
        raise InputError(f"{flag}: no folder {str(folder)!r}; give a dataset folder or a folder of images")
    is_dataset = bool(shard_names(folder, present_split(folder)))
    parts = _shard_parts(folder) if is_dataset else _file_parts(folder)
    with ThreadPoolExecutor(cores(), thread_name_prefix="hash") as pool:
        made = list(pool.map(hash_images, parts))
    if not made:
        raise InputError(f"{flag}: {folder} holds no {', '.join(IMAGE_SUFFIXES)}; give a folder with images")
    keys = [key for part in made for key in part.keys]
    hashes, contents = (np.concatenate([getattr(part, name) for part in made]) for name in ("hashes", "contents"))
    return ImageHashes(keys, hashes, contents)


def hash_images(images: Iterable[tuple[str, bytes]]) -> ImageHashes:
    """Hash encoded images, given with their keys.

    Raises:
        VerificationError: one that cannot be decoded.
    """
    keys, hashes, contents = list[str](), list[int](), list[int]()
    for key, data in images:
        keys.append(key)
        hashes.append(image_hash(decode_image(data, where=key)))
        contents.append(int.from_bytes(hashlib.sha256(data).digest()[:8], "big"))
    return ImageHashes(keys, np.array(hashes, np.uint64), np.array(contents, np.uint64))


def _shard_parts(folder: Path) -> list[Iterator[tuple[str, bytes]]]:
    stored = ShardFolder(folder)
    return [((sample_key(s.index), s.jpg) for s in stored.sequential([shard])) for shard in stored.shards]


def listing_of(folder: Path) -> str:
    """Return a quick identity of what `hash_folder` would hash: the shards' jsons, or names and sizes."""
    if names := shard_names(folder, present_split(folder)):
        return sha256_bytes(b"".join((folder / f"{name}.json").read_bytes() for name in names))
    return listing_sha256(_image_files(folder), folder)


def _image_files(folder: Path, passed: PassedOver | None = None) -> list[Path]:
    return image_files(folder, passed or PassedOver())


def _file_parts(folder: Path) -> list[Iterator[tuple[str, bytes]]]:
    passed = PassedOver()
    files = _image_files(folder, passed)
    passed.tell(folder)
    starts = range(0, len(files), _FILES_PER_PART)
    parts = [files[start : start + _FILES_PER_PART] for start in starts]
    return [((name_below(folder, path), path.read_bytes()) for path in part) for part in parts]
