"""Images resampled between their pixels: random elastic maps, and zooms into the middle.

In: ``float32``, points to read at. Out: ``float32``, linear between neighbours.
"""

from functools import cache, lru_cache
from math import ceil

import numpy as np
from scipy import sparse

from synclones.evaluate.corruptions.filters import reflect_index

_KEPT_MATRICES = 20


def sample(image: np.ndarray, down: np.ndarray, right: np.ndarray, *, whole: bool) -> np.ndarray:
    """Return float32[h, w, c] read at rows ``down`` and columns ``right``, float32[h, w] each: float32[h, w, c].

    ``whole``: how the image goes on beyond its edges, as in `reflect_index`.
    """
    height, width, channels = image.shape
    tops, lefts = np.floor(down), np.floor(right)
    below, beside = down - tops, right - lefts
    (top, bottom), (left, rightmost) = (
        _mirrored_pairs(first.astype(np.int32), n, whole) for first, n in ((tops, height), (lefts, width))
    )
    # Every point is a sum over four pixels: a sparse matrix with four entries in a row.
    weights, pixels = np.empty((*down.shape, 4), dtype=np.float32), np.empty((*down.shape, 4), dtype=np.int32)
    both = below * beside
    weights[..., 0], weights[..., 1] = 1 - below - beside + both, beside - both
    weights[..., 2], weights[..., 3] = below - both, both
    top, bottom = top * width, bottom * width
    np.add(top, left, out=pixels[..., 0])
    np.add(top, rightmost, out=pixels[..., 1])
    np.add(bottom, left, out=pixels[..., 2])
    np.add(bottom, rightmost, out=pixels[..., 3])
    ends = np.arange(0, 4 * down.size + 1, 4, dtype=np.int32)
    matrix = sparse.csr_array((weights.ravel(), pixels.ravel(), ends), shape=(down.size, height * width))
    read: np.ndarray = matrix @ image.reshape(-1, channels)
    return read.reshape(*down.shape, channels)


def _mirrored_pairs(first: np.ndarray, length: int, whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return where neighbours ``first`` and ``first + 1`` lie inside the image."""
    reach = max(0, -int(first.min()), int(first.max()) + 2 - length)
    if not reach:
        return first, first + 1
    inside = reflect_index(length, reach, whole=whole).astype(np.int32)
    return inside.take(first + reach), inside.take(first + (reach + 1))


def affine_from_points(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the affine map that takes three points (x, y), float64[3, 2], to three others: float64[2, 3]."""
    return np.linalg.solve(np.column_stack([source, np.ones(3)]), target).T


# ------------------------------------------------------------------ zooms


def zoom_factors(start: float, end: float, step: float) -> tuple[float, ...]:
    """Return the factors of a zoom blur, of which the rounding of `numpy.arange` may let the end be one."""
    return tuple(np.arange(start, end, step).tolist())


def zoom_weights(length: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how a zoom into the middle reads an axis: first neighbour int64[length], weight of the second, float32.

    As upstream: a window of ``ceil(length / factor)`` pixels is resized by scipy's linear ``zoom`` (its first and last
    pixels are those of the result), and what is too much is trimmed on both sides.
    """
    window = ceil(length / factor)
    top, size = (length - window) // 2, round(window * factor)
    points = np.arange(size) * ((window - 1) / (size - 1) if size > 1 else 0.0)
    points = points[(size - length) // 2 :][:length]
    first = np.minimum(points.astype(np.intp), max(window - 2, 0))
    return first + top, (points - first).astype(np.float32)


@cache
def _zoom_weights(length: int, factor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, second_weight = zoom_weights(length, factor)
    return first, 1 - second_weight, second_weight


def zoomed(plane: np.ndarray, factor: float, height: int, width: int) -> np.ndarray:
    """Return the zoom into the middle of an image, of whose plane only the window is given: float32[height, width]."""
    down, upper, lower = _zoom_weights(height, factor)
    right, left, beside = _zoom_weights(width, factor)
    down, right = down - down.min(), right - right.min()
    rows = plane[down] * upper[:, None] + plane[down + 1] * lower[:, None]
    enlarged: np.ndarray = rows[:, right] * left + rows[:, right + 1] * beside
    return enlarged


def mean_of_zooms(image: np.ndarray, factors: tuple[float, ...]) -> np.ndarray:
    """Return the mean of uint8[h, w, 3] and its zooms into the middle by ``factors``: float32[h, w * 3]."""
    height, width = image.shape[:2]
    mean: np.ndarray = _mean_matrix(height, width, factors) @ image.reshape(-1, 3).astype(np.float32)
    return mean.reshape(height, -1)


@lru_cache(maxsize=_KEPT_MATRICES)
def _mean_matrix(height: int, width: int, factors: tuple[float, ...]) -> sparse.csr_array:
    """Return what `mean_of_zooms` multiplies an image by, float32[h * w, h * w]: some 25 pixels for each."""
    total = sparse.eye_array(height * width, format="csr", dtype=np.float64)
    for factor in factors:
        total += sparse.kron(_zoom_matrix(height, factor), _zoom_matrix(width, factor), format="csr")
    total.sum_duplicates()
    weights, (indices, ends) = total.data / (len(factors) + 1), (total.indices, total.indptr)
    # Half the size that scipy gives it: less to read for every image.
    parts = weights.astype(np.float32), indices.astype(np.int32), ends.astype(np.int32)
    return sparse.csr_array(parts, shape=total.shape)


def _zoom_matrix(length: int, factor: float) -> sparse.csr_array:
    """Return a zoom along one axis as a matrix, float64[length, length]."""
    first, second_weight = zoom_weights(length, factor)
    second = np.minimum(first + 1, length - 1)
    entries = (
        np.concatenate([1 - second_weight, second_weight]),
        (np.tile(np.arange(length), 2), np.concatenate([first, second])),
    )
    matrix = sparse.coo_array(entries, shape=(length, length)).tocsr()
    matrix.eliminate_zeros()
    return matrix
