"""Further measures of what probabilities are worth: bins of equal mass or of every class, likelihood, Brier's score.

In: confidences float64[n], or logits float32[n, classes] and labels int64[n]. Out: terms of each image, or values, also
on resamples of the images.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from synclones.evaluate.answers.softmax import blocks, sums
from synclones.evaluate.bounds.intervals import CHUNK_NUMBERS, resampled_counts

_CLASSES = 128
"""Columns of one block: with 50,000 images 51 MB in float64."""


def equal_mass_edges(ascending: np.ndarray, bins: int) -> np.ndarray:
    """Return the edges of bins that hold as many of n sorted values each, float64[bins + 1].

    Edge k is the value at position k n / bins, between two values in proportion; the last is the largest value. As in
    ``histedges_equalN`` of Mukhoti et al. 2020 (torrvision/focal_calibration).
    """
    n = len(ascending)
    edges: np.ndarray = np.interp(np.linspace(0, n, bins + 1), np.arange(n), ascending)
    return edges


def equal_mass_bins(confidences: np.ndarray, bins: int) -> np.ndarray:
    """Return each value's bin, int64[n]: bin b is (edge b, edge b + 1], and the first one holds its lower edge too."""
    edges = equal_mass_edges(np.sort(confidences), bins)
    number: np.ndarray = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, bins - 1)
    return number


@dataclass(frozen=True, eq=False)
class EqualMass:
    """The calibration error over bins of equal mass; the bins of a resample are its own."""

    confidences: np.ndarray
    """float64[n]."""
    correct: np.ndarray
    """bool[n]."""
    bins: int

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the confidences ascending, and what is gained by each image: correct - confidence."""
        order = np.argsort(self.confidences, kind="stable")
        gaps = (self.correct[order] - self.confidences[order]).astype(np.float64)
        return self.confidences[order], np.round(gaps * 2.0**30) / 2.0**30  # sums are exact

    def measured(self) -> float:
        """Return the error of the images as they are: the sum over bins of |accuracy - confidence| n_b / n."""
        return self._error(np.ones(len(self.confidences)))

    def resampled(self, resamples: int, seed: int) -> np.ndarray:
        """Return the error on resamples of the images, float64[resamples]."""
        order = np.argsort(self.confidences, kind="stable")
        drawn = resampled_counts(len(order), resamples, seed)
        return np.array([self._error(counts[order]) for chunk in drawn for counts in chunk])

    def _error(self, counts: np.ndarray) -> float:
        """Return the error where the images by ascending confidence are there ``counts`` times, float64[n]."""
        values, gaps = self._sorted
        ends, n = counts.cumsum(), int(counts.sum())
        # The edges of the drawn images, found without writing each out as often as it was drawn.
        at = np.minimum(np.linspace(0, n, self.bins + 1), n - 1)
        low = np.floor(at)
        below, above = (values[np.searchsorted(ends, k, side="right")] for k in (low, np.minimum(low + 1, n - 1)))
        edges = below + (at - low) * (above - below)
        # Bin b is (edge b, edge b + 1]; the first holds its lower edge too.
        upto = np.searchsorted(values, edges, side="right")
        upto[0], upto[-1] = 0, len(values)
        summed = np.concatenate([[0.0], (counts * gaps).cumsum()])
        return float(np.abs(np.diff(summed[upto])).sum() / n)


@dataclass(frozen=True, eq=False)
class ClassWise:
    """The calibration error of every class's probability, bins of equal width, averaged over classes.

    Of most images the probability of most classes is in the lowest bin. So the sums over that bin are those over all
    bins, which are sums over columns, less those of the few others.
    """

    logits: np.ndarray
    """float32[n, classes]."""
    labels: np.ndarray
    """int64[n]."""
    bins: int

    def measured(self) -> float:
        """Return the error of the images as they are."""
        return float(self._errors(np.ones((1, len(self.labels)), np.uint8))[0])

    def resampled(self, resamples: int, seed: int) -> np.ndarray:
        """Return the error on resamples of the images, float64[resamples]."""
        # An image is drawn once on the mean: a byte holds how often, and an eighth of the memory.
        drawn = [counts.astype(np.uint8) for counts in resampled_counts(len(self.labels), resamples, seed)]
        return self._errors(np.concatenate(drawn))

    def _errors(self, drawn: np.ndarray) -> np.ndarray:
        """Return the error where each image is there as often as ``drawn`` uint8[r, n] says: float64[r]."""
        classes, errors = self.logits.shape[1], np.zeros(len(drawn))
        chunk = max(1, CHUNK_NUMBERS // len(self.labels))
        for start in range(0, classes, _CLASSES):
            gaps, higher = self._gaps(slice(start, min(start + _CLASSES, classes)))
            for first in range(0, len(drawn), chunk):
                counts = drawn[first : first + chunk].astype(np.float64)
                # Sums over all bins, and over each bin but the lowest: the difference is the lowest one's.
                others = (higher @ counts.T).T.reshape(len(counts), -1, self.bins)
                lowest = counts @ gaps - others.sum(2)
                errors[first : first + chunk] += np.abs(lowest).sum(1) + np.abs(others).sum((1, 2))
        result: np.ndarray = errors / (len(self.labels) * classes)
        return result

    def _gaps(self, of: slice) -> tuple[np.ndarray, sparse.csr_array]:
        """Return what is gained by each image (is of the class - probability) in some classes: float64[n, m].

        And the same of images above the lowest bin, a row per class and bin: float64[m bins, n].
        """
        largest, totals = self._rows
        p = np.exp(self.logits[:, of] - largest[:, None]) / totals[:, None]
        right = self.labels[:, None] == np.arange(of.start, of.stop)
        gaps = np.round((right - p) * 2.0**30) / 2.0**30  # sums are exact, whatever order threads add in
        image, number = np.nonzero(p * self.bins > 1)
        row = number * self.bins + np.clip(np.ceil(p[image, number] * self.bins).astype(np.int64) - 1, 0, self.bins - 1)
        shape = (p.shape[1] * self.bins, len(p))
        return gaps, sparse.csr_array((gaps[image, number], (row, image)), shape=shape)

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each row's largest logit, float64[n], and the sum of the exponentials of the distances to it."""
        return self.logits.max(1).astype(np.float64), sums(self.logits)


def likelihoods(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the negative logarithm of the label's probability in nats, float64[n]."""
    of_label = np.take_along_axis(logits, labels[:, None], 1)[:, 0].astype(np.float64)
    result: np.ndarray = np.log(sums(logits)) - (of_label - logits.max(1))
    return result


def brier_scores(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the squared distance of the probabilities from the right answer, summed over classes: float64[n], 0..2."""
    result = np.empty(len(labels))
    for of, p in blocks(logits):
        p /= p.sum(1, keepdims=True)
        result[of] = (p**2).sum(1) - 2 * np.take_along_axis(p, labels[of, None], 1)[:, 0] + 1
    return result
