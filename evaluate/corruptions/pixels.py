"""Between images and numbers: as float32 for arithmetic, back to 8 bits as the published sets were stored.

In: ``uint8[h, w, 3]``. Out: ``float32[h, w * 3]``, 0 to 255, rows of interleaved channels, and back.
"""

import io

import numpy as np
from PIL import Image

# The published sets cut fractions off. Half of a thousandth of a grey level keeps a value that is whole in exact
# arithmetic from being cut to the one below it, which rounding would decide from machine to machine.
_NEARLY_WHOLE = np.float32(1 / 2048)


def as_rows(image: np.ndarray) -> np.ndarray:
    """Return uint8[h, w, 3] as float32[h, w * 3], 0 to 255."""
    return image.reshape(len(image), -1).astype(np.float32)


def cut(rows: np.ndarray) -> np.ndarray:
    """Return float32[h, w * 3] as uint8[h, w, 3], limited to 0 to 255, fractions cut off; ``rows`` is overwritten."""
    return cut_levels(rows).reshape(len(rows), -1, 3)


def cut_levels(levels: np.ndarray) -> np.ndarray:
    """Return float[...] as uint8[...], limited to 0 to 255, fractions cut off; ``levels`` is overwritten."""
    np.add(levels, _NEARLY_WHOLE, out=levels)
    np.maximum(levels, 0, out=levels)  # two ufuncs, since `clip` costs more than both on small images
    np.minimum(levels, 255, out=levels)
    return levels.astype(np.uint8)


def rounded(rows: np.ndarray) -> np.ndarray:
    """Return float32[h, w * 3] as uint8[h, w, 3], limited to 0 to 255 and rounded; ``rows`` is overwritten."""
    np.add(rows, np.float32(0.5) - _NEARLY_WHOLE, out=rows)
    return cut(rows)


def for_channels(plane: np.ndarray) -> np.ndarray:
    """Return [h, w] as [h, w * 3]: each value once for each channel."""
    return np.repeat(plane, 3, axis=1)


def jpeg_stored(image: np.ndarray, quality: int, *, optimize: bool = False) -> np.ndarray:
    """Return uint8[h, w, 3] as it comes back from a JPEG file of PIL (4:2:0)."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, optimize=optimize)
    return np.asarray(Image.open(file, formats=["JPEG"]))
