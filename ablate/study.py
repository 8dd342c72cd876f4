"""Everything that the report of a grid says, computed once: arms, comparisons, laws, classes, sentences.

In: `GridResults`. Out: a `Study`, which `ablate/reports/` only writes down.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from synclones.ablate.arms import Arm, Pair, arms_of, compare_arms, kind_of, size_axis, size_of
from synclones.ablate.cells import GridResults
from synclones.ablate.classes import ClassCurve, answers_by_class, class_curves
from synclones.ablate.columns import Column, Number, columns_named
from synclones.ablate.comparisons import Difference, pooled_sd, seeds_needed, verdict
from synclones.ablate.image_sets import Diversity, diversity, recognisability
from synclones.ablate.observations import Judged, judge, observations_of
from synclones.ablate.resampled import RESAMPLES, gives, right_answers
from synclones.ablate.scaling import Expected, Law, Point, Refusal, expected_accuracy, fit
from synclones.base.errors import SynclonesError
from synclones.evaluate.bounds.intervals import Z95, Interval
from synclones.evaluate.stored.results import read_cells

NEXT = 4.0
"""How many times the largest size a law is asked in the report."""


@dataclass(frozen=True)
class Curve:
    """Accuracy over the number of images for one kind of data: measured points, the law, and what it expects next."""

    kind: str
    points: tuple[Point, ...]
    law: Law | Refusal
    next: Expected | Refusal


@dataclass(frozen=True)
class ImageSet:
    """What a judge says of a set of images."""

    name: str
    recognised: Interval
    diversity: Diversity | None
    judge: str


@dataclass(frozen=True, eq=False)
class Study:
    """A grid and what follows from its results; nothing is computed before it is asked for.

    Attributes:
        judged: name of a set of images -> folder of `synclones evaluate`: a judge is its one model, the set its data.
        resamples: of the test images, for comparisons.
    """

    results: GridResults
    judged: Mapping[str, Path] = field(default_factory=dict)
    resamples: int = RESAMPLES

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the table."""
        return columns_named(self.results.columns)

    @cached_property
    def arms(self) -> list[Arm]:
        """The rows of the table."""
        return arms_of(self.results)

    @cached_property
    def pairs(self) -> list[Pair]:
        """All comparisons of two arms that differ in one axis."""
        return compare_arms(self.results, self.arms, self.resamples)

    @cached_property
    def sentences(self) -> list[Judged]:
        """What papers say of the grid, judged."""
        return [judge(item, self.results, self.pairs) for item in observations_of(self.results.name)]

    @property
    def measured(self) -> int:
        """How many trainings have results that can be read."""
        return sum(len({seed for own in arm.numbers.values() for seed in own}) for arm in self.arms)

    @cached_property
    def size_axis(self) -> str | None:
        """The axis of the number of images."""
        return size_axis(self.results)

    def kinds(self) -> dict[str, list[Arm]]:
        """Return the arms of each kind of data, in the order of sizes."""
        kinds: dict[str, list[Arm]] = {}
        for arm in self.arms:
            kinds.setdefault(kind_of(arm.values, self.size_axis), []).append(arm)
        return kinds

    # -------------------------------------------------------------- what may be said

    @cached_property
    def at_chance(self) -> set[str]:
        """The names of arms of which some training is not surely right more often than one answer to everything."""
        if "accuracy" not in self.results.columns:
            return set()
        return {arm.name for arm in self.arms if any(_by_chance(f, n) for _, f, n in arm.results("accuracy"))}

    def best_of(self, arms: list[Arm], column: Column) -> set[str]:
        """Return the names of the best arm and of those that are not told apart from it; empty where none is worse."""
        known = [(arm.spread(column.name), arm) for arm in arms]
        # What a model at chance keeps under attack or corruption is no robustness.
        out = self.at_chance if column.name != "accuracy" else set()
        ranked = [(spread.mean, arm) for spread, arm in known if spread is not None and arm.name not in out]
        if len(ranked) < 2:
            return set()
        best = max(ranked, key=lambda item: column.sign() * item[0])[1]
        apart = {self._other(pair, best).name for pair in self.pairs if self._apart(pair, best, column)}
        names = {arm.name for _, arm in ranked}
        return names - apart if apart & names else set()

    @staticmethod
    def _other(pair: Pair, arm: Arm) -> Arm:
        return pair.second if pair.first is arm else pair.first

    @staticmethod
    def _apart(pair: Pair, arm: Arm, column: Column) -> bool:
        if pair.column is not column or arm not in (pair.first, pair.second):
            return False
        return isinstance(pair.difference, Difference) and verdict(pair.difference, pair.adjusted) == "differs"

    def seeds_for_a_point(self, column: Column) -> tuple[float, float, int | None] | None:
        """Return the spread over seeds and the noise of images of a difference, and how many seeds show one point.

        None where no two arms were trained with two seeds.
        """
        known = [p.difference for p in self.pairs if p.column is column and isinstance(p.difference, Difference)]
        own = [item for item in known if item.p is not None]  # of a training beside itself nothing varies
        spread = pooled_sd(own)
        if spread is None:
            return None
        images = float(np.sqrt(np.mean([item.se_images**2 for item in own])))
        return spread, images, seeds_needed(spread, images)

    # -------------------------------------------------------------- growth

    @cached_property
    def curves(self) -> list[Curve]:
        """The law of each kind of data; none where the grid has no axis of sizes, or no accuracy."""
        if self.size_axis is None or "accuracy" not in self.results.columns:
            return []
        curves = []
        for kind, arms in self.kinds().items():
            points = measured_points(self.results, arms, self.size_axis)
            if points:
                further = expected_accuracy(points, NEXT * max(p.size for p in points), sigma_of_one(arms))
                curves.append(Curve(kind, points, fit(points), further))
        return curves

    @cached_property
    def classes(self) -> dict[str, list[ClassCurve]]:
        """Kind of data -> what growth does to each class, where answers by class are kept at two sizes or more."""
        if self.size_axis is None or "accuracy" not in self.results.columns:
            return {}
        curves = {kind: _by_class(arms) for kind, arms in self.kinds().items()}
        return {kind: own for kind, own in curves.items() if own}

    @cached_property
    def image_sets(self) -> list[ImageSet]:
        """What judges say of the sets of images; those whose results cannot be read are left out."""
        sets = []
        for name, folder in self.judged.items():
            try:
                cell = next(c for c in read_cells(folder) if c.metric == "accuracy")
                kept = right_answers(folder, cell)
            except (SynclonesError, OSError, StopIteration):
                continue
            if not gives(kept, cell.value):
                continue
            logits = kept.logits - kept.logits.mean(1, keepdims=True)
            asked = recognisability(kept.answers, kept.labels)
            sets.append(ImageSet(name, asked, diversity(logits, kept.labels), cell.model))
        return sets


