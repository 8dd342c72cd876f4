"""How models differ on the same images: paired differences of every number, with intervals and a verdict on each.

In: `Measured` numbers per model. Out: a `Comparison` for every pair of models and every compared number.
"""

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

from synclones.evaluate.axis import Measurement, metrics
from synclones.evaluate.bounds.family import ALPHA, Verdict, holm
from synclones.evaluate.bounds.intervals import Z95, Interval, basic_interval

if TYPE_CHECKING:  # a report shows differences without measuring any
    from synclones.evaluate.measure import Measured


@dataclass(frozen=True)
class Comparison:
    """How two models differ in one number on the same images: the first minus the second."""

    first: str
    second: str
    metric: str
    """The heading of the number in tables, with its set where that is not the reference."""
    difference: Interval | None
    """None where it is undefined, or where too few images count for resampling to say how sure it is."""
    name: str = ""
    """Of the metric in files of results; empty: unknown."""
    adjusted: float | None = None
    """The p-value among all comparisons of the family (Holm 1979)."""

    @property
    def p(self) -> float | None:
        """The two-sided p-value of a normal error as wide as the interval; None where nothing is known."""
        if self.difference is None or self.difference.low == self.difference.high:
            return None
        error = (self.difference.high - self.difference.low) / (2 * Z95)
        return math.erfc(abs(self.difference.value) / error / math.sqrt(2))

    @property
    def verdict(self) -> Verdict:
        """What may be said of it: ``differs`` holds among all comparisons together, with the confidence of one."""
        if self.difference is None or self.p is None:
            return "cannot be told"
        if self.difference.inside_noise:
            return "inside the noise"
        return "differs" if self.adjusted is not None and self.adjusted < ALPHA else "may be chance"

    @property
    def first_is_better(self) -> bool | None:
        """Whether the first model has the better value; None where the metric has no better way, or none is known."""
        metric = metrics().get(self.name)
        if self.difference is None or not self.difference.value or metric is None or metric.better == "neither":
            return None
        return (self.difference.value > 0) == (metric.better == "more")

    def reversed(self) -> "Comparison":
        """Return the second minus the first."""
        d = self.difference
        turned = None if d is None else Interval(-d.value, -d.high, -d.low)
        return replace(self, first=self.second, second=self.first, difference=turned)


def compare(numbers: dict[str, list["Measured"]]) -> list[Comparison]:
    """Compare all pairs of models, named by the keys, in every number by a paired bootstrap over the test images."""
    by_model = {
        model: {named(item.measurement): item for item in own if item.measurement.metric.compared}
        for model, own in numbers.items()
    }
    comparisons = []
    for number in dict.fromkeys(name for own in by_model.values() for name in own):
        having = [(model, own[number]) for model, own in by_model.items() if number in own]
        for (first, a), (second, b) in combinations(having, 2):
            name = a.measurement.metric.name
            comparisons.append(Comparison(first, second, number, _difference(a, b), name))
    adjusted = holm([item.p for item in comparisons])
    return [replace(item, adjusted=p) for item, p in zip(comparisons, adjusted, strict=True)]


def named(measurement: Measurement) -> str:
    """Return the heading of a number, with its set where that is not the reference and the heading does not say it."""
    on, named_sets = measurement.on, {"set", "outliers"} & set(measurement.settings)
    if on is None or on.of.role == "reference" or named_sets:
        return measurement.heading
    classes = measurement.settings.get("classes")
    return f"{measurement.heading} on {on.of.title}{'' if classes is None else f' ({classes} classes)'}"


def family_note(compared: list[Comparison]) -> str:
    """Return the sentences that say what is called clear among so many comparisons."""
    clear, perhaps = (sum(item.verdict == word for item in compared) for word in ("differs", "may be chance"))
    expected = ALPHA * sum(item.difference is not None for item in compared)
    together = "all of these hold together" if clear > 1 else "it holds among all"
    sure = f": {together} with 95 % confidence (Holm)" if clear else ""
    more = f"{perhaps} more {'has' if perhaps == 1 else 'have'}" if perhaps else "No other has"
    are = "is" if clear == 1 else "are"
    return (
        f"Of {len(compared)} comparisons {clear} {are} clear{sure}. {more} an interval without 0, as about "
        f"{expected:.1f} would by chance if no two models differed; {len(compared) - clear - perhaps} are inside the "
        "noise or cannot be told."
    )


def _difference(a: "Measured", b: "Measured") -> Interval | None:
    if a.stopped is not None:
        return a.stopped.difference(a.measurement.terms[:, 0] - b.measurement.terms[:, 0])
    interval = basic_interval(a.value - b.value, a.resampled - b.resampled)
    # A difference that no resample varies is not certain: too few images tell the models apart.
    if interval is not None and interval.value and interval.low == interval.high:
        return None
    return interval
