"""How well a score tells images of the classes from others: areas and error rates from ranks, and their resamples.

In: scores float64[n] of images with a class (ID) and float64[m] of outliers, larger for what looks like a class. Out:
AUROC, and the two rates that are both called FPR@95, at the first threshold that 95 % reach, or at the one whose recall
is nearest to 95 %. Ties count as half in the area and as one image in the rates.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from synclones.evaluate.answers.predictions import Predictions
from synclones.evaluate.answers.softmax import entropies
from synclones.evaluate.bounds.intervals import resampled_counts

RECALL = 0.95


def max_probability(predictions: Predictions) -> np.ndarray:
    """Return the largest probability, float64[n] (Hendrycks and Gimpel 2017, arXiv 1610.02136)."""
    return predictions.confidence


def entropy(predictions: Predictions) -> np.ndarray:
    """Return the negative entropy of the probabilities in nats, float64[n]."""
    return -entropies(predictions.logits)


def energy(predictions: Predictions) -> np.ndarray:
    """Return the logarithm of the summed exponentials of the logits, float64[n] (Liu et al. 2020, arXiv 2010.03759)."""
    logits = predictions.logits.astype(np.float64)
    largest = logits.max(1)
    score: np.ndarray = largest + np.log(np.exp(logits - largest[:, None]).sum(1))
    return score


def max_logit(predictions: Predictions) -> np.ndarray:
    """Return the largest logit, float64[n] (Hendrycks et al. 2022, arXiv 1911.11132)."""
    largest: np.ndarray = predictions.logits.astype(np.float64).max(1)
    return largest


SCORES: dict[str, Callable[[Predictions], np.ndarray]] = {
    "max-probability": max_probability,
    "entropy": entropy,
    "energy": energy,
    "max-logit": max_logit,
}


@dataclass(frozen=True, eq=False)
class _Side:
    """Where the scores of one kind of images lie among all different scores."""

    order: np.ndarray
    """int64[n]: the images by ascending score."""
    ends: np.ndarray
    """int64[values]: how many of them have at most each score."""

    @classmethod
    def of(cls, scores: np.ndarray, values: np.ndarray) -> "_Side":
        """Sort scores; ``values`` are all different ones, ascending."""
        order = np.argsort(scores, kind="stable")
        return cls(order, np.searchsorted(scores[order], values, side="right"))

    def by_value(self, counts: np.ndarray) -> np.ndarray:
        """Return how many images have each score, float64[r, values], of counts float64[r, n]."""
        summed = np.concatenate([np.zeros((len(counts), 1)), counts[:, self.order].cumsum(1)], 1)
        return np.diff(summed[:, self.ends], axis=1, prepend=0.0)


@dataclass(frozen=True, eq=False)
class Separation:
    """Scores of both kinds, sorted once: every resample of the images is then a sum over ranks."""

    inside: np.ndarray
    """float64[n], of images with a class."""
    outside: np.ndarray
    """float64[m], of outliers."""
    nearest: bool = False
    """Whether the rates are at the recall nearest to 95 %, the higher of two, as in ``fpr_and_fdr_at_recall`` of
    Hendrycks et al. (hendrycks/outlier-exposure), which the papers' code takes; else at the first that reaches it."""

    @cached_property
    def _sides(self) -> tuple["_Side", "_Side"]:
        values = np.unique(np.concatenate([self.inside, self.outside]))
        return _Side.of(self.inside, values), _Side.of(self.outside, values)

    def rates(self, inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return AUROC, FPR@95 with ID positive and FPR@95 with outliers positive, float64[r] each.

        Args:
            inside: float64[r, n], how often each image with a class is drawn.
            outside: float64[r, m], how often each outlier is.
        """
        ids, others = (side.by_value(counts) for side, counts in zip(self._sides, (inside, outside), strict=True))
        n, m = ids.sum(1), others.sum(1)
        below = others.cumsum(1) - others
        area = (ids * (below + others / 2)).sum(1) / (n * m)
        # ID positive: the highest threshold that 95 % of ID reach; the rate is of outliers that reach it, too.
        at_least_ids = ids[:, ::-1].cumsum(1)
        rate_at = _rate_nearest if self.nearest else _rate_at
        id_positive = rate_at(at_least_ids, others[:, ::-1].cumsum(1), n, m)
        # Outliers positive: the lowest threshold that 95 % of outliers do not exceed; the rate is of ID there.
        outlier_positive = rate_at(others.cumsum(1), ids.cumsum(1), m, n)
        return area, id_positive, outlier_positive

    def measured(self) -> tuple[float, float, float]:
        """Return the three of the images as they are."""
        area, first, second = self.rates(np.ones((1, len(self.inside))), np.ones((1, len(self.outside))))
        return float(area[0]), float(first[0]), float(second[0])

    def resampled_rate(self, which: int, resamples: int, seed: int) -> np.ndarray:
        """Return one of the three on resamples of both kinds of images, float64[resamples]."""
        key = (resamples, seed)
        if key not in self._kept:
            self._kept[key] = self.resampled(resamples, seed)
        return self._kept[key][:, which]

    @cached_property
    def _kept(self) -> dict[tuple[int, int], np.ndarray]:
        return {}

    def resampled(self, resamples: int, seed: int) -> np.ndarray:
        """Return the three on resamples of both kinds of images, float64[resamples, 3]."""
        both = zip(_counts(len(self.inside), resamples, seed), _counts(len(self.outside), resamples, seed), strict=True)
        return np.array([[float(rate[0]) for rate in self.rates(a[None], b[None])] for a, b in both])


def _counts(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each of n images is drawn, float64[n], the same as other numbers of n images are resampled by."""
    for chunk in resampled_counts(n, resamples, seed):
        yield from chunk


def _rate_at(positive: np.ndarray, negative: np.ndarray, total: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the share of negatives at the first place where the positives, summed up, reach 95 % of their total."""
    needed = np.ceil(RECALL * total - 1e-9)  # counts are whole numbers, 95 % of 20 images are 19
    first = (positive >= needed[:, None]).argmax(1)
    rate: np.ndarray = negative[np.arange(len(first)), first] / others
    return rate


def _rate_nearest(positive: np.ndarray, negative: np.ndarray, total: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the share of negatives where the positives, summed up, are nearest to 95 % of their total."""
    # Whole numbers of twentieths, so that two recalls as near on either side are equal: then the higher one counts.
    distance = np.abs(20 * positive - 19 * total[:, None])
    last = positive.shape[1] - 1 - distance[:, ::-1].argmin(1)
    # Of thresholds with one recall it is the lowest, but for the recall of all: there it is the highest.
    complete = positive == total[:, None]
    at = np.where(complete[np.arange(len(last)), last], complete.argmax(1), last)
    rate: np.ndarray = negative[np.arange(len(at)), at] / others
    return rate