def measured_points(results: GridResults, arms: list[Arm], axis: str) -> tuple[Point, ...]:
    """Return the errors of arms by size, with standard errors over trainings and images together.

    Of few trainings each size's own spread is too uncertain, so that all sizes share theirs (root mean square).
    """
    of_seeds, points = _variance_of_seeds(arms), []
    for arm in arms:
        spread = arm.spread("accuracy")
        if spread is not None:
            variance = _variance_of_images([arm]) + of_seeds / spread.seeds
            size = size_of(results, arm.values[axis])
            points.append(Point(size, 1 - spread.mean, max(float(np.sqrt(variance)), 1e-6)))
    return tuple(sorted(points, key=lambda point: point.size))


def sigma_of_one(arms: list[Arm]) -> float:
    """Return the standard error of the accuracy of one training more: points are of the means of several."""
    return max(float(np.sqrt(_variance_of_images(arms) + _variance_of_seeds(arms))), 1e-6)


def _variance_of_seeds(arms: list[Arm]) -> float:
    known = [spread.sd**2 for arm in arms if (spread := arm.spread("accuracy")) is not None and spread.sd is not None]
    return float(np.mean(known)) if known else 0.0


def _variance_of_images(arms: list[Arm]) -> float:
    numbers = [number for arm in arms for number in arm.numbers["accuracy"].values()]
    halves = [(n.high - n.low) / 2 / Z95 for n in numbers if n.low is not None and n.high is not None]
    return float(np.mean(np.square(halves))) if halves else 0.0


def _by_chance(folder: Path, number: Number) -> bool:
    """Return whether the interval of an accuracy holds the share of the most frequent class, or lies below it."""
    try:
        labels = right_answers(folder, number.cells[0]).labels
    except SynclonesError:
        return False
    return number.low is not None and number.low <= float(np.bincount(labels).max() / len(labels))


def _by_class(arms: list[Arm]) -> list[ClassCurve]:
    sizes = []
    for arm in arms:
        kept = []
        for _, folder, number in arm.results("accuracy"):
            try:
                own = right_answers(folder, number.cells[0])
            except SynclonesError:
                continue
            kept += [own] if gives(own, number.value) else []  # of classes in groups logits are no answers
        if kept:
            classes = max(int(item.labels.max()) for item in kept) + 1
            sizes.append([answers_by_class(item.labels, item.correct, classes) for item in kept])
    alike = len({answers.shape for trainings in sizes for answers in trainings}) == 1
    return class_curves(sizes) if len(sizes) > 1 and alike else []
