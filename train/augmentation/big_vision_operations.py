"""The operations of big_vision's RandAugment, on PIL images: what ViT-S/16 and ViT-B/16 of AugReg were trained with.

In: an image, an operation's name, a magnitude. Out: the image changed. The definitions are those of
``big_vision/pp/autoaugment.py`` (google-research/big_vision), where names mean other things than in other libraries:
what is moved in from outside is grey 128, and nearest neighbours are taken; strengths of colour, contrast, brightness
and sharpness go from 0.1 to 1.9 without a sign; translations and cutouts are in px whatever the image's size; Contrast
blends with a grey that is a 256th of the number of pixels, at most 255, and not the mean; fractions are cut off; a low
magnitude keeps the fewest bits and solarises most.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageOps

BIG_VISION = (
    *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "Color", "Contrast", "Brightness"),
    *("Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout", "SolarizeAdd"),
)
GREY = (128, 128, 128)
MOST_DEGREES, MOST_SHEAR, MOST_PIXELS, MOST_CUT_PIXELS, MOST_ADDED = 30.0, 0.3, 100.0, 40, 110
BETWEEN = 2**-9  # px, more than what PIL's numbers are wrong by
HALF = 128  # from which on SolarizeAdd leaves values alone


def big_vision_operation(
    image: Image.Image, name: str, magnitude: float, *, negative: bool, at: tuple[float, float]
) -> Image.Image:
    """Apply an operation of `BIG_VISION` at ``magnitude`` 0..10, or more; signed ones turned around if ``negative``.

    ``at``: uniform numbers in [0, 1) that say where a cutout's centre is, from above and from the left.
    """
    share, sign = magnitude / 10, -1 if negative else 1
    factor, shear, shift = 1.8 * share + 0.1, sign * MOST_SHEAR * share, sign * MOST_PIXELS * share
    operations: dict[str, Callable[[], Image.Image]] = {
        "AutoContrast": lambda: _by_channel(image, _stretched),
        "Equalize": lambda: ImageOps.equalize(image),
        "Invert": lambda: ImageChops.invert(image),
        "Rotate": lambda: _rotated(image, math.radians(sign * MOST_DEGREES * share)),
        "Posterize": lambda: image.point([value & _kept_bits(int(4 * share)) for value in range(256)] * 3),
        "Solarize": lambda: image.point([v if v < int(256 * share) else 255 - v for v in range(256)] * 3),
        "SolarizeAdd": lambda: image.point(
            [min(v + int(MOST_ADDED * share), 255) if v < HALF else v for v in range(256)] * 3
        ),
        "Color": lambda: _blended(_grey(image)[..., None], image, factor),
        "Contrast": lambda: _blended(np.array(min(image.width * image.height // 256, 255)), image, factor),
        "Brightness": lambda: _blended(np.array(0), image, factor),
        "Sharpness": lambda: _blended(_smoothed(image), image, factor),
        "ShearX": lambda: _moved(image, (1, shear, 0), (0, 1, 0)),
        "ShearY": lambda: _moved(image, (1, 0, 0), (shear, 1, 0)),
        "TranslateX": lambda: _moved(image, (1, 0, shift), (0, 1, 0)),
        "TranslateY": lambda: _moved(image, (1, 0, 0), (0, 1, shift)),
        "Cutout": lambda: _cut(image, int(MOST_CUT_PIXELS * share), at),
    }
    return operations[name]()


def _kept_bits(bits: int) -> int:
    """Return a mask of the highest ``bits`` bits of a byte; without any the image turns black."""
    return 256 - (1 << max(8 - bits, 0))


def _by_channel(image: Image.Image, table: Callable[[int, int], list[int]]) -> Image.Image:
    """Look up every channel in a table that its own lowest and highest value make."""
    return Image.merge(image.mode, [channel.point(table(*channel.getextrema())) for channel in image.split()])


def _stretched(low: int, high: int) -> list[int]:
    """Return the table that makes the lowest value 0 and the highest 255; a channel of one value stays as it is."""
    if low == high:
        return list(range(256))
    scale = np.float32(255) / np.float32(high - low)
    values = np.arange(256, dtype=np.float32) * scale - np.float32(low) * scale
    table: list[int] = np.clip(values, 0, 255).astype(np.uint8).tolist()
    return table


def _blended(other: np.ndarray, image: Image.Image, factor: float) -> Image.Image:
    """Return ``factor`` of the image and the rest of ``other``, above 1 beyond the image; fractions are cut off."""
    if factor == 1:
        return image
    start, end = other.astype(np.float32), np.asarray(image, dtype=np.float32)
    values = start + np.float32(factor) * (end - start)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _grey(image: Image.Image) -> np.ndarray:
    """Return the brightness as TensorFlow's ``rgb_to_grayscale`` rounds it: uint8[h, w]."""
    pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
    weights = np.array([0.2989, 0.587, 0.114], dtype=np.float32)
    return (pixels @ weights * np.float32(255.5)).astype(np.uint8)


def _smoothed(image: Image.Image) -> np.ndarray:
    """Return each pixel's five shares of 13 and its neighbours' one each; the edge of the image as it is."""
    pixels = np.asarray(image, dtype=np.int32)
    height, width = pixels.shape[:2]
    smooth = pixels.copy()
    if min(height, width) > 2:
        windows = [pixels[top : height - 2 + top, left : width - 2 + left] for top in range(3) for left in range(3)]
        smooth[1:-1, 1:-1] = (sum(windows) + 4 * windows[4]) // 13
    return smooth


def _moved(image: Image.Image, across: tuple[float, float, float], down: tuple[float, float, float]) -> Image.Image:
    """Show at (x, y), whole numbers, the pixel nearest to (across, down) times (x, y, 1); grey outside."""
    # PIL asks at the centres of pixels and cuts off; half of each row of the matrix goes back to their numbers. What
    # lies between two pixels is the farther one's: PIL's fixed-point numbers would let it fall to either.
    data = [number for a, b, c in (across, down) for number in (a, b, c + 0.5 - (a + b) / 2 + BETWEEN)]
    return image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.NEAREST, fillcolor=GREY)


def _rotated(image: Image.Image, radians: float) -> Image.Image:
    """Turn about the centre."""
    cos, sin = math.cos(radians), math.sin(radians)
    x, y = (image.width - 1) / 2, (image.height - 1) / 2
    return _moved(image, (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y))


def _cut(image: Image.Image, reach: int, at: tuple[float, float]) -> Image.Image:
    """Make a square of twice ``reach`` px grey, its centre anywhere in the image."""
    top, left = int(at[0] * image.height), int(at[1] * image.width)
    changed = image.copy()
    box = max(left - reach, 0), max(top - reach, 0), min(left + reach, image.width), min(top + reach, image.height)
    if reach:
        changed.paste(GREY, box)
    return changed
