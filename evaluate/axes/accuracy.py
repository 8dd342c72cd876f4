"""Accuracy on the images as they are, and on other images of the same classes."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from synclones.evaluate.answers.predictions import CLEAN, Condition, ModelPredictions, SetPredictions
from synclones.evaluate.axis import Measurement, Metric
from synclones.evaluate.bounds.stopped import Stopped
from synclones.evaluate.layout import Role
from synclones.evaluate.settings import EvaluateConfig

ORDER = 10
ROLES: tuple[Role, ...] = ("reference", "shifted")

ACCURACY = Metric(
    name="accuracy",
    title="accuracy",
    heading="accuracy",
    unit="fraction of the test images, 0..1",
    explanation="Share of test images whose most probable class is the right one. More is better. The test error is 1 "
    "minus it. Of a set with some of the model's classes (ImageNet-R and -A have 200 of 1,000) the most probable is "
    "sought among these.",
    sources=(
        "the interval: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference",
        "Hendrycks et al. 2021, arXiv 2006.16241 (ImageNet-R) and 1907.07174 (ImageNet-A): 200 classes, 200 logits",
    ),
)
METRICS = (ACCURACY,)


def conditions(config: EvaluateConfig, role: Role) -> tuple[Condition, ...]:
    """Return the images as they are."""
    return (CLEAN,) if role in ROLES else ()


def measure(predictions: ModelPredictions, config: EvaluateConfig) -> Iterator[Measurement]:
    """Yield the share of correct predictions on the reference and on every shifted set."""
    for item in predictions.having(*ROLES):
        share = share_of_images(ACCURACY, item, among(item, predictions))
        yield share if item.of.stopped is None else _looked_at(share, item.of.stopped)


def _looked_at(share: Measurement, stopped: Stopped) -> Measurement:
    """Return the share with an interval that holds although images were looked at until it was narrow."""
    seen = f"{len(stopped.drawn):,} of {stopped.images:,} images were looked at, until it was sure enough"
    note = f"{seen}: the interval is about the accuracy on all of them, not on other images."
    return replace(share, interval="sequence", settings=share.settings | {"until": stopped.half_width}, notes=(note,))


def share_of_images(metric: Metric, on: SetPredictions, settings: dict[str, Any]) -> Measurement:
    """Return the share of correct predictions on a set as a measurement."""
    n = len(on.answers)
    return Measurement(
        metric=metric,
        settings=settings,
        terms=on.answers.correct[:, None].astype(np.float64),
        statistic=lambda sums: sums[..., 0] / n,
        interval="wilson",
        counts=lambda sums: (sums[0], n),
        on=on,
        conditions=(CLEAN,),
    )


def among(item: SetPredictions, predictions: ModelPredictions) -> dict[str, Any]:
    """Return how many classes an answer is sought among, where these are fewer than the model has."""
    classes = len(item.of.test_set.class_ids)
    return {"classes": classes} if classes < len(predictions.model.classifier.class_ids) else {}
