"""Calibration: whether a model's confidence is the share of its answers that are right."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from synclones.evaluate.answers.predictions import CLEAN, Condition, ModelPredictions, SetPredictions
from synclones.evaluate.axes.accuracy import ROLES, among
from synclones.evaluate.axis import Measurement, Metric
from synclones.evaluate.bounds.intervals import CHUNK_NUMBERS
from synclones.evaluate.layout import Role
from synclones.evaluate.methods.calibration_errors import (
    ClassWise,
    EqualMass,
    brier_scores,
    equal_mass_bins,
    likelihoods,
)
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
    better="less",
    deviations=("a confidence of exactly 1 is in the last bin (torchmetrics gives it a bin of its own)",),
)
MUKHOTI = "Mukhoti et al. 2020, Calibrating Deep Neural Networks using Focal Loss, arXiv 2002.09437"
ADAPTIVE = Metric(
    name="ece_adaptive",
    title="adaptive ECE",
    heading="adaptive ECE",
    unit=ECE.unit,
    explanation="The same error over bins that hold equally many images, so that where most confidences lie is seen in "
    "detail. Less is better; read it beside what a calibrated model would show.",
    detail="{bins} bins of equal mass",
    sources=(f"{MUKHOTI} (AdaECE)", "Nguyen and O'Connor 2015, arXiv 1508.05154 (bins of equal mass)"),
    deviations=("images of the lowest confidence are in the first bin; the authors' code leaves them out",),
    faultless="calibrated",
    better="less",
    compared=False,
)
CLASSWISE = Metric(
    name="ece_classwise",
    title="class-wise ECE",
    heading="class-wise ECE",
    unit="fraction, 0..1, averaged over classes",
    explanation="The error of the probability of every class, not only of the one that is answered, averaged over "
    "classes. Less is better. It is small where classes are many, and of few images per class mostly noise: compare "
    "models on the same images alone.",
    detail="{bins} bins",
    sources=(
        f"{MUKHOTI} (class-wise)",
        "Kull et al. 2019, Beyond temperature scaling, arXiv 1910.12656; Nixon et al. 2019, arXiv 1904.01685",
    ),
    better="less",
    compared=False,
    decimals=3,
)
NLL = Metric(
    name="nll",
    title="negative log-likelihood",
    heading="NLL",
    unit="nats per image, 0 and up",
    explanation="The negative logarithm of the probability that the model gives to the right class, on the mean. Less "
    "is better. It is large where a model is sure and wrong; few such images decide it.",
    sources=("Guo et al. 2017, On Calibration of Modern Neural Networks, equation 5",),
    better="less",
    scale=1.0,
    unit_short="nats",
    decimals=3,
)
BRIER = Metric(
    name="brier",
    title="Brier score",
    heading="Brier score",
    unit="squared distance, 0..2",
    explanation="The squared distance of all probabilities from the right answer (1 for its class, 0 for others), "
    "summed over classes, on the mean. Less is better; it grows with wrong answers and with wrong confidence alike.",
    sources=("Brier 1950, Verification of Forecasts Expressed in Terms of Probability",),
    deviations=("summed over classes as in Brier's paper, not averaged over them, nor of the answer alone",),
    better="less",
    compared=False,
    scale=1.0,
    unit_short="",
    decimals=3,
)
METRICS = (ECE, ADAPTIVE, CLASSWISE, NLL, BRIER)


def conditions(config: EvaluateConfig, role: Role) -> tuple[Condition, ...]:
    """Return the images as they are."""
    return (CLEAN,) if role in ROLES else ()


def measure(predictions: ModelPredictions, config: EvaluateConfig) -> Iterator[Measurement]:
    """Yield the expected calibration error on the reference and every shifted set, and its other forms if asked."""
    for item in predictions.having(*ROLES):
        clean, settings = item.clean, {"bins": config.ece_bins, **among(item, predictions)}
        yield Measurement(
            metric=ECE,
            settings=settings,
            terms=calibration_gaps(clean.confidence, clean.correct, config.ece_bins),
            statistic=partial(ece_of_sums, n=len(clean)),
            bounds=(0.0, 1.0),
            faultless=ece_if_calibrated(clean.confidence, config.ece_bins),
            on=item,
            conditions=(CLEAN,),
        )
        for name in config.calibration:
            if name in _OTHERS:
                yield _OTHERS[name](item, settings)


def _adaptive(item: SetPredictions, settings: dict[str, Any]) -> Measurement:
    """Return the error over bins of equal mass; every resample has edges of its own."""
    clean, bins = item.clean, settings["bins"]
    error = EqualMass(clean.confidence, clean.correct, bins)
    faultless = error_if_calibrated(clean.confidence, equal_mass_bins(clean.confidence, bins), bins)
    return _of_resamples(ADAPTIVE, item, settings, error, faultless)


def _classwise(item: SetPredictions, settings: dict[str, Any]) -> Measurement:
    clean, bins = item.clean, settings["bins"]
    return _of_resamples(CLASSWISE, item, settings, ClassWise(clean.logits, clean.labels, bins), None)


def _of_resamples(
    metric: Metric,
    item: SetPredictions,
    settings: dict[str, Any],
    error: EqualMass | ClassWise,
    faultless: float | None,
) -> Measurement:
    """Return an error that is no function of sums over images."""
    value = error.measured()
    return Measurement(
        metric=metric,
        settings=settings,
        terms=np.zeros((len(item.clean), 0)),
        statistic=lambda sums: np.full(sums.shape[:-1], value),
        resample=error.resampled,
        bounds=(0.0, 1.0),
        faultless=faultless,
        on=item,
        conditions=(CLEAN,),
    )


def _nll(item: SetPredictions, settings: dict[str, Any]) -> Measurement:
    return _mean(NLL, item, settings, likelihoods(item.clean.logits, item.clean.labels), np.inf)


def _brier(item: SetPredictions, settings: dict[str, Any]) -> Measurement:
    return _mean(BRIER, item, settings, brier_scores(item.clean.logits, item.clean.labels), 2.0)


def _mean(
    metric: Metric, item: SetPredictions, settings: dict[str, Any], values: np.ndarray, most: float
) -> Measurement:
    """Return the mean over images of values that know no bins."""
    n = len(values)
    return Measurement(
        metric=metric,
        settings={name: value for name, value in settings.items() if name != "bins"},
        terms=values[:, None],
        statistic=lambda sums: sums[..., 0] / n,
        bounds=(0.0, most),
        on=item,
        conditions=(CLEAN,),
    )


_OTHERS: dict[str, Callable[[SetPredictions, dict[str, Any]], Measurement]] = {
    "adaptive": _adaptive,
    "class-wise": _classwise,
    "nll": _nll,
    "brier": _brier,
}


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
    """Return the mean ECE of a perfectly calibrated model with these confidences float64[n], on as many images."""
    return error_if_calibrated(confidences, bin_of(confidences, bins), bins, draws)


def error_if_calibrated(confidences: np.ndarray, bin_numbers: np.ndarray, bins: int, draws: int = DRAWS) -> float:
    """Return the mean error over given bins int64[n] of a perfectly calibrated model with these confidences float64[n].

    Labels drawn from a model's own probabilities make its answer right with the probability of its confidence. The same
    confidences give the same number.
    """
    n, rng = len(confidences), np.random.default_rng([draws, len(confidences)])
    in_bin = np.eye(bins)[bin_numbers]
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
