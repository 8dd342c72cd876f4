"""Tells running means from accuracies of single sets by the numbers alone, and undoes them.

In: what a log stores for each set, in the order in which the sets were evaluated. Out: a `Verdict` with the accuracies
that the running means are of.

A mean of everything so far moves by little, and ever less: from the n-th set on by at most 1 / n of the range. So
``n * a_n - (n - 1) * a_(n-1)`` of true running means lies within the range of an accuracy for every n; of accuracies
that are none it leaves the range where a mild corruption follows a strong one. Where it stays inside, the two readings
are compared by what accuracies do: they fall from severity to severity, and regain about what they lost from the last
severity of one corruption to the first of the next. Of the 50 published logs of running means the verdict is certain;
of the same 50 with the mean undone it is that they are none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

CERTAIN_BY = 3
"""How many fewer steps in the wrong direction among recovered accuracies make the verdict certain."""
REGAINED = 0.5
"""The share of a corruption's loss that accuracies regain at the next one's mild start, at least, and running means
at most, for the verdict to be certain by that (published logs: 0.69 to 1.14, and 0.07 to 0.49 but for one)."""

ENOUGH_CORRUPTIONS = 4
"""Corruptions from which on that share makes the verdict certain; of fewer, some may just be mild."""


@dataclass(frozen=True)
class Verdict:
    """What a log of corruptions is.

    Attributes:
        certainty: ``certain`` or ``likely`` of running means; ``no`` where they are none; ``open`` where the log is too
            short, or fits both readings alike.
        recovered: the accuracies that the stored numbers would be running means of, in the unit of the log.
        faults: steps in the wrong direction, of the stored and of the recovered numbers.
        error: the largest rounding error of a recovered accuracy.
    """

    certainty: str
    recovered: tuple[float, ...]
    faults: tuple[int, int]
    error: float


def running_means(values: Sequence[float]) -> list[float]:
    """Return the mean of everything so far, for every n."""
    total, means = 0.0, []
    for n, value in enumerate(values, 1):
        total += value
        means.append(total / n)
    return means


def undone(means: Sequence[float]) -> list[float]:
    """Return the values that ``means`` are running means of, sets being equally large: n * a_n - (n - 1) * a_(n-1)."""
    return [n * now - (n - 1) * before for n, (before, now) in enumerate(pairwise((0.0, *means)), 1)]


def faults(groups: Sequence[Sequence[float]], slack: float = 0.0) -> int:
    """Return how many steps go the wrong way: up with severity, or not up to the next corruption's first severity."""
    up = sum(after > before + slack for group in groups for before, after in pairwise(group))
    flat = sum(second[0] <= first[-1] for first, second in pairwise(groups))
    return up + flat


def judge(groups: Sequence[Sequence[float]], top: float, digits: int) -> Verdict:
    """Judge the stored numbers of corruptions, each a list over ascending severities, in the order of evaluation.

    Args:
        top: an accuracy of everything right in the unit of the log: 1 or 100.
        digits: decimals that are stored.
    """
    # The bound first: it holds for any model.
    stored = [value for group in groups for value in group]
    recovered, half = undone(stored), 0.5 * 10.0**-digits
    slack = [(2 * n - 1) * half for n in range(1, len(stored) + 1)]
    inside = all(-error <= value <= top + error for value, error in zip(recovered, slack, strict=True))
    # Then the shape, which tells apart what both readings allow.
    parts, rest = [], list(recovered)
    for group in groups:
        parts.append(rest[: len(group)])
        rest = rest[len(group) :]
    raw, undone_faults = faults(groups), faults(parts, 2 * slack[-1] if slack else 0.0)
    return Verdict(
        certainty=_certainty(groups, parts, inside, raw - undone_faults),
        recovered=tuple(recovered),
        faults=(raw, undone_faults),
        error=max(slack, default=0.0),
    )


def _certainty(groups: Sequence[Sequence[float]], parts: Sequence[Sequence[float]], inside: bool, fewer: int) -> str:
    if len(groups) < 2 or min(map(len, groups)) < 2:
        return "open"
    if not inside:
        return "no"
    shaped = fewer >= 0 and regained(groups) < REGAINED < regained(parts)
    if fewer >= CERTAIN_BY or (shaped and len(groups) >= ENOUGH_CORRUPTIONS):
        return "certain"
    return "likely" if shaped or fewer > 0 else "open"


def regained(groups: Sequence[Sequence[float]]) -> float:
    """Return which share of what is lost with severity is regained at the first severity of the next corruption.

    NaN where nothing is lost.
    """
    lost = sum(group[0] - group[-1] for group in groups[:-1])
    back = sum(second[0] - first[-1] for first, second in pairwise(groups))
    return back / lost if lost > 0 else math.nan
