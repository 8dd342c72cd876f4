"""What is measured, as plain NumPy: fractions in 0..1, one formula each, with its source.

In: logits float32[n, classes], labels int64[n]. Out: numbers, or the per-image terms whose sums they are made of, so
that resampling images is resampling sums.
"""

from dataclasses import dataclass

import numpy as np

BINS = 20


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax in float64, float64[n, classes]: in half precision the calibration error shifts by 5e-4."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    exponential = np.exp(shifted)
    return exponential / exponential.sum(1, keepdims=True)


def is_correct(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """bool[n]: the largest logit is the label's (the first of equal ones counts)."""
    correct: np.ndarray = logits.argmax(1) == labels
    return correct


def confidence(logits: np.ndarray) -> np.ndarray:
    """float64[n]: the largest probability of each image."""
    largest: np.ndarray = probabilities(logits).max(1)
    return largest


def bin_of(confidences: np.ndarray, bins: int = BINS) -> np.ndarray:
    """int64[n]: bin b is (b / bins, (b + 1) / bins], so that a confidence of 1 is in the last one."""
    return np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: one entry per bin; means are 0 where nothing is."""

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(confidences: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Reliability:
    """Images, mean confidence and accuracy of each bin."""
    place = bin_of(confidences, bins)
    count = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=values, minlength=bins) for values in (confidences, correct)]
    return Reliability(count, *(total / np.maximum(count, 1) for total in sums))


def calibration_gaps(confidences: np.ndarray, correct: np.ndarray, bins: int = BINS) -> np.ndarray:
    """float64[n, bins]: correct - confidence in the image's bin, 0 elsewhere; `ece_of_sums` of their sum is the ECE."""
    gaps = np.zeros((len(confidences), bins))
    gaps[np.arange(len(confidences)), bin_of(confidences, bins)] = correct - confidences
    return gaps


def ece_of_sums(sums: np.ndarray, n: int) -> np.ndarray:
    """Expected calibration error of summed gaps [..., bins]: the sum over bins of |accuracy - confidence| n_b / n."""
    error: np.ndarray = np.abs(sums).sum(-1) / n
    return error


def expected_calibration_error(confidences: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """ECE with equal-width bins (lo, hi]; Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3."""
    return float(ece_of_sums(calibration_gaps(confidences, correct, bins).sum(0), len(confidences)))


def relative_robustness(sums: np.ndarray) -> np.ndarray:
    """R_adv = accuracy under attack / clean accuracy, of sums [..., 2] (clean, attacked); NaN where clean is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: np.ndarray = np.where(sums[..., 0] > 0, sums[..., 1] / sums[..., 0], np.nan)
    return ratio
