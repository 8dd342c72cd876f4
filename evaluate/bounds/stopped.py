"""The images of a set whose number was chosen by looking at the accuracy: what can still be said of them.

In: right or wrong of each image. Out: intervals that hold however often one looked, about all images of the set; and
whether enough were seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from synclones.evaluate.bounds.intervals import Interval
from synclones.evaluate.bounds.sequential import ALPHA, difference_bounds, look_schedule, share_bounds

BLOCK = 512
"""How many images come in between two looks; another number would stop elsewhere."""


@dataclass(frozen=True, eq=False)
class Stopped:
    """At which look a set ended, and in which order its images came in."""

    images: int
    """Of the whole set, or of all that were to be looked at."""
    half_width: float
    """What was asked for, a fraction."""
    drawn: np.ndarray
    """int64[n]: which image of the set came first, second, ..."""

    def share(self, correct: np.ndarray) -> Interval:
        """Return the accuracy of bool or float64[n] with bounds of that on the whole set."""
        return share_bounds(correct[self.drawn] > 0, self.images, self.half_width, np.array([len(self.drawn)]))[0]

    def difference(self, differences: np.ndarray) -> Interval:
        """Return the mean of float64[n] in -1..1 with bounds of that on the whole set."""
        return difference_interval(differences[self.drawn], self.images, self.half_width)


def difference_interval(drawn: np.ndarray, images: int, half_width: float, alpha: float = ALPHA) -> Interval:
    """Return the mean difference of images in drawn order, float64[n]; since bounds hold at all looks, so do the
    narrowest of them together.
    """
    bounds = difference_bounds(drawn, images, half_width, look_schedule(len(drawn), BLOCK), alpha)
    value = float(bounds.value[-1])
    return Interval(value, min(float(bounds.low.max()), value), max(float(bounds.high.min()), value))


def enough(correct: Sequence[np.ndarray], images: int, half_width: float) -> str:
    """Return why no more images are needed, in words; empty where more are.

    Either every accuracy is as sure as was asked for; or, of several models, every two are told apart, or their
    difference is as sure: all pairs at once with the probability that one interval has.

    Args:
        correct: bool[n] of each model, in drawn order.
        images: in the whole set.
        half_width: a fraction.
    """
    seen = np.array([len(correct[0])])
    if all(_narrow(share_bounds(own, images, half_width, seen)[0], half_width) for own in correct):
        return f"every accuracy on all {images:,} is known to {points(half_width)}"
    pairs = list(combinations([own.astype(np.float64) for own in correct], 2))
    differences = (difference_interval(a - b, images, half_width, ALPHA / len(pairs)) for a, b in pairs)
    if pairs and all(not item.inside_noise or _narrow(item, half_width) for item in differences):
        return (
            f"every two models are told apart, or their difference on all {images:,} is known to {points(half_width)}"
        )
    return ""


def _narrow(interval: Interval, half_width: float) -> bool:
    return interval.high - interval.low <= 2 * half_width


def points(half_width: float) -> str:
    """Return ``1 pp``."""
    return f"{100 * half_width:g} pp"
