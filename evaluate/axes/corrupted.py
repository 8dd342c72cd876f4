"""Robustness to common corruptions: what is left of the accuracy under noise, blur, weather and compression."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from synclones.evaluate.answers.predictions import CLEAN, Condition, ModelPredictions, SetPredictions
from synclones.evaluate.axes.accuracy import share_of_images
from synclones.evaluate.axis import Measurement, Metric
from synclones.evaluate.bounds.intervals import Z95
from synclones.evaluate.corruptions.constants import ALEXNET_ERRORS, TEST
from synclones.evaluate.layout import Role
from synclones.evaluate.methods.shares import Number, Shares, identity, ratio
from synclones.evaluate.settings import EvaluateConfig

ORDER = 50
IMAGENET_CLASSES = 1000
SEVERITIES = range(1, 6)

# The order in which the papers' code goes through its sets (D1): that of its logs.
PAPERS_ORDER = (
    *("shot_noise", "motion_blur", "snow", "pixelate", "jpeg_compression"),
    *("near_focus", "far_focus", "fog_3d", "xy_motion_blur", "z_motion_blur"),
)
HENDRYCKS = "Hendrycks and Dietterich 2019, arXiv 1903.12261 (ImageNet-C)"
KAR = "Kar et al. 2022, arXiv 2203.01441 (ImageNet-3DCC)"
LAION_C = "Li et al. 2025, LAION-C: An Out-of-Distribution Benchmark for Web-Scale Vision Models"
SINGH = "Singh et al. 2024, Is Synthetic Data all We Need?, arXiv 2405.20469, section 4"
RUNNING = "under protocol paper (D1) of running means over all sets so far, as the paper's code has it"

R_CC = Metric(
    name="r_cc",
    title="R_cc",
    heading="R_cc {set}",
    unit="corrupted accuracy over clean accuracy, 0 and up",
    explanation="Relative robustness to common corruptions: of the accuracy on clean images, the share that is left on "
    "the mean over corruptions and their severities. More is better; a model that was rarely right cannot lose much, "
    "so read it beside the accuracy.",
    sources=(SINGH, HENDRYCKS, KAR),
    deviations=(RUNNING,),
)
MEAN = Metric(
    name="accuracy_corrupted",
    title="corrupted accuracy",
    heading="accuracy {set}",
    unit="fraction, 0..1, mean over corruptions",
    explanation="The accuracy under corruption: the mean over severities, then over corruptions. More is better.",
    sources=(HENDRYCKS, KAR, LAION_C),
    deviations=(RUNNING,),
    compared=False,
)
ERROR = Metric(
    name="mce_unnormalised",
    title="mean corruption error, not normalised",
    heading="mCE (not normalised) {set}",
    unit="fraction, 0..1",
    explanation="1 minus the corrupted accuracy. Less is better. What others print as mCE is another number, `mce`.",
    sources=(HENDRYCKS,),
    deviations=("not divided by AlexNet's errors, and of the corruptions that are here",),
    better="less",
    compared=False,
    tabled=False,
)
MCE = Metric(
    name="mce",
    title="mCE",
    heading="mCE {set}",
    unit="error over AlexNet's, 0 and up",
    explanation="Mean corruption error: of each of the 15 corruptions the mean error over five severities, divided by "
    "AlexNet's, and the mean of that. AlexNet has 1. Less is better. It is there for sets of ImageNet's 1,000 classes "
    "that have all 15 at all severities; AlexNet's errors are those on the released images.",
    sources=(HENDRYCKS,),
    better="less",
    compared=False,
)
CORRUPTION = Metric(
    name="accuracy_corruption",
    title="accuracy under one corruption",
    heading="{corruption} ({set})",
    unit="fraction, 0..1, mean over severities",
    explanation="The accuracy under one corruption: the mean over its severities. More is better.",
    sources=(HENDRYCKS, KAR, LAION_C),
    deviations=(RUNNING,),
    compared=False,
)
CELL = Metric(
    name="accuracy_corruption_severity",
    title="accuracy under one corruption of one severity",
    heading="{corruption} {severity} ({set})",
    unit="fraction of the test images, 0..1",
    explanation="The accuracy on the images under one corruption of one severity. More is better. It falls with "
    "severity, but for snow from 2 to 3, whose constants are so; elsewhere a rise is a sign of a mistake.",
    sources=(HENDRYCKS, KAR, LAION_C),
    compared=False,
    tabled=False,
)
METRICS = (R_CC, MEAN, ERROR, MCE, CORRUPTION, CELL)


def conditions(config: EvaluateConfig, role: Role) -> tuple[Condition, ...]:
    """Return the images of the sets, which are corrupted already, and the clean ones."""
    return (CLEAN,) if role in ("reference", "corrupted") else ()


def measure(predictions: ModelPredictions, config: EvaluateConfig) -> Iterator[Measurement]:
    """Yield the numbers of every corrupted set, and of all together."""
    names = list(dict.fromkeys(item.of.name for item in predictions.having("corrupted")))
    if not names:
        return
    # One resampling serves all: of the reference first, so that ratios to it are paired where the images are the same.
    parts = [item for name in names for item in in_order(predictions, name)]
    shares = Shares((predictions.reference, *parts))
    running = "D1" in predictions.deviations
    for name in names:
        own = _Chosen(shares, [n for n, item in enumerate(shares.sets) if n and item.of.name == name], name, running)
        yield from own.single()
        yield from own.together()
    likely = [number for number, item in enumerate(shares.sets) if number and comparable(item, predictions.reference)]
    together = list(dict.fromkeys(shares.sets[number].of.name for number in likely))
    if len(together) > 1:
        yield from _Chosen(shares, likely, " and ".join(together), running).together()


def in_order(predictions: ModelPredictions, name: str) -> list[SetPredictions]:
    """Return the parts of a corrupted set by corruption and severity, the papers' corruptions first in their order."""
    parts = [item for item in predictions.having("corrupted") if item.of.name == name]
    corruptions = list(dict.fromkeys(item.of.settings["corruption"] for item in parts))
    order = [*(c for c in PAPERS_ORDER if c in corruptions), *(c for c in corruptions if c not in PAPERS_ORDER)]
    return sorted(parts, key=lambda item: (order.index(item.of.settings["corruption"]), item.of.settings["severity"]))


