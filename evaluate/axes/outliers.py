"""Detection of outliers: whether a model is less sure of images that show none of its classes."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from synclones.evaluate.answers.predictions import CLEAN, Condition, ModelPredictions
from synclones.evaluate.axis import Measurement, Metric
from synclones.evaluate.layout import Role
from synclones.evaluate.settings import EvaluateConfig

ORDER = 40

SOURCES = (
    "Hendrycks and Gimpel 2017, arXiv 1610.02136 (largest probability)",
    "Liu et al. 2020, arXiv 2010.03759 (energy); Hendrycks et al. 2022, arXiv 1911.11132 (largest logit)",
)
AUROC = Metric(
    name="auroc",
    title="AUROC",
    heading="AUROC {outliers}, {score}",
    unit="fraction, 0..1; 0.5 of guessing",
    explanation="How well the model's score tells images of its classes from others: the chance that one of its "
    "classes has a higher score than an outlier, ties counting half. More is better.",
    sources=SOURCES,
)
FPR95 = Metric(
    name="fpr95_id_positive",
    title="FPR@95",
    heading="FPR@95 {outliers}, {score}",
    unit="fraction of the outliers, 0..1",
    explanation="The share of outliers that pass for images of the classes when the threshold lets 95 % of these pass "
    "(they are the positives, as in the papers). Less is better.",
    sources=SOURCES,
    better="less",
    deviations=(
        "OpenOOD and pytorch-ood take the outliers for the positives: fpr95_outliers_positive",
        "of tied scores all pass or none: the first threshold that 95 % reach (under protocol paper the one whose "
        "recall is nearest to 95 %)",
    ),
)
FPR95_OUTLIERS = Metric(
    name="fpr95_outliers_positive",
    title="FPR@95 with outliers as positives",
    heading="FPR@95 (outliers positive) {outliers}, {score}",
    unit="fraction of the test images, 0..1",
    explanation="The share of images of the classes that are flagged when the threshold flags 95 % of the outliers. "
    "Less is better. Not the same number as FPR@95, though some call it so.",
    sources=SOURCES,
    better="less",
    compared=False,
)
METRICS = (AUROC, FPR95, FPR95_OUTLIERS)


def conditions(config: EvaluateConfig, role: Role) -> tuple[Condition, ...]:
    """Return the images as they are, of the classes and of outliers."""
    return (CLEAN,) if role in ("reference", "outliers") else ()


def scores(config: EvaluateConfig, deviations: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Return the scores, each with the deviations that changed it; the papers' code has entropy throughout (D4)."""
    if "D4" not in deviations or "max-probability" not in config.outlier_scores:
        return {score: () for score in config.outlier_scores}
    others: dict[str, tuple[str, ...]] = {
        score: () for score in config.outlier_scores if score not in ("max-probability", "entropy")
    }
    return {"entropy": ("D4",), **others}


def measure(predictions: ModelPredictions, config: EvaluateConfig) -> Iterator[Measurement]:
    """Yield the three numbers of every set of outliers by every score.

    Where D4 is followed, the rates of its score are at the recall nearest to 95 %, as its code has them.
    """
    from synclones.evaluate.methods.separation import SCORES, Separation

    for others in predictions.having("outliers"):
        known = {"outliers": others.of.title, "outliers_sha256": others.of.test_set.content_hash}
        for score, changed in scores(config, predictions.deviations).items():
            sides = SCORES[score](predictions.clean), SCORES[score](others.clean)
            separation = Separation(*sides, nearest=bool(changed))
            for which, metric in enumerate(METRICS):
                yield Measurement(
                    metric=metric,
                    settings=known | {"score": score},
                    terms=np.zeros((len(predictions.clean), 0)),
                    statistic=partial(_measured, values=separation.measured(), which=which),
                    resample=partial(separation.resampled_rate, which),
                    bounds=(0.0, 1.0),
                    conditions=(CLEAN,),
                    more_logits=(others.logits_keys[CLEAN],),
                    deviations=changed,
                )


def _measured(sums: np.ndarray, values: tuple[float, float, float], which: int) -> np.ndarray:
    """Return one of the numbers; it is no function of sums over images, which are empty."""
    return np.full(sums.shape[:-1], values[which])
