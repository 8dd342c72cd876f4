"""The random crop of training, by one published definition: which part of an image is shown, and whether mirrored.

In: uniform numbers of one image, and its size. Out: a box in whole pixels. The definition is torchvision's
``RandomResizedCrop`` (its ``get_params``), after Inception's crop (Szegedy et al. 2015).
"""

import math
from collections.abc import Iterator

Box = tuple[int, int, int, int]
"""(left, top, width, height) in px."""

TRIES = 10
RATIO_MAX = 4 / 3
_LOG_RATIO_MAX = math.log(RATIO_MAX)


def random_box(
    draws: Iterator[float], left: float, top: float, size: tuple[int, int], scale_min: float, scale_max: float
) -> Box:
    """Return the part of an image of ``size`` (height, width) that a random crop shows.

    ``draws``: uniform numbers in [0, 1), of which a pair is taken per try until a box fits into the image: area share
    uniform in ``scale_min``..``scale_max``, aspect ratio logarithmically uniform in 3/4..4/3. ``left``, ``top``:
    uniform numbers that place it among all whole pixels. When none of 10 fits, the largest box at the centre with an
    aspect ratio in these limits.
    """
    height, width = size
    for _ in range(TRIES):
        area = height * width * (scale_min + (scale_max - scale_min) * next(draws))
        ratio = math.exp(_LOG_RATIO_MAX * (2 * next(draws) - 1))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))  # half to even, as torchvision rounds
        if 0 < w <= width and 0 < h <= height:
            return int(left * (width - w + 1)), int(top * (height - h + 1)), w, h
    limited = min(max(width / height, 1 / RATIO_MAX), RATIO_MAX)
    w, h = min(width, max(1, round(height * limited))), min(height, max(1, round(width / limited)))
    return (width - w) // 2, (height - h) // 2, w, h


def centre_box(size: tuple[int, int]) -> Box:
    """Return the largest centred square of an image of ``size`` (height, width), offsets rounded half to even."""
    height, width = size
    side = min(height, width)
    return round((width - side) / 2), round((height - side) / 2), side, side
