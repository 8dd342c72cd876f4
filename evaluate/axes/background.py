"""Background bias: how much of an answer is owed to what stands behind the object."""

from collections.abc import Iterator

import numpy as np

from synclones.evaluate.answers.predictions import CLEAN, Condition, ModelPredictions, SetPredictions
from synclones.evaluate.axes.accuracy import share_of_images
from synclones.evaluate.axis import Measurement, Metric
from synclones.evaluate.layout import Role
from synclones.evaluate.methods.shares import Number, Shares
from synclones.evaluate.settings import EvaluateConfig

ORDER = 70

XIAO = "Xiao et al. 2021, Noise or Signal: The Role of Image Backgrounds in Object Recognition, arXiv 2006.09994"
COUNTED = "an answer is right when the most probable of all classes of the model is a member of the image's class"
UNIT = "fraction of the images, 0..1"
ORIGINAL = Metric(
    name="accuracy_original",
    title="accuracy on the original images",
    heading="accuracy original",
    unit=UNIT,
    explanation="The accuracy on the images of a few broad classes as they are. More is better.",
    sources=(XIAO,),
    deviations=(COUNTED,),
    compared=False,
)
SAME = Metric(
    name="accuracy_mixed_same",
    title="accuracy on backgrounds of the same class",
    heading="accuracy mixed-same",
    unit=UNIT,
    explanation="The accuracy on objects before the background of another image of their class. More is better.",
    sources=(XIAO,),
    deviations=(COUNTED,),
    compared=False,
)
RANDOM = Metric(
    name="accuracy_mixed_rand",
    title="accuracy on backgrounds of any class",
    heading="accuracy mixed-rand",
    unit=UNIT,
    explanation="The accuracy on objects before the background of an image of any class. More is better.",
    sources=(XIAO,),
    deviations=(COUNTED,),
    compared=False,
)
VARIANT = Metric(
    name="accuracy_background",
    title="accuracy on another variant of the backgrounds",
    heading="accuracy {variant}",
    unit=UNIT,
    explanation="The accuracy on one more variant: only_fg shows the object alone, no_fg its hole, only_bg_b and "
    "only_bg_t the background alone, where fewer right answers are better.",
    sources=(XIAO,),
    deviations=(COUNTED,),
    better="neither",
    compared=False,
    tabled=False,
)
GAP = Metric(
    name="bg_gap",
    title="BG-Gap",
    heading="BG-Gap {set}",
    unit="difference of two fractions, -1..1; printed in points",
    explanation="What a background of the object's own class is worth: the accuracy with one, less that with the "
    "background of any class. Less is better.",
    sources=(XIAO,),
    deviations=(
        "in fractions in files and in points in tables; two of the published tables have tenths of points (D7)",
    ),
    better="less",
    unit_short="points",
)
METRICS = (ORIGINAL, SAME, RANDOM, VARIANT, GAP)
NAMED = {"original": ORIGINAL, "mixed_same": SAME, "mixed_rand": RANDOM}


def conditions(config: EvaluateConfig, role: Role) -> tuple[Condition, ...]:
    """Return the images as they are."""
    return (CLEAN,) if role == "background" else ()


def measure(predictions: ModelPredictions, config: EvaluateConfig) -> Iterator[Measurement]:
    """Yield the accuracy on every variant, and the gap of two of them."""
    parts = predictions.having("background")
    for name in dict.fromkeys(item.of.name for item in parts):
        variants = {item.of.settings["variant"]: item for item in parts if item.of.name == name}
        for variant, item in variants.items():
            yield share_of_images(NAMED.get(variant, VARIANT), item, {"set": name, "variant": variant})
        if "mixed_same" in variants and "mixed_rand" in variants:
            yield _gap(name, variants["mixed_same"], variants["mixed_rand"])


def _gap(name: str, same: SetPredictions, random: SetPredictions) -> Measurement:
    """Return the gap; paired where the two variants are of the same objects by name, else both are resampled."""
    gap = Number(Shares((same, random)), lambda accuracies: accuracies[..., 0] - accuracies[..., 1])
    rests_on = {"mixed_rand": random.of.title, "mixed_rand_sha256": random.of.test_set.content_hash}
    return Measurement(
        metric=GAP,
        settings={"set": name, **rests_on},
        terms=np.zeros((len(same.answers), 0)),
        statistic=gap.of_sums,
        resample=gap.resampled,
        bounds=(-1.0, 1.0),
        on=same,
        more_logits=(random.logits_keys[CLEAN],),
    )
