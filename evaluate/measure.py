"""From predictions to numbers with intervals, all of them from one resampling of the test images.

In: `ModelPredictions` of models on one set. Out: `Measured` numbers, and `Cell`s of them for the folder of results.
"""

from dataclasses import asdict, dataclass

import numpy as np

from synclones.base.json_file import canonical_json
from synclones.evaluate.axis import Measurement, axes
from synclones.evaluate.intervals import Interval, basic_interval, resampled_sums, wilson
from synclones.evaluate.predict import TestSet, logits_key
from synclones.evaluate.predictions import EvaluatedModel, ModelPredictions
from synclones.evaluate.results import Cell
from synclones.evaluate.settings import EvaluateConfig

# What the numbers are measured by. It is part of every cell, so it keeps its words.
SUITE = "accuracy, calibration and FGSM on one folder"


@dataclass(frozen=True)
class Measured:
    """A measurement with its value on the images, and on each resample of them."""

    measurement: Measurement
    value: float
    resampled: np.ndarray
    """float64[resamples], NaN where undefined."""

    def interval(self) -> tuple[Interval | None, str]:
        """Return the value with its 95 % interval, None where it is undefined, and the name of the interval."""
        measurement = self.measurement
        if measurement.interval == "bootstrap":
            interval = basic_interval(self.value, self.resampled, measurement.bounds)
            # An interval of no width does not mean certainty: the images were too few to vary.
            if interval is None or interval.low < interval.high or measurement.counts is None:
                return interval, "bootstrap"
        assert measurement.counts is not None, f"{measurement.metric.name}: Wilson's interval needs counts"
        successes, trials = measurement.counts(measurement.terms.sum(0))
        return wilson(int(successes), int(trials)), "wilson"


def measure(models: list[ModelPredictions], config: EvaluateConfig) -> list[list[Measured]]:
    """Return every number of every model; the models saw the same n images."""
    by_model = [[item for axis in axes() for item in axis.measure(model, config)] for model in models]
    # Drawing resamples costs far more than summing over them, so all terms of all models share one drawing, which
    # makes differences between models paired as well.
    terms = [item.terms for measurements in by_model for item in measurements]
    sums = resampled_sums(np.concatenate(terms, 1), config.resamples, config.seed)
    parts = iter(np.split(sums, np.cumsum([columns.shape[1] for columns in terms])[:-1], axis=1))
    return [[_measured(item, next(parts), config) for item in measurements] for measurements in by_model]


def _measured(measurement: Measurement, sums: np.ndarray, config: EvaluateConfig) -> Measured:
    value = float(measurement.statistic(measurement.terms.sum(0)))
    if measurement.resample is not None:
        return Measured(measurement, value, measurement.resample(config.resamples, config.seed))
    return Measured(measurement, value, measurement.statistic(sums))


def cells_of(model: EvaluatedModel, test_set: TestSet, numbers: list[Measured], config: EvaluateConfig) -> list[Cell]:
    """Return a cell for every number of one model on one set."""
    return [_cell(model, test_set, number, config) for number in numbers]


def _cell(model: EvaluatedModel, test_set: TestSet, number: Measured, config: EvaluateConfig) -> Cell:
    measurement = number.measurement
    # How often was resampled is part of what a bootstrap interval is, and of no other.
    interval, method = number.interval()
    resampling = {"resamples": config.resamples} if method == "bootstrap" else {}
    return Cell(
        model=model.name,
        weights_sha256=model.weights_sha256,
        suite=SUITE,
        dataset=test_set.name,
        dataset_sha256=test_set.content_hash,
        metric=measurement.metric.name,
        settings=measurement.settings | resampling,
        value=interval.value if interval else None,
        n=len(measurement.terms),
        ci_low=interval.low if interval else None,
        ci_high=interval.high if interval else None,
        interval=method,
        protocol=measurement.protocol,
        preprocessing=canonical_json(asdict(model.classifier.preprocessing)).decode(),
        seed=config.seed,
        faultless=measurement.faultless,
        trained_on_test=model.trained_on_test,
        logits=(*(logits_key(model, test_set, c) for c in measurement.conditions), *measurement.more_logits),
    )
