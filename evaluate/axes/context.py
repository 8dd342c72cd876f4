"""Context bias: what is lost when objects stand where they seldom do, at night, in snow, indoors."""

from collections.abc import Iterator

import numpy as np

from synclones.evaluate.answers.predictions import CLEAN, Condition, ModelPredictions, SetPredictions
from synclones.evaluate.axis import Measurement, Metric
from synclones.evaluate.layout import Role
from synclones.evaluate.settings import EvaluateConfig

ORDER = 80
LEFT_OUT = 2
"""How many images at the end the papers' code leaves out (D11)."""

KATTAKINDA = "Kattakinda and Feizi 2022, FOCUS: Familiar Objects in Common and Uncommon Settings, arXiv 2110.03804"
COUNTED = "an answer is right when the most probable of all classes of the model is a member of the image's class"
ACCURACY = Metric(
    name="accuracy_context",
    title="accuracy by number of uncommon attributes",
    heading="accuracy P_{uncommon}",
    unit="fraction of the images of this group, 0..1",
    explanation="The accuracy on images whose time, weather and place are uncommon for their object in none (P_0), "
    "one, two or three of the three. More is better.",
    sources=(KATTAKINDA,),
    deviations=(COUNTED,),
    compared=False,
    tabled=False,
)


def _ratio(k: int, words: str, more: str = "") -> Metric:
    return Metric(
        name=f"cb{k}",
        title=f"CB_{k}",
        heading=f"CB_{k}",
        unit="accuracy in uncommon settings over accuracy in common ones, 0 and up",
        explanation=f"Of the accuracy on objects in common settings (P_0), the share that is left where {words} of "
        f"time, weather and place are uncommon for the object. More is better; read it beside the accuracy.{more}",
        sources=(KATTAKINDA, "Singh et al. 2024, arXiv 2405.20469, section 4"),
        deviations=(COUNTED,),
        compared=k < 3,
        better="neither" if k == 3 else "more",
    )


RATIOS = {
    1: _ratio(1, "one"),
    2: _ratio(2, "two"),
    3: _ratio(3, "all three", " Of FOCUS these are 21 images: it is stated, and models are not ranked by it."),
}
METRICS = (*RATIOS.values(), ACCURACY)


def conditions(config: EvaluateConfig, role: Role) -> tuple[Condition, ...]:
    """Return the images as they are."""
    return (CLEAN,) if role == "context" else ()


def measure(predictions: ModelPredictions, config: EvaluateConfig) -> Iterator[Measurement]:
    """Yield the ratio of each group's accuracy to that of common settings, and the accuracies themselves."""
    last = LEFT_OUT if "D11" in predictions.deviations else 0
    for item in predictions.having("context"):
        yield from _of_set(item, last)


def _of_set(item: SetPredictions, last: int) -> Iterator[Measurement]:
    """Yield the numbers of one set without its ``last`` images."""
    terms = strata(item.answers.correct, item.of.test_set.facts["uncommon"], last)
    images = [int(count) for count in terms[:, 1::2].sum(0)]
    changed = ("D11",) if last else ()
    for k in range(terms.shape[1] // 2):
        columns = terms[:, 2 * k : 2 * k + 2]
        if k in RATIOS:
            yield Measurement(
                metric=RATIOS[k],
                settings={"images": images[k], "images_of_p0": images[0]},
                terms=np.concatenate([columns, terms[:, :2]], 1),
                statistic=context_bias,
                bounds=(0.0, np.inf),
                on=item,
                deviations=changed,
                n=images[k],
            )
        if images[k]:
            yield Measurement(
                metric=ACCURACY,
                settings={"uncommon": k, "images": images[k]},
                terms=columns,
                statistic=share,
                interval="wilson",
                counts=lambda sums: (sums[0], sums[1]),
                on=item,
                deviations=changed,
                n=images[k],
            )


def strata(correct: np.ndarray, uncommon: np.ndarray, last: int = 0) -> np.ndarray:
    """Return float64[n, 8]: of k = 0 to 3 whether an image is right and has k uncommon attributes, and whether it has.

    Images at the end that are left out are in no group.
    """
    counted = np.arange(len(correct)) < len(correct) - last
    groups = [(uncommon == k) & counted for k in range(4)]
    return np.stack([column for group in groups for column in (group & correct, group)], 1).astype(np.float64)


def share(sums: np.ndarray) -> np.ndarray:
    """Return the accuracy of sums [..., 2] (right, images); NaN without images."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value: np.ndarray = sums[..., 0] / sums[..., 1]
    return value


def context_bias(sums: np.ndarray) -> np.ndarray:
    """Return CB_k of sums [..., 4] (right and images of P_k, right and images of P_0); NaN where P_0 has none right."""
    common = share(sums[..., 2:])
    with np.errstate(divide="ignore", invalid="ignore"):
        value: np.ndarray = np.where(common > 0, share(sums[..., :2]) / common, np.nan)
    return value
