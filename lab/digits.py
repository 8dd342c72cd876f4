"""Real handwritten digits and photographs: the only real data of the lab.

Out: scikit-learn's 1,797 digits (8x8, 0..16; the test part of UCI's optdigits) in three disjoint splits, and its two
photographs as small backgrounds. The split is fixed by position: the k-th digit of each class goes to a split by
``k % 10``, so every class is divided 4 : 3 : 3 and nothing random decides what the generator may see.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from sklearn.datasets import load_digits, load_sample_images

Split = Literal["generator-train", "classifier-train", "test"]

SPLIT_OF_REMAINDER: dict[Split, tuple[int, ...]] = {
    "generator-train": (0, 3, 6, 9),
    "classifier-train": (1, 4, 7),
    "test": (2, 5, 8),
}
DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# Names by which captions ask for a photograph behind the digit.
PLACES = ("temple", "flower")
PLACE_SHORT_SIDE_PX = 96


@lru_cache(maxsize=1)
def _all_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Strokes float32[1797, 8, 8] in 0..1, labels int64[1797], and each digit's rank within its class."""
    data = load_digits()
    labels = data.target.astype(np.int64)
    rank = np.empty(len(labels), dtype=np.int64)
    for digit in range(10):
        rank[labels == digit] = np.arange((labels == digit).sum())
    return (data.images / 16.0).astype(np.float32), labels, rank


def load_split(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return strokes float32[n, 8, 8] in 0..1 and labels int64[n] of one split, in the dataset's order.

    Raises:
        ValueError: ``split`` is not one of the three.
    """
    if split not in SPLIT_OF_REMAINDER:
        raise ValueError(f"split {split!r} is unknown; choose one of {', '.join(SPLIT_OF_REMAINDER)}")
    strokes, labels, rank = _all_digits()
    chosen = np.isin(rank % 10, SPLIT_OF_REMAINDER[split])
    return strokes[chosen], labels[chosen]


@lru_cache(maxsize=1)
def load_places() -> tuple[np.ndarray, ...]:
    """Return the photographs named by ``PLACES`` as float32[h, w, 3] in 0..1, the shorter side 96 px (area mean)."""
    photographs = dict(zip(("temple", "flower"), load_sample_images().images, strict=True))
    return tuple(_shrink(photographs[name] / 255.0) for name in PLACES)


def _shrink(image: np.ndarray) -> np.ndarray:
    factor = min(image.shape[:2]) // PLACE_SHORT_SIDE_PX
    height, width = (side // factor * factor for side in image.shape[:2])
    blocks = image[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    return blocks.mean(axis=(1, 3)).astype(np.float32)
