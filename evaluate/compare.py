"""How models differ on the same images: paired differences of every number, with intervals.

In: `Measured` numbers per model. Out: a `Comparison` for every pair of models and every compared number.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from synclones.evaluate.axis import Measurement
from synclones.evaluate.bounds.intervals import Interval, basic_interval

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


def compare(numbers: dict[str, list["Measured"]]) -> list[Comparison]:
    """Compare all pairs of models, named by the keys, in every number by a paired bootstrap over the test images."""
    comparisons = []
    for same in zip(*numbers.values(), strict=True):  # one measurement of all models
        measurement = same[0].measurement
        if not measurement.metric.compared:
            continue
        for (first, a), (second, b) in combinations(zip(numbers, same, strict=True), 2):
            comparisons.append(Comparison(first, second, named(measurement), _difference(a, b)))
    return comparisons


def named(measurement: Measurement) -> str:
    """Return the heading of a number, with its set where that is not the reference and the heading does not say it."""
    on, named_sets = measurement.on, {"set", "outliers"} & set(measurement.settings)
    if on is None or on.of.role == "reference" or named_sets:
        return measurement.heading
    classes = measurement.settings.get("classes")
    return f"{measurement.heading} on {on.of.title}{'' if classes is None else f' ({classes} classes)'}"


def chance(compared: list[Comparison]) -> str:
    """Return the sentence that says how many of the comparisons would look real if no two models differed."""
    counted = [item for item in compared if item.difference is not None]
    apparent = sum(not item.difference.inside_noise for item in counted if item.difference is not None)
    return (
        f"These are {len(counted)} comparisons, of which {apparent} look real; if no two models differed, about "
        f"{0.05 * len(counted):.1f} of them would, by chance."
    )


def _difference(a: "Measured", b: "Measured") -> Interval | None:
    if a.stopped is not None:
        return a.stopped.difference(a.measurement.terms[:, 0] - b.measurement.terms[:, 0])
    interval = basic_interval(a.value - b.value, a.resampled - b.resampled)
    # A difference that no resample varies is not certain: too few images tell the models apart.
    if interval is not None and interval.value and interval.low == interval.high:
        return None
    return interval
