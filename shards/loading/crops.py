"""Encoded images to the square pixels that a batch holds.

In: the bytes of a jpg, png or webp. Out: ``uint8[size, size, 3]``, RGB. Augmentation comes later, on the device.
"""

import numpy as np
from PIL import Image

from synclones.shards.sources.decode import decode_image


def decode(data: bytes, size_px: int, *, where: str = "image") -> np.ndarray:
    """Decode an image, shrink or enlarge its shorter side to ``size_px`` and crop the centre.

    uint8[size_px, size_px, 3]; an image of that size is not resampled. Filter: PIL's bilinear, antialiased. Sizes and
    offsets round as torchvision's Resize and CenterCrop do. ``where`` names the image in messages.

    Raises:
        VerificationError: no image that decodes, or one too large to be decoded.
    """
    pixels = decode_image(data, where=where)
    height, width = pixels.shape[:2]
    if (height, width) == (size_px, size_px):
        return pixels
    short = min(height, width)
    width, height = (int(size_px * side / short) for side in (width, height))
    resized = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    left, top = round((width - size_px) / 2), round((height - size_px) / 2)
    return np.ascontiguousarray(resized[top : top + size_px, left : left + size_px])
