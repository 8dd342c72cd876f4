"""Shape bias: whether a model goes by an object's shape or by its texture where the two contradict each other."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from synclones.evaluate.answers.predictions import CLEAN, Condition, ModelPredictions, SetPredictions
from synclones.evaluate.axis import Measurement, Metric
from synclones.evaluate.layout import Role
from synclones.evaluate.settings import EvaluateConfig

ORDER = 60

GEIRHOS = "Geirhos et al. 2019, ImageNet-trained CNNs are biased towards texture, arXiv 1811.12231"
USED = "images whose shape and texture are of one class are left out, as in the authors' code (1,200 of 1,280 remain)"
SHAPE_BIAS = Metric(
    name="shape_bias",
    title="shape bias",
    heading="shape bias",
    unit="fraction of the images that are answered by shape or by texture, 0..1",
    explanation="Of images with the shape of one class and the texture of another: how many answers are the shape's, "
    "among those that are the shape's or the texture's. More is more like people, who have about 0.96.",
    sources=(GEIRHOS,),
    deviations=(USED, "an answer is the class whose members have the largest mean probability among all classes"),
)
SHAPE = Metric(
    name="shape_decisions",
    title="decisions by shape",
    heading="decided by shape",
    unit="fraction of all images, 0..1",
    explanation="How many answers are the shape's, among all images. It says what the shape bias does not: how often a "
    "model answers by either of the two. More is better.",
    sources=(GEIRHOS,),
    deviations=("among all images, those without a contradiction too, as in the authors' code",),
    compared=False,
    tabled=False,
)
TEXTURE = Metric(
    name="texture_decisions",
    title="decisions by texture",
    heading="decided by texture",
    unit=SHAPE.unit,
    explanation="How many answers are the texture's, among all images; neither more nor less is better by itself.",
    sources=SHAPE.sources,
    deviations=SHAPE.deviations,
    better="neither",
    compared=False,
    tabled=False,
)
OF_CLASS = Metric(
    name="shape_bias_of_class",
    title="shape bias of a class",
    heading="shape bias of {class}",
    unit=SHAPE_BIAS.unit,
    explanation="The shape bias on images with the shape of one class. More is more like people.",
    sources=(GEIRHOS,),
    deviations=(USED, "the class is that of the image's shape; the papers' code takes the answered one (D10)"),
    compared=False,
    tabled=False,
)
PER_ANSWER = Metric(
    name="shape_bias_per_class_answered",
    title="shape bias of an answered class",
    heading="shape bias of the answer {class}",
    unit=SHAPE_BIAS.unit,
    explanation="The shape bias of images that are answered with one class, be it their shape's or their texture's. It "
    "mixes how a class is recognised with how often it is answered; measured only where the papers' code is followed.",
    sources=("Singh et al. 2024, arXiv 2405.20469, figure 4 (right), as its code counts (D10)",),
    better="neither",
    deviations=(USED, "Geirhos et al. count under the class of the image's shape: shape_bias_of_class"),
    compared=False,
    tabled=False,
)
METRICS = (SHAPE_BIAS, SHAPE, TEXTURE, OF_CLASS, PER_ANSWER)


def conditions(config: EvaluateConfig, role: Role) -> tuple[Condition, ...]:
    """Return the images as they are."""
    return (CLEAN,) if role == "shape" else ()


def measure(predictions: ModelPredictions, config: EvaluateConfig) -> Iterator[Measurement]:
    """Yield the shape bias, the share of both kinds of decisions, and the shape bias of every class."""
    by_answer = "D10" in predictions.deviations
    for item in predictions.having("shape"):
        terms = decisions(item)
        # Numbers are of the images that contradict themselves; the others stay in the terms as zeros.
        used = int(conflicting(item).sum())
        yield _bias(SHAPE_BIAS, item, terms, {}, used)
        for metric, column in ((SHAPE, 0), (TEXTURE, 1)):
            yield _share_of_all(metric, item, terms[:, column : column + 1])
        for number, name in enumerate(item.of.test_set.class_ids):
            chosen = (item.answers.answers if by_answer else item.answers.labels) == number
            yield _bias(
                PER_ANSWER if by_answer else OF_CLASS,
                item,
                terms * chosen[:, None],
                {"class": name},
                int((chosen & conflicting(item)).sum()),
                ("D10",) if by_answer else (),
            )


def conflicting(item: SetPredictions) -> np.ndarray:
    """Return bool[n]: whether shape and texture are of different classes."""
    differ: np.ndarray = item.answers.labels != item.of.test_set.facts["texture"]
    return differ


def decisions(item: SetPredictions) -> np.ndarray:
    """Return whether an answer is the shape's, and whether it is the texture's, float64[n, 2]; 0 without a conflict."""
    answers = item.answers
    either = np.stack([answers.answers == answers.labels, answers.answers == item.of.test_set.facts["texture"]], 1)
    decided: np.ndarray = (either & conflicting(item)[:, None]).astype(np.float64)
    return decided


def bias(sums: np.ndarray) -> np.ndarray:
    """Return the shape bias of sums [..., 2] (shape, texture); NaN where neither was answered."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value: np.ndarray = sums[..., 0] / sums.sum(-1)
    return value


def _bias(
    metric: Metric,
    item: SetPredictions,
    terms: np.ndarray,
    settings: dict[str, Any],
    n: int,
    deviations: tuple[str, ...] = (),
) -> Measurement:
    # Wilson's interval takes the answers by shape or texture as given; there may be none, where it is undefined.
    return Measurement(
        metric=metric,
        settings=settings,
        terms=terms,
        statistic=bias,
        counts=lambda sums: (sums[0], sums[0] + sums[1]),
        bounds=(0.0, 1.0),
        on=item,
        deviations=deviations,
        n=n,
    )


def _share_of_all(metric: Metric, item: SetPredictions, terms: np.ndarray) -> Measurement:
    n = len(terms)
    return Measurement(
        metric=metric,
        terms=terms,
        statistic=lambda sums: sums[..., 0] / n,
        interval="wilson",
        counts=lambda sums: (sums[0], n),
        on=item,
    )
