"""From predictions to numbers with intervals, all of them from one resampling of the test images.

In: `ModelPredictions` of models on the sets of a suite. Out: `Measured` numbers, and `Cell`s of them for the folder of
results.
"""

from dataclasses import asdict, dataclass

import numpy as np

from synclones.base.json_file import canonical_json
from synclones.evaluate.answers.predictions import ModelPredictions, SetPredictions
from synclones.evaluate.axis import Measurement, axes
from synclones.evaluate.bounds.intervals import Interval, basic_interval, resampled_sums, wilson
from synclones.evaluate.bounds.stopped import Stopped
from synclones.evaluate.protocols import logit_scale, sorted_ids
from synclones.evaluate.settings import EvaluateConfig
from synclones.evaluate.stored.results import Cell

# What numbers are measured by where no suite is named. It is part of every cell, so it keeps its words.
SUITE = "accuracy, calibration and FGSM on one folder"


@dataclass(frozen=True)
class Measured:
    """A measurement with its value on the images, and on each resample of them."""

    measurement: Measurement
    value: float
    resampled: np.ndarray
    """float64[resamples], NaN where undefined."""

    @property
    def stopped(self) -> Stopped | None:
        """How the number of images was chosen by this very number; None where it was not."""
        on = self.measurement.on
        return on.of.stopped if on is not None and self.measurement.interval == "sequence" else None

    def interval(self) -> tuple[Interval | None, str]:
        """Return the value with its 95 % interval, None where it is undefined, and the name of the interval."""
        measurement = self.measurement
        if self.stopped is not None:
            return self.stopped.share(measurement.terms[:, 0]), "sequence"
        if measurement.interval == "bootstrap":
            interval = basic_interval(self.value, self.resampled, measurement.bounds)
            # An interval of no width does not mean certainty: the images were too few to vary.
            if interval is None or interval.low < interval.high or measurement.counts is None:
                return interval, "bootstrap"
        assert measurement.counts is not None, f"{measurement.metric.name}: Wilson's interval needs counts"
        successes, trials = measurement.counts(measurement.terms.sum(0))
        return wilson(int(successes), int(trials)), "wilson"


def measure(
    models: list[ModelPredictions], config: EvaluateConfig, compared_only: bool = False
) -> list[list[Measured]]:
    """Return every number of every model; the models saw the same sets.

    Under the paper's protocol these are the numbers that its deviations change: the others are those of the corrected
    one.

    Args:
        compared_only: leave out the numbers in which models are not compared.
    """
    by_model = [
        [
            item
            for axis in axes()
            for item in axis.measure(model, config)
            if (not model.deviations or _deviations(model, item)) and (item.metric.compared or not compared_only)
        ]
        for model in models
    ]
    # Drawing resamples costs far more than summing over them, so all terms of all models on one set share one drawing,
    # which makes differences between models paired as well.
    of_sets: dict[str, list[tuple[int, int]]] = {}
    measured: dict[tuple[int, int], Measured] = {}
    for m, (model, measurements) in enumerate(zip(models, by_model, strict=True)):
        for k, item in enumerate(measurements):
            if item.resample is not None:
                measured[m, k] = _measured(item, item.resample(config.resamples, config.seed))
            elif item.interval == "wilson" and not item.metric.compared:  # nothing asks for its resamples
                measured[m, k] = _measured(item, np.empty(0))
            else:
                of_sets.setdefault(_on(model, item).of.test_set.content_hash, []).append((m, k))
    for places in of_sets.values():
        terms = [by_model[m][k].terms for m, k in places]
        sums = resampled_sums(np.concatenate(terms, 1), config.resamples, config.seed)
        parts = np.split(sums, np.cumsum([columns.shape[1] for columns in terms])[:-1], axis=1)
        for (m, k), own in zip(places, parts, strict=True):
            measured[m, k] = _measured(by_model[m][k], by_model[m][k].statistic(own))
    return [[measured[m, k] for k in range(len(measurements))] for m, measurements in enumerate(by_model)]


def _on(model: ModelPredictions, measurement: Measurement) -> SetPredictions:
    return measurement.on or model.reference


def _deviations(model: ModelPredictions, measurement: Measurement) -> tuple[str, ...]:
    """Return which deviations changed a number: those of its formula, and of the predictions it was computed from."""
    names = set(measurement.deviations) | set(_on(model, measurement).deviations)
    for item in model.sets:
        if set(item.logits_keys.values()) & set(measurement.more_logits):
            names |= set(item.deviations)
    return tuple(sorted_ids(names & model.deviations))


def _measured(measurement: Measurement, resampled: np.ndarray) -> Measured:
    return Measured(measurement, float(measurement.statistic(measurement.terms.sum(0))), resampled)


def cells_of(
    model: ModelPredictions, numbers: list[Measured], config: EvaluateConfig, suite: str = SUITE
) -> list[Cell]:
    """Return a cell for every number of one model."""
    return [_cell(model, number, config, suite) for number in numbers]


def _cell(model: ModelPredictions, number: Measured, config: EvaluateConfig, suite: str) -> Cell:
    measurement, on = number.measurement, _on(model, number.measurement)
    # How often was resampled is part of what a bootstrap interval is, and of no other.
    interval, method = number.interval()
    resampling = {"resamples": config.resamples} if method == "bootstrap" else {}
    deviations = _deviations(model, measurement)
    return Cell(
        model=model.model.name,
        weights_sha256=model.model.weights_sha256,
        suite=suite,
        dataset=on.of.title,
        dataset_sha256=on.of.test_set.content_hash,
        metric=measurement.metric.name,
        settings=measurement.settings | resampling,
        value=interval.value if interval else None,
        n=len(measurement.terms) if measurement.n is None else measurement.n,
        ci_low=interval.low if interval else None,
        ci_high=interval.high if interval else None,
        interval=method,
        protocol="paper" if deviations else "corrected",
        preprocessing=canonical_json(asdict(model.model.classifier.preprocessing)).decode(),
        seed=config.seed,
        faultless=measurement.faultless,
        logit_scale=logit_scale(model.model.classifier),
        notes=(*measurement.notes, *((on.of.note,) if on.of.note and method != "sequence" else ())),
        deviations=deviations,
        asked=config.deviations if deviations else (),
        trained_on_test=on.trained_on,
        logits=(*(on.logits_keys[c] for c in measurement.conditions), *measurement.more_logits),
    )
