"""What papers say of a grid, each sentence judged by a rule from intervals: holds, does not hold, or cannot be told.

In: ``observations.yaml`` and the compared arms. Out: a `Judged` per sentence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from synclones.ablate.arms import Pair
from synclones.ablate.cells import GridResults
from synclones.ablate.comparisons import Difference
from synclones.ablate.paper import same_kind
from synclones.base.yaml_file import read_yaml
from synclones.evaluate.bounds.family import ALPHA

FILE = Path(__file__).with_name("observations.yaml")
Answer = Literal["holds", "does not hold", "cannot be told"]
_UP = {"rises": 1, "falls": -1, "more": 1, "less": -1}


@dataclass(frozen=True)
class Observation:
    """A sentence and its rule.

    Attributes:
        rule: rises or falls along an axis, more or less of one value than of another.
        of: the axis, or the two values.
        at: values of other axes beside which alone the sentence is meant.
    """

    says: str
    source: str
    column: str
    rule: Literal["rises", "falls", "more", "less"]
    of: tuple[str, ...]
    at: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """A sentence with the answer and why."""

    observation: Observation
    answer: Answer
    why: str


def observations_of(grid: str) -> tuple[Observation, ...]:
    """Return what papers say of a grid; nothing of one that none speaks of."""
    given = read_yaml(FILE).get(grid)
    return tuple(_observation(entry) for entry in given.plain()) if given is not None else ()


def _observation(entry: dict[str, Any]) -> Observation:
    (rule,) = set(entry) & set(_UP)
    of = entry[rule]
    return Observation(
        says=str(entry["says"]),
        source=str(entry["source"]),
        column=str(entry["column"]),
        rule=rule,  # type: ignore[arg-type]
        of=(of,) if isinstance(of, str) else tuple(map(str, of)),
        at={str(axis): str(value) for axis, value in entry.get("at", {}).items()},
    )


def judge(observation: Observation, results: GridResults, pairs: Sequence[Pair]) -> Judged:
    """Judge one sentence.

    It ``holds`` where every comparison that it is about goes its way with an interval without 0 (all have to, so that
    none needs a correction). It ``does not hold`` where some goes the other way, p < 0.05 over the number of
    comparisons. Else, and where some comparison is missing, it cannot be told.
    """
    values = _values(observation, results)
    if values is None:
        return Judged(observation, "cannot be told", "the grid has no such values")
    axis, first, second = values
    compared = _about(observation, axis, {first, second}, pairs)
    # Arms that are one and the same training, as where a value decides nothing, say nothing either way.
    same = sum(item.p is None and item.value == 0 for _, item in compared)
    contexts = _contexts(observation, results, axis)
    if not contexts:
        return Judged(observation, "cannot be told", "the grid has no such values")
    contexts -= same
    signed = [
        ((1 if pair.first.values[axis] == first else -1) * _UP[observation.rule] * item.value, item.p)
        for pair, item in compared
        if item.p is not None
    ]
    against = sum(way < 0 and p < ALPHA / max(1, contexts) for way, p in signed)
    fit = sum(way > 0 and p < ALPHA for way, p in signed)
    of = f"of {contexts} comparison{'s' if contexts > 1 else ''}"
    seeds = max((item.seeds for _, item in compared), default=0)
    more = "; one training each, so of these trainings alone" if seeds == 1 else ""
    if against:
        return Judged(observation, "does not hold", f"{against} {of} the other way{more}")
    if fit == contexts > 0:
        return Judged(observation, "holds", f"{fit} {of}{more}")
    known, other = len(signed), sum(way < 0 and p < ALPHA for way, p in signed)
    perhaps = f", {other} the other way, which may be chance" if other else ""
    lacking = f", {contexts - known} not measured" if known < contexts else ""
    noise = f", {known - fit - other} within the noise"
    return Judged(observation, "cannot be told", f"{fit} {of} clearly its way{perhaps}{noise}{lacking}{more}")


def _values(observation: Observation, results: GridResults) -> tuple[str, str, str] | None:
    """Return the axis and the two values that are compared; None where the grid has them not."""
    if observation.rule in ("rises", "falls"):
        own = results.axes.get(observation.of[0], ())
        return (observation.of[0], own[-1], own[0]) if len(own) > 1 else None
    for axis, own in results.axes.items():
        matches = [[value for value in own if same_kind(value, wanted)] for wanted in observation.of]
        if all(matches):
            return axis, matches[0][0], matches[1][0]
    return None


def _contexts(observation: Observation, results: GridResults, axis: str) -> int:
    """Return how many combinations of the other axes' values the sentence is about."""
    meant = [cell.values for cell in results.cells if _is_meant(observation, cell.values)]
    return len({tuple(value for name, value in values.items() if name != axis) for values in meant})


def _is_meant(observation: Observation, values: Mapping[str, str]) -> bool:
    return all(name in values and same_kind(values[name], value) for name, value in observation.at.items())


def _about(
    observation: Observation, axis: str, values: set[str], pairs: Sequence[Pair]
) -> list[tuple[Pair, Difference]]:
    """Return the comparisons that a sentence is about, those that are known."""
    return [
        (pair, pair.difference)
        for pair in pairs
        if pair.column.name == observation.column
        and pair.axis == axis
        and {pair.first.values[axis], pair.second.values[axis]} == values
        and _is_meant(observation, pair.first.values)
        and isinstance(pair.difference, Difference)
    ]
