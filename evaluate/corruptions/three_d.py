"""Corruptions of ImageNet-3DCC that need no network: of colour and noise alone, and of depth for who has maps of it.

In: ``uint8[h, w, 3]``, a severity's constants, a generator where chance has a part. Out: ``uint8[h, w, 3]``.
`iso_noise` is in `noise`.
"""

import numpy as np

from synclones.base.errors import InputError
from synclones.evaluate.corruptions.constants import FLASH, FOCUS_AT, FOCUS_LAYERS, LOW_LIGHT_NOISE, OF_ANY_SIZE
from synclones.evaluate.corruptions.depth import FARTHEST, NEAREST
from synclones.evaluate.corruptions.filters import symmetric
from synclones.evaluate.corruptions.pixels import as_rows, cut, for_channels

_QUANTILE_MARGIN = 1e-4  # by which the first and the last quantile enclose all distances
_SHARP = 0.1  # deviation in px below which nothing is blurred


def color_quant(image: np.ndarray, bits: int) -> np.ndarray:
    """Keep the highest bits of every value."""
    return image & np.uint8(256 - (1 << (8 - bits)))


def low_light(image: np.ndarray, brightest: float, rng: np.random.Generator) -> np.ndarray:
    """Stretch the squared values between black and ``brightest`` and add photon and normal noise."""
    low, high = int(image.min()), int(image.max())
    photons, deviation = LOW_LIGHT_NOISE
    scale = brightest / max(1, high - low) ** 2
    dark = np.square((image - np.uint8(low)).astype(np.float64)) * scale
    seen = np.minimum(rng.poisson(dark * photons) / photons, 1) + deviation * rng.standard_normal(dark.shape)
    return cut(255 * seen.reshape(len(image), -1))


def flash(image: np.ndarray, reshading: np.ndarray, severity: int) -> np.ndarray:
    """Light the image from the camera.

    Args:
        reshading: float[h, w], 0 to 1, how far each pixel faces the camera, as networks for "reshading" say.

    Raises:
        InputError: when the map does not fit.
    """
    _check_map(image, reshading, "reshading")
    light = 1 + reshading.astype(np.float32) / np.float32(FLASH[severity - 1])
    return cut(as_rows(image) * for_channels(light))


def fog_3d(image: np.ndarray, depth: np.ndarray, severity: int) -> np.ndarray:
    """Hide what is far behind the image's mean colour.

    The set's makers take the mean over a batch, so that images depend on their neighbours; here it is the image's.

    Args:
        depth: float[h, w], clipped to 0..0.5 as the makers do.

    Raises:
        InputError: when the map does not fit.
    """
    _check_map(image, depth, "depth")
    seen = for_channels(np.exp(-OF_ANY_SIZE["fog_3d"][severity - 1] * np.clip(depth, 0, FARTHEST)).astype(np.float32))
    return cut(as_rows(image) * seen + (1 - seen) * np.float32(image.mean()))


def near_focus(image: np.ndarray, depth: np.ndarray, severity: int) -> np.ndarray:
    """Focus on what is nearest: the farther, the more blurred.

    Args:
        depth: float[h, w], distances on the makers' scale, limited to `NEAREST`..`FARTHEST`.

    Raises:
        InputError: when the map does not fit.
    """
    return _focus(image, depth, "near_focus", severity)


def far_focus(image: np.ndarray, depth: np.ndarray, severity: int) -> np.ndarray:
    """Focus on seven eighths of the distances, in number: the nearer, the more blurred.

    Args:
        depth: as for `near_focus`.

    Raises:
        InputError: when the map does not fit.
    """
    return _focus(image, depth, "far_focus", severity)


def _focus(image: np.ndarray, depth: np.ndarray, name: str, severity: int) -> np.ndarray:
    """Mix, at each pixel, the image blurred for the quantiles of the distance that enclose its own."""
    _check_map(image, depth, "depth")
    aperture = OF_ANY_SIZE[name][severity - 1]
    distance = np.clip(depth.astype(np.float64), NEAREST, FARTHEST)
    # The quantiles, the outer ones moved out so that every distance lies above one and not above another.
    quantiles = np.quantile(distance, np.arange(FOCUS_LAYERS + 1) / FOCUS_LAYERS)
    quantiles += np.eye(FOCUS_LAYERS + 1)[-1] * _QUANTILE_MARGIN - np.eye(FOCUS_LAYERS + 1)[0] * _QUANTILE_MARGIN
    above = np.searchsorted(quantiles, distance)
    between = (distance - quantiles[above - 1]) / (quantiles[above] - quantiles[above - 1])
    # Both layers' shares fall with the square of how far off they are.
    low, high = 1 - between**2, 1 - (1 - between) ** 2
    low, high = low / (low + high), high / (low + high)
    # A lens blurs by how far off the focus is, in parts of the distance.
    deviations = aperture * np.abs(quantiles - quantiles[FOCUS_AT[name]]) / quantiles
    rows, result = as_rows(image), np.zeros((len(image), image.shape[1] * 3), dtype=np.float32)
    for layer, deviation in enumerate(deviations):
        share = np.where(above == layer + 1, low, 0) + np.where(above == layer, high, 0)
        if share.any():
            result += for_channels(share.astype(np.float32)) * symmetric(rows, _lens(deviation))
    return cut(result)


def _lens(deviation: float) -> np.ndarray:
    """Return the weights at distances 0, 1, ... of the makers' Gaussian, which ends at one and a half deviations."""
    if deviation < _SHARP:
        return np.ones(1)
    half = np.exp(-0.5 * (np.arange(int(3 * deviation) // 2 + 1) / deviation) ** 2)
    weights: np.ndarray = half / (2 * half.sum() - half[0])
    return weights


def _check_map(image: np.ndarray, values: np.ndarray, name: str) -> None:
    if values.shape != image.shape[:2] or not np.isfinite(values).all():
        raise InputError(
            f"{name}: a map of shape {values.shape} was given, expected finite numbers of shape {image.shape[:2]}"
        )
