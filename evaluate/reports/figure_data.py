"""The numbers of all figures as one file, ``figures.csv``.

In: `Cell`s. Out: text: a line for each point, bar or corner, told apart by the columns figure and panel.
"""

from synclones.evaluate.reports import curves, radar, scatter, shape
from synclones.evaluate.reports.names import Names
from synclones.evaluate.reports.points import csv_of
from synclones.evaluate.reports.shown import shown
from synclones.evaluate.stored.results import Cell


def figures_csv(cells: list[Cell], names: Names) -> str:
    """Return the points of all models, those too that are too many to be drawn."""
    models = shown(cells, names)
    return csv_of(point for figure in (radar, scatter, curves, shape) for point in figure.points(models))
