"""Encoded image bytes to pixels, with bounds checked before any pixel is decoded.

In: the bytes of a jpg, png or webp. Out: ``uint8[height, width, 3]``, RGB.
"""

import io
import warnings

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from synclones.base.errors import VerificationError

MAX_PIXELS = 2**24  # 4096 x 4096: far above any training image, far below a decompression bomb
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")  # of the files and members that are taken for images
_FORMATS = ("PNG", "JPEG", "WEBP")
# Pillow only warns up to twice its own bound, in lines that users would see beside ours.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def decode_jpeg(data: bytes, *, max_pixels: int = MAX_PIXELS, where: str = "image") -> np.ndarray:
    """Decode JPEG bytes to ``uint8[height, width, 3]``.

    Raises:
        VerificationError: anything but a JPEG in bounds.
    """
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        _check_bounds(height, width, max_pixels, where)
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError as error:
        raise VerificationError(f"{where}: not a JPEG that decodes ({error}); verify or redo its shard") from None
    return pixels


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS, where: str = "image") -> np.ndarray:
    """Decode JPEG, PNG or WebP bytes, told apart by content, to ``uint8[height, width, 3]``.

    Raises:
        VerificationError: none of them, or one that does not decode or is out of bounds.
    """
    if data[:2] == b"\xff\xd8":
        return decode_jpeg(data, max_pixels=max_pixels, where=where)
    try:
        # Opening reads the header alone; the size is known before a pixel is decoded.
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_bounds(image.height, image.width, max_pixels, where)
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, *_BOMBS) as error:
        raise VerificationError(f"{where}: no PNG, JPEG or WebP that decodes ({error}); remove the sample") from None


def _check_bounds(height: int, width: int, max_pixels: int, where: str) -> None:
    if height * width > max_pixels:
        raise VerificationError(
            f"{where}: {width}x{height} pixels, at most {max_pixels} are decoded; remove the sample"
        )
