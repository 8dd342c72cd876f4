"""Blurs: defocus, glass, motion, zoom, gaussian.

In: ``uint8[h, w, 3]``, a severity's constants, a generator where chance has a part. Out: ``uint8[h, w, 3]``.
"""

from functools import cache

import numpy as np

from synclones.evaluate.corruptions.filters import convolve, gaussian, motion, reflect_index
from synclones.evaluate.corruptions.pixels import as_rows, cut, rounded
from synclones.evaluate.corruptions.warp import mean_of_zooms, zoom_factors

_MOTION_DEGREES = 45


def gaussian_blur(image: np.ndarray, deviation: float) -> np.ndarray:
    """Filter with a Gaussian of ``deviation`` px, truncated at four deviations."""
    return cut(gaussian(as_rows(image), deviation))


def defocus_blur(image: np.ndarray, constants: tuple[float, float]) -> np.ndarray:
    """Filter with a disk: constants (radius, deviation of the Gaussian that smooths its edge), px."""
    return cut(convolve(image, disk(*constants)))


@cache
def disk(radius: float, deviation: float) -> np.ndarray:
    """Return a normalised disk with a smoothed edge: float32[n, n], n = 17 or, above a radius of 8, 2 radius + 1."""
    reach, around = (8, 1) if radius <= 8 else (int(radius), 2)
    axis = np.arange(-reach, reach + 1)
    inside = (axis[:, None] ** 2 + axis**2 <= radius**2).astype(np.float64)
    inside /= inside.sum()
    # A Gaussian of 3 or 5 values, whatever its deviation; at the edge of the square it is mirrored.
    weights = np.exp(-0.5 * (np.arange(-around, around + 1) / deviation) ** 2)
    weights /= weights.sum()
    wide = inside[np.ix_(*[reflect_index(len(axis), around, whole=True)] * 2)]
    size = len(axis)
    smooth = sum(w * wide[i : i + size] for i, w in enumerate(weights))
    smooth = sum(w * smooth[:, i : i + size] for i, w in enumerate(weights))
    return np.asarray(smooth, dtype=np.float32)


def motion_blur(image: np.ndarray, constants: tuple[int, float], rng: np.random.Generator) -> np.ndarray:
    """Blur along a random direction between -45 and 45 degrees: constants (radius, deviation), px."""
    return moved(image, *constants, angle=rng.uniform(-_MOTION_DEGREES, _MOTION_DEGREES))


def moved(image: np.ndarray, radius: int, deviation: float, angle: float) -> np.ndarray:
    """Blur along ``angle`` degrees; rounded, as ImageMagick does."""
    return rounded(motion(as_rows(image), radius, deviation, angle))


def zoom_blur(image: np.ndarray, constants: tuple[float, float, float]) -> np.ndarray:
    """Average the image with zooms into its middle: constants (start, end, step) of the factors."""
    factors = zoom_factors(*constants)
    return cut(mean_of_zooms(image, factors))


# ------------------------------------------------------------------ glass


def glass_blur(image: np.ndarray, constants: tuple[float, int, int], rng: np.random.Generator) -> np.ndarray:
    """Move pixels about between two Gaussian filters: constants (deviation px, largest move px, rounds)."""
    deviation, reach, rounds = constants
    pixels = cut(gaussian(as_rows(image), deviation))
    for _ in range(rounds):
        # Moves left and up by up to ``reach``, right and down by one less.
        right, down = rng.integers(-reach, reach, size=(2, *inner_shape(pixels, reach)), dtype=np.int8).astype(np.int64)
        pixels = copied_about(pixels, down, right, reach)
    return cut(gaussian(as_rows(pixels), deviation))


def inner_shape(image: np.ndarray, reach: int) -> tuple[int, int]:
    """Return how many rows and columns of uint8[h, w, 3] take part in moves of up to ``reach``."""
    return max(0, image.shape[0] - 2 * reach), max(0, image.shape[1] - 2 * reach)


def copied_about(image: np.ndarray, down: np.ndarray, right: np.ndarray, reach: int) -> np.ndarray:
    """Return what upstream's loop leaves of uint8[h, w, 3]: from the last pixel to the first, each takes another's.

    Upstream means to swap two pixels, but assigns views of one array, so that only the first of the two changes. A
    pixel takes the colour that its neighbour has at that moment: the final one where the neighbour came before, the
    original one where not. Chains of pixels that take each other's are followed by jumps of doubling length.

    Args:
        down, right: int64[h - 2 reach, w - 2 reach], where each pixel's neighbour is, first row and column first. The
            pixels that take part begin at row and column ``reach + 1``.
    """
    height, width = image.shape[:2]
    own = np.arange(height * width)
    neighbour = own.copy()
    inside = neighbour.reshape(height, width)[reach + 1 :, reach + 1 :][: len(down), : down.shape[1]]
    inside += down * width
    inside += right
    # Later pixels are final already. Those outside of the loop's bounds never change, and point at themselves.
    chained = np.maximum(neighbour, own)
    while not np.array_equal(further := chained.take(chained), chained):
        chained = further
    return image.reshape(-1, 3).take(neighbour.take(chained), axis=0).reshape(image.shape)
