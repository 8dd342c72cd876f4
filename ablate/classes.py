"""Which classes grow with the number of images: easy, scaling or poor, by intervals of their accuracy.

In: right answers by class at each size. Out: a `ClassCurve` per class. The three words are those of Fan et al. 2024
(arXiv 2312.04567); the rule by which a class gets one is ours and stated in `kind_of_class`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from synclones.evaluate.intervals import Interval, wilson

Kind = Literal["scaling", "falling", "easy", "poor", "cannot be told"]
KINDS: tuple[Kind, ...] = ("easy", "scaling", "poor", "falling", "cannot be told")


@dataclass(frozen=True)
class ClassCurve:
    """A class at growing sizes.

    Attributes:
        label: its number.
        shares: accuracy at each size, with Wilson's interval.
        gain: accuracy at the largest less that at the smallest size.
        kind: easy, scaling, poor, falling, or cannot be told.
    """

    label: int
    shares: tuple[Interval, ...]
    gain: Interval
    kind: Kind


def answers_by_class(labels: np.ndarray, correct: np.ndarray, classes: int) -> np.ndarray:
    """Return how many images of each class were right, and how many there are, int64[classes, 2]."""
    right = np.bincount(labels[correct], minlength=classes)
    return np.stack([right, np.bincount(labels, minlength=classes)], 1)


def class_curves(sizes: Sequence[Sequence[np.ndarray]]) -> list[ClassCurve]:
    """Return the curve of every class that has images.

    Accuracies are means over trainings; trainings see the same images, so intervals are those of one, with as many
    images as the class has. They say nothing about other trainings.

    Args:
        sizes: for each size from small to large, `answers_by_class` of each training, int64[classes, 2].
    """
    means = [np.mean(np.stack(list(trainings)), axis=0) for trainings in sizes]
    overall = float(means[-1][:, 0].sum() / max(1, means[-1][:, 1].sum()))
    curves = []
    for label in range(len(means[0])):
        counts = [mean[label] for mean in means]
        if all(count[1] > 0 for count in counts):
            shares = tuple(_share(float(right), int(images)) for right, images in counts)
            gain = newcombe(shares[-1], shares[0])
            curves.append(ClassCurve(label, shares, gain, kind_of_class(shares, gain, overall)))
    return curves


def _share(right: float, images: int) -> Interval:
    """Return Wilson's interval of a mean count over trainings, which need not be whole."""
    below, above = wilson(int(np.floor(right)), images), wilson(int(np.ceil(right)), images)
    part = right - np.floor(right)
    low, high = ((1 - part) * a + part * b for a, b in ((below.low, above.low), (below.high, above.high)))
    return Interval(right / images, float(low), float(high))


def newcombe(a: Interval, b: Interval) -> Interval:
    """Return the difference of two shares with Newcombe's hybrid score interval (Newcombe 1998, method 10)."""
    value = a.value - b.value
    low = value - np.hypot(a.value - a.low, b.high - b.value)
    high = value + np.hypot(a.high - a.value, b.value - b.low)
    return Interval(value, float(low), float(high))


def kind_of_class(shares: Sequence[Interval], gain: Interval, overall: float) -> Kind:
    """Return what growth does to a class.

    ``scaling``: the gain from the smallest to the largest size is above 0 by its interval; ``falling``: below 0. Of the
    others, ``easy``: the accuracy at the smallest size is above the mean accuracy of all classes at the largest size by
    its interval; ``poor``: that at the largest size is below that mean by its interval; else it cannot be told.
    """
    if not gain.inside_noise:
        return "scaling" if gain.value > 0 else "falling"
    if shares[0].low > overall:
        return "easy"
    return "poor" if shares[-1].high < overall else "cannot be told"
