"""Changes of colour and storage: brightness, contrast, saturation, pixelation, JPEG, elastic deformation.

In: ``uint8[h, w, 3]``, a severity's constants, a generator where chance has a part. Out: ``uint8[h, w, 3]``.
"""

from functools import cache

import numpy as np
from PIL import Image

from synclones.evaluate.corruptions.filters import smooth_field
from synclones.evaluate.corruptions.pixels import cut, cut_levels, jpeg_stored
from synclones.evaluate.corruptions.warp import affine_from_points, sample

_LEVELS = np.arange(256)
_ELASTIC_TRUNCATE, _FAR_PX = 3.0, 2.0**16


def brightness(image: np.ndarray, amount: float) -> np.ndarray:
    """Add to the value of HSV, limited to white; ``amount`` in units of white."""
    brightest = (
        image.max(2) if image.size < 2**14 else np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2])
    )
    entry = np.repeat(brightest.astype(np.uint16) << 8, 3, axis=1)
    np.bitwise_or(entry, image.reshape(len(image), -1), out=entry)
    return _brighter(amount).take(entry, mode="clip").reshape(image.shape)


@cache
def _brighter(amount: float) -> np.ndarray:
    """Return what becomes of a level: uint8[65536], at 256 times the brightest channel's level plus its own.

    Hue and saturation stay, so all channels are multiplied alike; black has none, and becomes grey.
    """
    brightest = np.maximum(_LEVELS, 1)[:, None]
    value = np.minimum(_LEVELS / 255 + amount, 1)[:, None]
    share = np.minimum(np.where(_LEVELS[:, None] > 0, _LEVELS / brightest, 1), 1)
    return cut_levels(255 * value * share).ravel()


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Pull every channel towards its mean."""
    rows = image.reshape(len(image), -1)
    means = rows.sum(0, dtype=np.int64).reshape(-1, 3).sum(0) * ((1 - factor) / (image.size / 3))
    result = rows * np.float32(factor)
    result += np.tile(means.astype(np.float32), image.shape[1])
    return cut(result)


def saturate(image: np.ndarray, constants: tuple[float, float]) -> np.ndarray:
    """Change the saturation of HSV to factor * saturation + summand, limited to 0..1."""
    high, low = image.max(2), image.min(2)
    ratio = _saturation_ratio(*constants).take(high.astype(np.intp) << 8 | low)
    top = high.astype(np.float32)[..., None]
    result = top - (top - image) * ratio[..., None]
    # Grey has no hue; HSV calls it red. What is given saturation therefore becomes red.
    grey = high == low
    result[grey, 1:] -= top[grey] * np.float32(min(max(constants[1], 0), 1))
    return cut(result.reshape(len(image), -1))


@cache
def _saturation_ratio(factor: float, summand: float) -> np.ndarray:
    """Return new over old saturation, float32[65536], at 256 times the brightest level plus the darkest."""
    high, low = np.maximum(_LEVELS, 1)[:, None], _LEVELS
    saturation = np.clip((high - low) / high, 0, 1)
    changed = np.clip(saturation * factor + summand, 0, 1)
    ratio = np.divide(changed, saturation, out=np.ones_like(changed), where=saturation > 0)
    return ratio.astype(np.float32).ravel()


def pixelate(image: np.ndarray, share: float) -> np.ndarray:
    """Shrink to a share of the pixels along each side and enlarge again, by boxes."""
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize(
        (max(1, int(width * share)), max(1, int(height * share))), Image.Resampling.BOX
    )
    return np.asarray(small.resize((width, height), Image.Resampling.BOX))


def jpeg_compression(image: np.ndarray, quality: int) -> np.ndarray:
    """Store as JPEG and read again."""
    return jpeg_stored(image, quality)


def elastic_transform(image: np.ndarray, constants: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Move three points and all others with them, then every pixel by a smooth random field.

    Constants (size of the moves, their smoothness, how far the three points move), px.
    """
    size, smoothness, reach = constants
    height, width = image.shape[:2]
    # Three corners of a square of a third of the image's side around its centre. Upstream takes (h, w) for (x, y),
    # which differs for images that are not square only.
    centre, third = np.array([height, width], dtype=np.float64) // 2, min(height, width) // 3
    points = centre + third * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + rng.uniform(-reach, reach, size=(3, 2))
    back = affine_from_points(moved, points).astype(np.float32)  # where each pixel of the result was
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    # Three points that are nearly on a line throw the others far out.
    columns, rows = (np.clip(a * x + b * y + c, -_FAR_PX, _FAR_PX) for a, b, c in back)
    turned = sample(image.astype(np.float32), rows, columns, whole=True)
    if not size:
        return cut(turned.reshape(height, -1))
    fields = rng.random((2, height, width), dtype=np.float32)
    fields -= np.float32(0.5)
    right, down = (smooth_field(field, smoothness, _ELASTIC_TRUNCATE) * np.float32(2 * size) for field in fields)
    return cut(sample(turned, y + down, x + right, whole=False).reshape(height, -1))
