"""Calibration: whether a model's confidence is the share of its answers that are right."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from synclones.evaluate.axis import Measurement, Metric
from synclones.evaluate.intervals import CHUNK_NUMBERS
from synclones.evaluate.predictions import CLEAN, Condition, ModelPredictions
from synclones.evaluate.settings import EvaluateConfig

ORDER = 20
DRAWS = 1000

ECE = Metric(
    name="ece",
    title="ECE",
    heading="ECE",
    unit="fraction, 0..1",
    explanation="Expected calibration error: when the model says it is 80 % sure, is it right 80 % of the time? The "
    "mean distance between confidence and accuracy over bins of equal width. Less is better. Of few images even a "
    "perfectly calibrated model shows an error; what it would show stands beside it as 'calibrated', the mean over "
    f"{DRAWS:,} draws of labels from the model's own probabilities. An error near that is no sign of bad calibration. "
    "The interval is approximate (benchmarks/coverage.py measures how often it holds the truth).",
    detail="{bins} bins",
    sources=("Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3",),
    faultless="calibrated",
    deviations=("a confidence of exactly 1 is in the last bin (torchmetrics gives it a bin of its own)",),
)
METRICS = (ECE,)


def conditions(config: EvaluateConfig) -> tuple[Condition, ...]:
    """Return the clean images alone."""
    return (CLEAN,)


def measure(predictions: ModelPredictions, config: EvaluateConfig) -> Iterator[Measurement]:
    """Yield the expected calibration error."""
    clean = predictions.clean
    yield Measurement(
        metric=ECE,
        settings={"bins": config.ece_bins},
        terms=calibration_gaps(clean.confidence, clean.correct, config.ece_bins),
        statistic=partial(ece_of_sums, n=len(clean)),
        bounds=(0.0, 1.0),
        faultless=ece_if_calibrated(clean.confidence, config.ece_bins),
        conditions=(CLEAN,),
    )


def bin_of(confidences: np.ndarray, bins: int) -> np.ndarray:
    """Return int64[n]: bin b is (b / bins, (b + 1) / bins], so that a confidence of 1 is in the last one."""
    number: np.ndarray = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    return number


def calibration_gaps(confidences: np.ndarray, correct: np.ndarray, bins: int) -> np.ndarray:
    """Return float64[n, bins]: correct - confidence in the image's bin, 0 elsewhere; their sums make the ECE."""
    gaps = np.zeros((len(confidences), bins))
    gaps[np.arange(len(confidences)), bin_of(confidences, bins)] = correct - confidences
    return gaps


def ece_of_sums(sums: np.ndarray, n: int) -> np.ndarray:
    """Return the ECE of summed gaps [..., bins]: the sum over bins (lo, hi] of |accuracy - confidence| n_b / n."""
    error: np.ndarray = np.abs(sums).sum(-1) / n
    return error


def ece_if_calibrated(confidences: np.ndarray, bins: int, draws: int = DRAWS) -> float:
    """Return the mean ECE of a perfectly calibrated model with these confidences float64[n], on as many images.

    Labels drawn from a model's own probabilities make its answer right with the probability of its confidence. The same
    confidences give the same number.
    """
    n, rng = len(confidences), np.random.default_rng([draws, len(confidences)])
    in_bin = np.eye(bins)[bin_of(confidences, bins)]
    chunk = max(1, CHUNK_NUMBERS // n)
    errors = []
    for start in range(0, draws, chunk):
        correct = rng.random((min(chunk, draws - start), n)) < confidences
        gaps = np.round((correct - confidences) * 2.0**30) / 2.0**30  # sums are exact, whatever order threads add in
        errors.append(ece_of_sums(gaps @ in_bin, n))
    return float(np.concatenate(errors).mean())


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: one entry per bin; means are 0 where a bin is empty."""

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(confidences: np.ndarray, correct: np.ndarray, bins: int) -> Reliability:
    """Return images, mean confidence and accuracy of each bin."""
    bin_index = bin_of(confidences, bins)
    count = np.bincount(bin_index, minlength=bins)
    sums = [np.bincount(bin_index, weights=values, minlength=bins) for values in (confidences, correct)]
    return Reliability(count, *(total / np.maximum(count, 1) for total in sums))
