"""Random numbers as functions of what they are for: no state to save, the same on every rank and after every kill.

In: integers that name the purpose (seed, epoch, sample, ...), scalars or arrays. Out: hashes and uniform numbers.
"""

import numpy as np

Words = int | np.ndarray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MASK, _STEP, _MIX_1, _MIX_2 = 2**64 - 1, 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def hash64(*words: Words) -> np.ndarray:
    """uint64 hash of integers >= 0; arrays broadcast. The finaliser of SplitMix64 (Steele et al. 2014) per word."""
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            state = finalise((state ^ np.asarray(word).astype(np.uint64)) + GOLDEN)
    return state


def finalise(x: np.ndarray) -> np.ndarray:
    """Mix the bits of uint64[...]; arithmetic modulo 2^64, inside ``np.errstate(over="ignore")``."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


def uniform(*words: Words) -> np.ndarray:
    """float64 in [0, 1), one per hash."""
    return (hash64(*words) >> np.uint64(11)) * 2.0**-53


def hash_int(*words: int, state: int = 0) -> int:
    """Return the `hash64` of plain integers: a tenth of its time for one hash, since no array is made.

    ``state``: the hash of the words before, when they were hashed already.
    """
    for word in words:
        x = ((state ^ word) + _STEP) & _MASK
        x = ((x ^ (x >> 30)) * _MIX_1) & _MASK
        x = ((x ^ (x >> 27)) * _MIX_2) & _MASK
        state = x ^ (x >> 31)
    return state


def uniform_float(*words: int, state: int = 0) -> float:
    """Return the `uniform` number of plain integers; ``state`` as in `hash_int`."""
    return (hash_int(*words, state=state) >> 11) * 2.0**-53
