"""What an objective computes its losses of: a part of a batch on the device, and what is compared between images.

In and out: nothing; `Presenter` makes the first, `gradients` the second.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

Names = tuple[np.ndarray, np.ndarray, np.ndarray]
NO_NAMES: Names = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))


@dataclass(frozen=True)
class TrainingBatch:
    """What an objective computes its losses of, on the device; a row per image, groups of one caption together."""

    views: tuple[Tensor, ...]
    """float32[n, 3, s, s] in 0..1, augmented: the crops of each image, global ones first, then local ones;
    or the one tensor float32[n, d] of features that are read in their place."""
    labels: Tensor
    """int64[n]; -1 in sets without labels."""
    weights: Tensor
    """float32[n]: 0 for an image that was left out."""
    tokens: Tensor | None = None
    """int64[n, text_length], where ``COLUMNS`` has caption."""
    caption: Tensor | None = None
    """int64[n]: equal numbers share a caption, where ``COLUMNS`` has caption_id."""
    text: Tensor | None = None
    """int64[n]: equal numbers are equal texts, where ``COLUMNS`` has caption."""
    array: Tensor | None = None
    """float32[n, k], where ``COLUMNS`` has vector."""
    targets: Tensor | None = None
    """float32[n, classes]: shares of the classes, label smoothing included, where images were mixed."""
    names: Names = NO_NAMES
    """Set, number and showing of each image, int64[n]: what random choices follow from."""
    lesson: Any = None
    """The outputs of the teacher, where the objective has one."""

    @property
    def images(self) -> Tensor:
        """The first view."""
        return self.views[0]


@dataclass(frozen=True)
class Embedded:
    """What images are compared by, of one process or of all of them in the order of the global batch."""

    rows: dict[str, Tensor]
    """float32[n, ...] by name, as ``embed`` returned it."""
    shared: dict[str, Tensor]
    """float32[] by name: numbers of all images, such as a scale."""
    labels: Tensor
    """int64[n]."""
    weights: Tensor
    """float32[n]."""
    caption: Tensor
    """int64[n]: equal numbers share a caption; each has its own where the objective asks for none."""
    text: Tensor
    """int64[n]: equal numbers are equal texts, whatever their captions' numbers; likewise."""
    first: int = 0
    """Position of the first row among those of all processes."""
