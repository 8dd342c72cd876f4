"""The numbers of figures as one CSV file, ready for pgfplots: what is drawn is what stands there.

In: `Point`s. Out: text. Values are fractions, as in all files of results.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields

from synclones.base.escape import csv_text
from synclones.evaluate.stored.results import Cell


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point, bar or corner of a figure."""

    figure: str
    """radar, error_vs_ece, severity, shape_bias or shape_bias_by_class."""
    panel: str
    """Which of several diagrams of one kind."""
    model: str
    label: str = ""
    """What stands at the axis instead of a number."""
    x: float | None = None
    x_low: float | None = None
    x_high: float | None = None
    y: float
    y_low: float | None = None
    y_high: float | None = None


def csv_of(points: Iterable[Point]) -> str:
    """Return a line for each point; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Point)])
    for point in points:
        writer.writerow([csv_text(value) if isinstance(value, str) else value for value in astuple(point)])
    return text.getvalue()


def of_cell(cell: Cell) -> tuple[float, float | None, float | None]:
    """Return value and bounds of a cell that is defined."""
    assert cell.value is not None, cell.metric
    return cell.value, cell.ci_low, cell.ci_high
