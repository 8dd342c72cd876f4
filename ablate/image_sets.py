"""What a set of images is like: whether a judge recognises what was asked for, and how various the images are.

In: what a judge (a network trained on real images) answered about the images, and its features of them. Out: shares
with intervals, distances and effective numbers. NumPy alone; no perceptual distance such as LPIPS is needed.
"""

from dataclasses import dataclass

import numpy as np

from synclones.evaluate.intervals import Interval, wilson

MOST_OF_A_CLASS = 1000
"""Images of one class that distances are measured between; of more, evenly spaced ones are taken."""


@dataclass(frozen=True)
class Diversity:
    """How various the images of a class are, on the mean over classes with two images or more.

    Attributes:
        distance: mean cosine distance of two images of a class, 0..2 (0: all are the same).
        effective: Vendi score: as how many altogether different images they count, 1 to ``images``.
        deviation: mean over features of their standard deviation within a class, as in Fan et al. 2024.
        images: how many of a class were looked at, on the mean.
        classes: how many.
    """

    distance: float
    effective: float
    deviation: float
    images: float
    classes: int


def recognisability(answers: np.ndarray, asked: np.ndarray) -> Interval:
    """Return the share of images that the judge recognises as what was asked for, with Wilson's interval.

    Args:
        answers, asked: int64[n] each, n > 0.
    """
    return wilson(int((answers == asked).sum()), len(asked))


def macro_f1(answers: np.ndarray, asked: np.ndarray) -> float:
    """Return the mean over asked classes of F1 = 2 TP / (2 TP + FP + FN): what Fan et al. 2024 call recognisability."""
    scores = []
    for label in np.unique(asked):
        right = int(((answers == label) & (asked == label)).sum())
        scores.append(2 * right / int((answers == label).sum() + (asked == label).sum()))
    return float(np.mean(scores))


def diversity(features: np.ndarray, labels: np.ndarray) -> Diversity | None:
    """Return how various the images of the classes are; None where no class has two images.

    Args:
        features: float[n, d]; lengths do not matter to distances and effective numbers.
        labels: int64[n].
    """
    own = []
    for label in np.unique(labels):
        rows = features[labels == label].astype(np.float64)
        if len(rows) > MOST_OF_A_CLASS:
            rows = rows[np.linspace(0, len(rows) - 1, MOST_OF_A_CLASS).astype(np.int64)]
        if len(rows) > 1:
            own.append((mean_distance(rows), vendi_score(rows), float(rows.std(0, ddof=1).mean()), len(rows)))
    if not own:
        return None
    distance, effective, deviation, images = np.mean(own, axis=0)
    return Diversity(float(distance), float(effective), float(deviation), float(images), len(own))


def mean_distance(features: np.ndarray) -> float:
    """Return the mean of 1 - cosine over all pairs of rows float64[n, d], n > 1."""
    n, rows = len(features), _unit(features)
    # The sum of all products is the squared length of the sum of all rows; n of them are of a row with itself.
    total = float((rows.sum(0) ** 2).sum()) - float((rows**2).sum())
    return 1 - total / (n * (n - 1))


def vendi_score(features: np.ndarray) -> float:
    """Return exp(-sum l log l) over the eigenvalues l of K / n, K the cosines of rows float64[n, d].

    Source: Friedman and Dieng 2023, The Vendi Score, arXiv 2210.02410. The eigenvalues are those of the smaller of
    K / n and the d x d matrix of second moments.
    """
    rows = _unit(features)
    products = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    values = np.linalg.eigvalsh(products / len(rows))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def _unit(features: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit: np.ndarray = features / np.where(lengths > 0, lengths, 1.0)
    return unit
