"""Noise that falls on every value by itself: gaussian, shot, impulse, speckle, and ISO noise.

In: ``uint8[h, w, 3]``, a severity's constants, a generator. Out: ``uint8[h, w, 3]``.
What such a noise makes of a grey level depends on that level alone. So it is a matrix of probabilities, 256 x 256,
which holds the formula, the limits and the cut to 8 bits exactly; it is drawn from by Walker's alias method (1977) with
one 32-bit number per value, in probabilities that are multiples of 2^-24.
"""

from functools import cache

import numpy as np
from scipy.special import ndtr, pdtr

LEVELS = np.arange(256)
_FULL = 2**16
_CHUNK = 2**14


def gaussian_noise(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Add normal noise; ``deviation`` in units of white."""
    return _drawn(image, "gaussian", (deviation,), rng)


def speckle_noise(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Multiply by 1 + normal noise."""
    return _drawn(image, "speckle", (deviation,), rng)


def shot_noise(image: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    """Count photons, of which white has ``photons`` on average."""
    return _drawn(image, "shot", (photons,), rng)


def impulse_noise(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Make a share of values black or white, as often the one as the other."""
    return _drawn(image, "impulse", (amount,), rng)


def iso_noise(image: np.ndarray, constants: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Count photons, limit to white, and add normal noise: constants (photons, deviation)."""
    return _drawn(image, "iso", constants, rng)


# ------------------------------------------------------------------ matrices


def matrix(kind: str, constants: tuple[float, ...]) -> np.ndarray:
    """Return float64[256, 256]: the probability that a level (row) becomes another (column)."""
    levels = LEVELS / 255
    if kind == "gaussian":
        return normal_matrix(levels, np.full(256, constants[0]))
    if kind == "speckle":
        return normal_matrix(levels, levels * constants[0])
    if kind == "shot":
        values, weights = photon_counts(levels, constants[0])
        return np.asarray(weights @ np.eye(256)[np.uint8(values * 255)])
    if kind == "iso":
        values, weights = photon_counts(levels, constants[0])
        return np.asarray(weights @ normal_matrix(values, np.full(len(values), constants[1])))
    unchanged = (1 - constants[0]) * np.eye(256)
    unchanged[:, [0, 255]] += constants[0] / 2
    return unchanged


def normal_matrix(means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Return the probabilities of levels 0 to 255 of normal numbers that are limited to 0..1 and cut: float64[n, 256].

    Args:
        means: float64[n], 0 to 1.
        deviations: float64[n]; of 0 all numbers are the mean.
    """
    edges = np.arange(1, 256)[None, :]  # level j is what lies in [j, j + 1) / 255
    means, deviations = 255 * means[:, None], 255 * deviations[:, None]
    with np.errstate(divide="ignore"):
        below = np.where(deviations > 0, ndtr((edges - means) / np.where(deviations > 0, deviations, 1)), edges > means)
    return np.diff(below, prepend=0, append=1)


def photon_counts(levels: np.ndarray, photons: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which values Poisson counts over ``photons`` can have, limited to 1: float64[k]; and how often, [n, k]."""
    counts = np.arange(int(photons) + 1)
    below = pdtr(counts[None, :-1], levels[:, None] * photons)
    return counts / photons, np.diff(below, prepend=0, append=1)


# ------------------------------------------------------------------ drawing


@cache
def _table(kind: str, constants: tuple[float, ...]) -> np.ndarray:
    return alias_table(matrix(kind, constants))


def alias_table(probabilities: np.ndarray) -> np.ndarray:
    """Return the alias method's table for a matrix float64[256, 256]: uint32[65536].

    Entry ``256 l + b`` is bin ``b`` of level ``l``: a threshold in its upper bits and another level in its lowest 8. A
    number of 16 bits below the threshold means level ``b``, any other that other level.
    """
    # In whole numbers, so that no rounding decides between bins that are equally full: 256 bins of 2^16 in a row.
    lowest = np.rint(probabilities * (256 * _FULL)).astype(np.int64)
    lowest[LEVELS, lowest.argmax(1)] += 256 * _FULL - lowest.sum(1)
    highest, thresholds, other = lowest.copy(), np.full_like(lowest, _FULL), np.tile(LEVELS, (256, 1))
    # The emptiest bin of each row is filled up by the fullest, and is done; after 255 rounds all bins are full.
    for _ in range(255):
        emptiest, fullest = lowest.argmin(1), highest.argmax(1)
        own = lowest[LEVELS, emptiest]
        thresholds[LEVELS, emptiest], other[LEVELS, emptiest] = own, fullest
        rest = highest[LEVELS, fullest] - (_FULL - own)
        lowest[LEVELS, fullest] = highest[LEVELS, fullest] = rest
        lowest[LEVELS, emptiest], highest[LEVELS, emptiest] = 2**62, -1
    table: np.ndarray = (thresholds << 8 | other).astype(np.uint32).ravel()
    return table


def _drawn(image: np.ndarray, kind: str, constants: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    return draw(image, _table(kind, constants), rng)


def draw(image: np.ndarray, table: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return what becomes of every value of uint8[...], by an `alias_table`."""
    values, result = image.reshape(-1), np.empty(image.size, dtype=np.uint8)
    words = rng.bit_generator.random_raw((image.size + 1) // 2).view(np.uint32)
    # In chunks that stay in the processor's cache.
    for start in range(0, image.size, _CHUNK):
        level, word = values[start : start + _CHUNK], words[start : min(start + _CHUNK, image.size)]
        entry = level.astype(np.intp)
        np.left_shift(entry, 8, out=entry)
        own = word.astype(np.uint8)  # the lowest 8 bits
        np.bitwise_or(entry, own, out=entry)
        decided = table.take(entry)
        keep = (word >> 16) < (decided >> 8)
        result[start : start + _CHUNK] = np.where(keep, own, decided.astype(np.uint8))
    return result.reshape(image.shape)