def comparable(item: SetPredictions, reference: SetPredictions) -> bool:
    """Return whether a set asks what the reference asks: the same classes, read in the same way (not LAION-C's 16)."""
    ours, theirs = item.of.test_set, reference.of.test_set
    return (ours.class_ids, ours.decision) == (theirs.class_ids, theirs.decision)


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Some of the sets, in the order of `in_order`, and what is measured on them."""

    shares: Shares
    """The reference first."""
    numbers: list[int]
    """Of the chosen ones."""
    name: str
    running: bool
    """Whether means are those of all sets so far (D1)."""

    @cached_property
    def parts(self) -> list[SetPredictions]:
        return [self.shares.sets[number] for number in self.numbers]

    @cached_property
    def corruptions(self) -> list[tuple[str, str]]:
        """Of each part, with the name of its set: one corruption may be in two."""
        return [(part.of.name, part.of.settings["corruption"]) for part in self.parts]

    @cached_property
    def settings(self) -> dict[str, Any]:
        return {"set": self.name, "set_sha256": identity(self.parts)}

    @cached_property
    def stored(self) -> np.ndarray:
        """What the code stores for each part as weights of the parts' own accuracies, float64[parts, parts].

        The identity; under D1 the mean over all images so far, of each set of the suite from its beginning, since
        2dcc.py and 3dcc.py are two runs.
        """
        counts = np.array([len(part.answers) for part in self.parts], dtype=np.float64)
        names = np.array([part.of.name for part in self.parts])
        if not self.running:
            return np.eye(len(counts))
        earlier = np.tri(len(counts)) * (names[:, None] == names) * counts
        weights: np.ndarray = earlier / earlier.sum(1, keepdims=True)
        return weights

    def single(self) -> Iterator[Measurement]:
        """Yield the accuracy of each corruption and severity, and of each corruption."""
        for part in self.parts:
            yield share_of_images(CELL, part, {"set": self.name, **part.of.settings})
        for corruption in dict.fromkeys(self.corruptions):
            chosen = np.array([name == corruption for name in self.corruptions])
            parts = [part for part, is_chosen in zip(self.parts, chosen, strict=True) if is_chosen]
            severities = [part.of.settings["severity"] for part in parts]
            more = {"corruption": corruption[1], "severities": severities}
            yield self._share(CORRUPTION, chosen / chosen.sum(), more, rises(parts))

    def together(self) -> Iterator[Measurement]:
        """Yield the mean over corruptions, the error that it leaves, and its ratio to clean accuracy."""
        each = np.array([1 / self.corruptions.count(c) for c in self.corruptions])
        each /= each.sum()
        more = {"corruptions": len(set(self.corruptions))}
        yield self._share(MEAN, each, more)
        weights = self._spread(each)
        yield self._measurement(ERROR, lambda accuracies: 1 - accuracies @ weights, more, (0.0, 1.0))
        normalised = self._over_alexnet()
        if normalised is not None:
            weights_of_errors, total = normalised, float(normalised.sum())
            more_of_test = {"corruptions": len(TEST)}
            yield self._measurement(MCE, lambda a: total - a @ weights_of_errors, more_of_test, (0.0, total))
        if all(comparable(part, self.shares.sets[0]) for part in self.parts):
            yield self._measurement(R_CC, ratio(weights, 0), more, (0.0, np.inf))

    def _over_alexnet(self) -> np.ndarray | None:
        """Return the weights of the sets' errors in the mCE, float64[sets], or none where these are not its sets."""
        cells = {(part.of.settings["corruption"], part.of.settings["severity"]) for part in self.parts}
        whole = {(corruption, severity) for corruption in TEST for severity in SEVERITIES}
        one_set = len({part.of.name for part in self.parts}) == 1
        of_imagenet = all(len(part.of.test_set.class_ids) == IMAGENET_CLASSES for part in self.parts)
        if self.running or not one_set or not of_imagenet or not whole <= cells:
            return None
        weights = np.zeros(len(self.shares.sets))
        for number, part in zip(self.numbers, self.parts, strict=True):
            error = ALEXNET_ERRORS.get(part.of.settings["corruption"])
            weights[number] = 0 if error is None else 1 / (error * len(TEST) * len(SEVERITIES))
        return weights

    def _spread(self, weights: np.ndarray) -> np.ndarray:
        """Return weights of what is stored for the parts as weights of the accuracies of all sets."""
        spread = np.zeros(len(self.shares.sets))
        spread[self.numbers] = weights @ self.stored
        return spread

    def _share(
        self, metric: Metric, weights: np.ndarray, more: dict[str, Any], notes: tuple[str, ...] = ()
    ) -> Measurement:
        spread = self._spread(weights)
        measurement = self._measurement(metric, lambda accuracies: accuracies @ spread, more, (0.0, 1.0), notes)
        # Where no resample varies, as of a model that is always right, the interval is that of the images of one part.
        n, value = min(len(part.answers) for part in self.parts), float(self.shares.measured @ spread)
        return replace(measurement, counts=lambda _: (round(value * n), n))

    def _measurement(
        self,
        metric: Metric,
        formula: Callable[[np.ndarray], np.ndarray],
        more: dict[str, Any],
        bounds: tuple[float, float],
        notes: tuple[str, ...] = (),
    ) -> Measurement:
        """Return a number of several sets as a measurement; it stands with those of the reference."""
        reference, number = self.shares.sets[0], Number(self.shares, formula)
        return Measurement(
            metric=metric,
            settings=self.settings | more,
            terms=np.zeros((len(reference.answers), 0)),
            statistic=number.of_sums,
            resample=number.resampled,
            bounds=bounds,
            on=reference,
            more_logits=tuple(part.logits_keys[CLEAN] for part in self.parts),
            deviations=("D1",) if self.running else (),
            n=sum(len(part.answers) for part in self.parts),
            notes=notes,
        )


def rises(parts: Sequence[SetPredictions]) -> tuple[str, ...]:
    """Return a sentence for each severity of one corruption at which accuracy is above that of the one before.

    By more than chance: two standard errors of the difference of two shares.
    """
    notes = []
    for before, after in pairwise(parts):
        (a, n), (b, m) = ((item.answers.correct.mean(), len(item.answers)) for item in (before, after))
        if b - a > Z95 * np.sqrt(a * (1 - a) / n + b * (1 - b) / m):
            low, high = before.of.settings["severity"], after.of.settings["severity"]
            notes.append(
                f"{after.of.settings['corruption']}: accuracy rises from severity {low} ({100 * a:.1f} %) to {high} "
                f"({100 * b:.1f} %)"
            )
    return tuple(notes)
