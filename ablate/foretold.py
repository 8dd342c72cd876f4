"""What the scaling law expects of cells that are not computed, from those that are, or from the papers'.

In: the results of a grid with an axis of sizes. Out: a line for each size of each kind of data: an accuracy with its
interval, or why none is expected.
"""

from synclones.ablate.arms import Arm, arms_of, kind_of, size_axis, size_of
from synclones.ablate.cells import GridResults
from synclones.ablate.paper import paper_points
from synclones.ablate.scaling import FEWEST_SIZES, Point, Refusal, expected_accuracy
from synclones.ablate.study import measured_points


def expected_rows(results: GridResults) -> list[tuple[str, ...]]:
    """Return (kind of data, size, what is expected, from what) for each size that has no results.

    Points are the grid's own where it has enough sizes; at the papers' size else the published ones, without the size
    that is asked for.
    """
    axis = size_axis(results)
    if axis is None or "accuracy" not in results.columns:
        return []
    kinds: dict[str, list[Arm]] = {}
    for arm in arms_of(results):
        kinds.setdefault(kind_of(arm.values, axis), []).append(arm)
    rows = []
    for kind, arms in kinds.items():
        own = measured_points(results, arms, axis)
        points, source = own, "the measured sizes"
        if len(own) < FEWEST_SIZES and results.scale == 1 and (published := paper_points(results.published, kind)):
            points, source = published, f"the other sizes of {results.published}"
        for arm in arms:
            if not arm.numbers["accuracy"]:
                rows.append(_row(results, kind, arm.values[axis], points, source))
    return rows


def _row(results: GridResults, kind: str, size: str, points: tuple[Point, ...], source: str) -> tuple[str, ...]:
    at = size_of(results, size)
    expected = expected_accuracy([point for point in points if point.size != at], at)
    if isinstance(expected, Refusal):
        return kind, size, f"nothing is expected: {expected}", source
    return kind, size, f"accuracy {expected}", source
