"""Weather: snow, frost, fog.

In: ``uint8[h, w, 3]``, a severity's constants, a generator. Out: ``uint8[h, w, 3]``.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np

from synclones.evaluate.corruptions.filters import motion
from synclones.evaluate.corruptions.pixels import as_rows, cut, for_channels
from synclones.evaluate.corruptions.plasma import map_size, plasma
from synclones.evaluate.corruptions.warp import zoomed

_GREY = (np.float32(0.299), np.float32(0.587), np.float32(0.114))
_SNOW_DEGREES = (-135, -45)
# Mean and deviation of the published sets' five textures, measured: what procedural ones have instead. The second and
# third are one image in two files.
_FROSTS = (
    ((78, 149, 166), 16),
    ((201, 205, 214), 21),
    ((201, 205, 214), 21),
    ((138, 153, 165), 28),
    ((112, 123, 135), 43),
)
_FROST_DECAY = 1.3


def snow(image: np.ndarray, constants: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """Whiten the image and let streaks fall over it, and once more turned by 180 degrees."""
    height, width = image.shape[:2]
    mean, deviation, zoom, threshold, radius, along, share = constants
    # Flakes: bright spots of noise, enlarged. Only what the zoom shows is drawn.
    window = ceil(height / zoom) + 1, ceil(width / zoom) + 1
    layer = rng.standard_normal(window, dtype=np.float32) * np.float32(deviation) + np.float32(mean)
    layer = zoomed(layer, zoom, height, width) if zoom != 1 else layer[:height, :width]
    layer = np.where(layer < threshold, 0, np.clip(layer, 0, 1))
    # Upstream stores the layer in 8 bits before and after ImageMagick blurs it, cut the first time, then rounded.
    layer = np.floor(layer * 255)
    layer = np.rint(motion(layer, int(radius), along, rng.uniform(*_SNOW_DEGREES), channels=1))
    fallen = layer + layer[::-1, ::-1]
    # Between the image and a bright grey of it.
    rows = as_rows(image)
    grey = rows[:, 0::3] * _GREY[0] + rows[:, 1::3] * _GREY[1] + rows[:, 2::3] * _GREY[2]
    bright = np.maximum(rows, for_channels(grey * np.float32(1.5) + np.float32(127.5)))
    rows *= np.float32(share)
    bright *= np.float32(1 - share)
    rows += bright
    rows += for_channels(fallen)
    return cut(rows)


def fog(image: np.ndarray, constants: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Add clouds and darken to the image's own brightest value: constants (amount of clouds, decay of their detail)."""
    height, width = image.shape[:2]
    amount, decay = constants
    clouds = plasma(map_size(image), decay, rng)[:height, :width]
    brightest = image.max() / 255
    scale = brightest / (brightest + amount)
    rows = as_rows(image)
    rows += for_channels(clouds * np.float32(255 * amount))
    rows *= np.float32(scale)
    return cut(rows)


def frost(
    image: np.ndarray, constants: tuple[float, float], rng: np.random.Generator, textures: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """Add a texture: constants (share of the image, share of the texture).

    Args:
        textures: uint8[a, b, 3] each, larger than the image; one is drawn and cut at random. Without any, one is made
            that has the published ones' colour and contrast, and another pattern.
    """
    height, width = image.shape[:2]
    if textures:
        chosen = textures[int(rng.integers(len(textures)))]
        top, left = rng.integers(0, chosen.shape[0] - height + 1), rng.integers(0, chosen.shape[1] - width + 1)
        texture = as_rows(chosen[top : top + height, left : left + width])
    else:
        texture = frost_texture(map_size(image), rng)[:height, : width * 3]
    rows = as_rows(image)
    rows *= np.float32(constants[0])
    texture *= np.float32(constants[1])
    rows += texture
    return cut(rows)


def frost_texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a procedural texture: the ridges of a fractal in icy colours, float32[size, size * 3], 0 to 255."""
    colour, deviation = _FROSTS[rng.integers(len(_FROSTS))]
    ridges = np.abs(plasma(size, _FROST_DECAY, rng) - np.float32(0.5))
    ridges -= ridges.mean()
    ridges *= np.float32(-deviation / max(ridges.std(), 1e-6))
    texture = for_channels(ridges)
    texture += np.tile(np.asarray(colour, dtype=np.float32), size)
    return np.clip(texture, 0, 255, out=texture)
