"""Results as narrow tables: one per axis, divided where it has more columns than a phone is wide.

In: `Cell`s. Out: `Grid`s, from which Markdown, HTML and LaTeX are made alike.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from synclones.evaluate.axis import axes
from synclones.evaluate.reports.cell_text import OTHER, PAPER, among, axis_of, heading, reading_order, tabled
from synclones.evaluate.reports.names import Names
from synclones.evaluate.stored.results import Cell

MOST_COLUMNS = 4
ROOM = 44
"""Characters of headings on a phone, beside names of models."""
_INTERVAL = 8  # half of "[88.5, 93.3]" and what stands around it: intervals are broken where they must
_MARK = ", paper"
TURNED = "accuracy_corruption"
"""The metric with a column for every corruption: its tables have corruptions as rows and models as columns."""


@dataclass(frozen=True)
class Row:
    """A line of a table: of one model under one protocol, or of one corruption."""

    name: str
    protocol: str
    """paper, or corrected; of a line about several models nothing."""
    trained: bool
    cells: dict[str, Cell]
    """By heading of the column."""


@dataclass(frozen=True)
class Grid:
    """A table of at most `MOST_COLUMNS` columns of numbers."""

    axis: str
    note: str
    """On which images."""
    corner: str
    """What the first column names."""
    heads: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def protocols(self) -> bool:
        """Whether lines differ in their protocol, so that it needs a column."""
        return any(row.protocol == PAPER for row in self.rows)


def grids(cells: list[Cell], names: Names) -> list[Grid]:
    """Return the tables of all axes in the order of reading."""
    by_axis: dict[str, list[Cell]] = {name: [] for name in (*(axis.name for axis in axes()), OTHER)}
    for cell in cells:
        if tabled(cell):
            by_axis[axis_of(cell)].append(cell)
    return [grid for axis, own in by_axis.items() for grid in _of_axis(axis, own, names)]


def headed(shown: list[Grid]) -> list[tuple[str, Grid]]:
    """Return the tables with their headings; one that goes on where the one before ended has none."""
    titles = [f"{grid.axis} {grid.note}".strip() for grid in shown]
    before = ["", *titles]
    return [("" if title == last else title, grid) for title, last, grid in zip(titles, before, shown, strict=False)]


def _of_axis(axis: str, cells: list[Cell], names: Names) -> Iterator[Grid]:
    wide = [cell for cell in cells if cell.metric != TURNED]
    labels = _labels(wide, names)
    # Scores of outliers do not share tables: which are there depends on the protocol, and gaps would be many.
    for score in dict.fromkeys(cell.settings.get("score") for cell in wide):
        alike = sorted((cell for cell in wide if cell.settings.get("score") == score), key=reading_order)
        for part in _narrow(list(dict.fromkeys(labels[id(cell)] for cell in alike)), _has_paper(alike)):
            own = [cell for cell in wide if labels[id(cell)] in part]
            yield Grid(axis, _on(own, names), "model", tuple(part), tuple(_rows(own, labels, names)))
    turned = [cell for cell in cells if cell.metric == TURNED]
    lines = list(dict.fromkeys(names.models[cell.model_identity] for cell in turned))
    models = [line for name in lines for line in (name, name + _MARK) if any(_line(c, names) == line for c in turned)]
    for start in range(0, len(models), MOST_COLUMNS):
        shown = models[start : start + MOST_COLUMNS]
        yield Grid(axis, _on(turned, names), "corruption", tuple(shown), tuple(_turned(turned, shown, names)))


def _narrow(heads: list[str], protocols: bool) -> Iterator[list[str]]:
    """Divide columns so that a table has few of them, and their longest words fit beside each other."""
    room, part = ROOM - (len("protocol ") if protocols else 0), list[str]()
    for head in heads:
        if part and (len(part) == MOST_COLUMNS or sum(map(_width, [*part, head])) > room):
            yield part
            part = []
        part.append(head)
    if part:
        yield part


def _width(head: str) -> int:
    return max(_INTERVAL, *map(len, re.split(r"[ -]", head))) + 1


def _has_paper(cells: list[Cell]) -> bool:
    return any(cell.protocol == PAPER for cell in cells)


def _labels(cells: list[Cell], names: Names) -> dict[int, str]:
    """Return the heading of each cell, by its identity in memory: with the data set where several have the same."""
    sets: dict[str, set[str]] = {}
    for cell in cells:
        sets.setdefault(heading(cell), set()).add(cell.dataset_sha256)
    return {
        id(cell): heading(cell)
        if len(sets[heading(cell)]) == 1
        else f"{heading(cell)} on {among(cell, names.datasets[cell.dataset_sha256])}"
        for cell in cells
    }


def _on(cells: list[Cell], names: Names) -> str:
    sets = list(dict.fromkeys(among(cell, names.datasets[cell.dataset_sha256]) for cell in cells))
    return f"on {sets[0]}" if len(sets) == 1 else ""


def _rows(cells: list[Cell], labels: dict[int, str], names: Names) -> list[Row]:
    lines: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in cells:
        key = names.models[cell.model_identity], PAPER if cell.protocol == PAPER else "corrected"
        lines.setdefault(key, {})[labels[id(cell)]] = cell
    # Lines of a model stand together, in the order of the models.
    order = list(dict.fromkeys(name for name, _ in lines))
    return [
        Row(name, protocol, any(cell.trained_on_test for cell in own.values()), own)
        for (name, protocol), own in sorted(lines.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    ]


def _line(cell: Cell, names: Names) -> str:
    return names.models[cell.model_identity] + (_MARK if cell.protocol == PAPER else "")


def _turned(cells: list[Cell], shown: list[str], names: Names) -> list[Row]:
    lines: dict[str, dict[str, Cell]] = {}
    for cell in sorted(cells, key=lambda cell: str(cell.settings.get("set", ""))):
        if _line(cell, names) in shown:
            lines.setdefault(heading(cell), {})[_line(cell, names)] = cell
    return [Row(name, "", False, own) for name, own in lines.items()]
