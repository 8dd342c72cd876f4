"""Adversarial robustness: what is left of the accuracy when every pixel moves a little against the model (FGSM)."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from synclones.evaluate.axis import Measurement, Metric
from synclones.evaluate.predictions import CLEAN, Condition, ModelPredictions
from synclones.evaluate.settings import EvaluateConfig

if TYPE_CHECKING:  # importing them would load torch to explain a metric
    from torch import Tensor

    from synclones.models.network import Classifier

ORDER = 30

FGSM = "Goodfellow et al. 2015, Explaining and Harnessing Adversarial Examples, arXiv 1412.6572, section 4"
R_ADV = Metric(
    name="r_adv",
    title="R_adv",
    heading="R_adv {epsilon_255:g}/255",
    unit="accuracy under attack over clean accuracy, 0 and up",
    explanation="Relative adversarial robustness: of the accuracy on clean images, the share that is left when every "
    "pixel may change by at most the stated amount, in the direction that hurts this model most (FGSM, one step). "
    "More is better; a model that was rarely right cannot lose much, so read it beside the accuracy.",
    sources=(FGSM,),
)
ACCURACY_FGSM = Metric(
    name="accuracy_fgsm",
    title="accuracy under attack",
    heading="accuracy under FGSM {epsilon_255:g}/255",
    unit="fraction of the test images, 0..1",
    explanation="The accuracy on those attacked images itself. More is better.",
    sources=(FGSM,),
    compared=False,
)
METRICS = (R_ADV, ACCURACY_FGSM)


def conditions(config: EvaluateConfig) -> tuple[Condition, ...]:
    """Return the clean images, and FGSM of each strength."""
    return (CLEAN, *map(fgsm_condition, config.epsilons_255))


def fgsm_condition(epsilon_255: float) -> Condition:
    """Return FGSM of a strength in 1/255; an attack costs a forward and a backward pass besides the prediction."""
    return Condition("fgsm", {"epsilon_255": epsilon_255}, partial(_attack, epsilon_255=epsilon_255), passes=3)


def _attack(classifier: "Classifier", pixels: "Tensor", labels: "Tensor", epsilon_255: float) -> "Tensor":
    from synclones.evaluate.attacks import fgsm

    return fgsm(classifier, pixels, labels, epsilon_255 / 255)


def measure(predictions: ModelPredictions, config: EvaluateConfig) -> Iterator[Measurement]:
    """Yield R_adv and the accuracy itself under each strength."""
    n = len(predictions.clean)
    for condition in map(fgsm_condition, config.epsilons_255):
        settings = {"attack": condition.name, **condition.settings}
        # Both columns are of the same images, so that a resample keeps an image's two answers together.
        pair = (predictions.clean.correct, predictions[condition].correct)
        terms = np.stack(pair, 1).astype(np.float64)
        yield Measurement(
            metric=R_ADV,
            settings=settings,
            terms=terms,
            statistic=relative_robustness,
            counts=lambda sums: (sums[1], sums[0]),
            bounds=(0.0, np.inf),
            conditions=(CLEAN, condition),
        )
        yield Measurement(
            metric=ACCURACY_FGSM,
            settings=settings,
            terms=terms[:, 1:],
            statistic=lambda sums: sums[..., 0] / n,
            interval="wilson",
            counts=lambda sums: (sums[0], n),
            conditions=(condition,),
        )


def relative_robustness(sums: np.ndarray) -> np.ndarray:
    """Return R_adv, attacked over clean accuracy, of sums [..., 2] (clean, attacked); NaN where clean is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: np.ndarray = np.where(sums[..., 0] > 0, sums[..., 1] / sums[..., 0], np.nan)
    return ratio
