"""Corruptions of ImageNet-3DCC that need no network: of colour and noise alone, and of depth for who has maps of it.

In: ``uint8[h, w, 3]``, a severity's constants, a generator where chance has a part. Out: ``uint8[h, w, 3]``.
`iso_noise` is in `noise`.
"""

import numpy as np

from synclones.base.errors import InputError
from synclones.evaluate.corruptions.constants import FLASH, FOG_3D, LOW_LIGHT_NOISE
from synclones.evaluate.corruptions.pixels import as_rows, cut, for_channels


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
    seen = for_channels(np.exp(-FOG_3D[severity - 1] * np.clip(depth, 0, 0.5)).astype(np.float32))
    return cut(as_rows(image) * seen + (1 - seen) * np.float32(image.mean()))


def _check_map(image: np.ndarray, values: np.ndarray, name: str) -> None:
    if values.shape != image.shape[:2] or not np.isfinite(values).all():
        raise InputError(
            f"{name}: a map of shape {values.shape} was given, expected finite numbers of shape {image.shape[:2]}"
        )
