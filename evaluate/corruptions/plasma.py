"""Plasma fractals by the diamond-square algorithm: the clouds of fog and the ridges of frost.

In: size, decay, a generator. Out: ``float32[n, n]``, 0 to 1.
"""

import numpy as np


def plasma(size: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Return a fractal that repeats beyond its edges: float32[size, size], 0 to 1.

    Every round puts a point between neighbours, at their mean plus a uniform number. As upstream, that number is of the
    square of an amplitude which ``decay`` divides from round to round.

    Args:
        size: a power of two.
    """
    heights, spread, used = np.zeros((1, 1), dtype=np.float32), 1.0, 0
    noise = rng.random(size * size - 1, dtype=np.float32)
    noise -= np.float32(0.5)
    while (n := len(heights)) < size:
        own = noise[used : used + 3 * n * n].reshape(3, n, n)
        own *= np.float32(2 * spread)
        heights = _refined(heights, own)
        spread, used = spread / decay**2, used + 3 * n * n
    heights -= heights.min()
    heights *= np.float32(1 / max(heights.max(), 1e-30))
    return heights


def _refined(heights: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Return twice the resolution of float32[n, n], by float32[3, n, n] for new points: float32[2n, 2n]."""
    n, quarter = len(heights), np.float32(0.25)
    corners = np.empty((n + 1, n + 1), dtype=np.float32)
    corners[:n, :n], corners[n, :n] = heights, heights[0]
    corners[:, n] = corners[:, 0]
    result = np.empty((2 * n, 2 * n), dtype=np.float32)
    result[0::2, 0::2] = heights
    # Centres of squares, from their four corners; a row and a column before the first are the last ones.
    vertical, horizontal = corners[:-1] + corners[1:], corners[:n, :-1] + corners[:n, 1:]
    centres = np.empty((n + 1, n + 1), dtype=np.float32)
    inner = centres[1:, 1:]
    np.add(vertical[:, :-1], vertical[:, 1:], out=inner)
    inner *= quarter
    inner += noise[0]
    centres[0, 1:] = centres[n, 1:]
    centres[:, 0] = centres[:, n]
    result[1::2, 1::2] = inner
    # Middles of edges, from the two corners and the two centres beside them.
    horizontal += centres[1:, 1:]
    horizontal += centres[:-1, 1:]
    horizontal *= quarter
    np.add(horizontal, noise[1], out=result[0::2, 1::2])
    vertical = vertical[:, :n] + centres[1:, 1:]
    vertical += centres[1:, :-1]
    vertical *= quarter
    np.add(vertical, noise[2], out=result[1::2, 0::2])
    return result


def map_size(image: np.ndarray) -> int:
    """Return the power of two that holds uint8[h, w, 3]: 32, 64 and, for 224 px, 256."""
    longest: int = max(image.shape[:2])
    return 1 << (longest - 1).bit_length()
