"""The seed of every image: a keyed bijection of its index, so that no two images of a set start from the same noise.

In: dataset seed, attempt, index (or an array of them). Out: a seed of 32 bits. Torch's CPU generator uses the low 32
bits of a seed only, so hashed 64-bit seeds collide (16 M of them share some 30,000 noises); a bijection on 32 bits
cannot. Never from rank, batch position or time.
"""

import hashlib
from typing import overload

import numpy as np
import torch

NUM_SEEDS = 2**32
_ROUNDS = 8


@overload
def sample_seed(dataset_seed: int, attempt: int, index: int) -> int: ...
@overload
def sample_seed(dataset_seed: int, attempt: int, index: np.ndarray) -> np.ndarray: ...
def sample_seed(dataset_seed: int, attempt: int, index: int | np.ndarray) -> int | np.ndarray:
    """Return the seed, 0..2^32-1, of one index or of an array of them, 0 <= index < 2^32; the shape stays.

    A Feistel network of eight rounds on two halves of 16 bits: a bijection whatever the round function is (Luby and
    Rackoff 1988), here a multiply-xorshift keyed by SHA-256 of (dataset seed, attempt).

    Raises:
        ValueError: an index outside 0..2^32-1.
    """
    values = np.asarray(index, dtype=np.int64)
    if values.size and (values.min() < 0 or values.max() >= NUM_SEEDS):
        raise ValueError(f"index {index} is outside 0..2^32-1, the number of different noises torch can draw")
    left, right = (values >> 16).astype(np.uint64), (values & 0xFFFF).astype(np.uint64)
    for key in _round_keys(dataset_seed, attempt):
        left, right = right, left ^ _scramble(right, key)
    seeds = (left << np.uint64(16)) | right
    return int(seeds) if np.ndim(index) == 0 else seeds.astype(np.int64)


def _round_keys(dataset_seed: int, attempt: int) -> list[np.uint64]:
    digest = hashlib.sha256(f"synclones seed {dataset_seed} attempt {attempt}".encode()).digest()
    return [np.uint64(int.from_bytes(digest[4 * i : 4 * i + 4], "little")) for i in range(_ROUNDS)]


def _scramble(half: np.ndarray, key: np.uint64) -> np.ndarray:
    """16 bits that depend on 16 bits and a key of 32, computed without overflow in 64."""
    mixed = ((half + (key & np.uint64(0xFFFF))) * np.uint64(0x9E3779B1) ^ (key >> np.uint64(8))) & np.uint64(0xFFFFFFFF)
    mixed = (mixed ^ (mixed >> np.uint64(15))) * np.uint64(0x85EBCA77) & np.uint64(0xFFFFFFFF)
    return (mixed ^ (mixed >> np.uint64(13))) & np.uint64(0xFFFF)


def noise_generators(seeds: list[int]) -> list[torch.Generator]:
    """Make one CPU generator per image, as diffusers takes them: the noise of an image does not know its batch."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
