"""Accuracy on the images as they are."""

from collections.abc import Iterator

import numpy as np

from synclones.evaluate.axis import Measurement, Metric
from synclones.evaluate.predictions import CLEAN, Condition, ModelPredictions
from synclones.evaluate.settings import EvaluateConfig

ORDER = 10

ACCURACY = Metric(
    name="accuracy",
    title="accuracy",
    heading="accuracy",
    unit="fraction of the test images, 0..1",
    explanation="Share of test images whose most probable class is the right one. More is better.",
    sources=("the interval: Wilson 1927, Probable Inference, the Law of Succession, and Statistical Inference",),
)
METRICS = (ACCURACY,)


def conditions(config: EvaluateConfig) -> tuple[Condition, ...]:
    """Return the clean images alone."""
    return (CLEAN,)


def measure(predictions: ModelPredictions, config: EvaluateConfig) -> Iterator[Measurement]:
    """Yield the share of correct predictions."""
    n = len(predictions.clean)
    yield Measurement(
        metric=ACCURACY,
        terms=predictions.clean.correct[:, None].astype(np.float64),
        statistic=lambda sums: sums[..., 0] / n,
        interval="wilson",
        counts=lambda sums: (sums[0], n),
        conditions=(CLEAN,),
    )
