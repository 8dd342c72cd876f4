"""A batch of images, and where each of them comes from.

In and out: nothing; the loader makes them, threads or processes fill them, a training reads them.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from synclones.shards.loading.extras import BatchExtras


@dataclass(frozen=True)
class Batch:
    """One rank's part of a global batch; every array has one entry per image, groups together."""

    step: int
    pixels: torch.Tensor
    """uint8[n, views, s, s, 3]; or float32[n, 1, d], features in the place of images."""
    labels: torch.Tensor
    """int64[n]."""
    weights: torch.Tensor
    """float32[n]: 1, and 0 for an image that was dropped as damaged (its pixels are 0)."""
    source: np.ndarray
    """int64[n]: number of the set in the mixture."""
    index: np.ndarray
    """int64[n]: the image's number in its set."""
    times_seen: np.ndarray
    """int64[n]: how often the image was shown before."""
    local: torch.Tensor | None = None
    """uint8[n, local views, s, s, 3], of multi-crop."""
    extras: BatchExtras = BatchExtras()
    """What the objective asked for besides."""
    first: int = 0
    """Position of the first image in the global batch."""


Filled = tuple[list[str], Counter[str]]
"""What is wrong with the images that were left out, and what was converted."""


@dataclass(frozen=True)
class Slot:
    """Where one image of a batch comes from."""

    part: int
    position: int
    times_seen: int


def tensors_of(batch: Batch) -> dict[str, torch.Tensor]:
    """Return by name what is filled image by image, sharing its memory."""
    named = {"pixels": batch.pixels, "labels": batch.labels, "weights": batch.weights}
    named |= {"index": torch.from_numpy(batch.index)}
    extras = batch.extras
    more = {"local": batch.local, "tokens": extras.tokens, "caption": extras.caption, "array": extras.array}
    return named | {name: tensor for name, tensor in more.items() if tensor is not None}
