"""All numbers as tables of a page, one or more for each axis, and what their columns mean.

In: `Cell`s. Out: HTML.
"""

from collections.abc import Collection
from html import escape

from synclones.base.page import table
from synclones.evaluate.axis import metrics
from synclones.evaluate.reports.cell_text import TRAINED, arrow, detail, percent, protocol_note, trained_note
from synclones.evaluate.reports.chance import AT_CHANCE
from synclones.evaluate.reports.grids import Grid, grids, headed
from synclones.evaluate.reports.names import Names
from synclones.evaluate.stored.results import Cell


def section(cells: list[Cell], names: Names, at_chance: Collection[str] = ()) -> str:
    """Return the tables of all axes, with what their marks mean; ``at_chance`` are names of models."""
    groups: list[list[str]] = [[]]
    for heading, grid in headed(grids(cells, names)):
        if heading:
            groups.append([f"<h3>{escape(heading)}</h3>"])
        groups[-1].append(_table(grid, at_chance))
    note = f'<p class="warning">{escape(trained_note(cells).strip())}</p>' if trained_note(cells) else ""
    protocols = f'<p class="note">{escape(protocol_note(cells).strip())}</p>' if protocol_note(cells) else ""
    tables = "".join(f"<div>{''.join(group)}</div>" for group in groups if group)
    return f'<h2>Results, in percent</h2><div class="side">{tables}</div>{note}{protocols}'


def _table(grid: Grid, at_chance: Collection[str]) -> str:
    mark, lines = f'<small class="warning">{TRAINED}</small>', []
    guess = f'<small class="warning">{AT_CHANCE}</small>'
    ways = {head: arrow(cell.metric) for row in grid.rows for head, cell in row.cells.items()}
    for row in grid.rows:
        numbers = (with_interval(percent(row.cells[head])) if head in row.cells else "" for head in grid.heads)
        protocol = [row.protocol] if grid.protocols else []
        marks = (mark if row.trained else "") + (guess if row.name in at_chance else "")
        lines.append([escape(row.name) + marks, *protocol, *numbers])
    is_of_models = grid.corner == "model"  # else columns are models, and all rows are of one metric
    corner = grid.corner if is_of_models else grid.corner + next(iter(ways.values()))
    named = (head + ways[head] for head in grid.heads) if is_of_models else grid.heads
    return table(lines, (corner, *(["protocol"] if grid.protocols else []), *named), numbers=True, first="th")


def with_interval(text: str) -> str:
    """Return what `percent` says with the interval small, below the value."""
    value, bracket, interval = text.partition(" [")
    return f"{escape(value)}<small>{bracket.strip()}{escape(interval)}</small>" if bracket else escape(text)


def legend(cells: list[Cell]) -> str:
    """Return what every metric says that is there."""
    entries = []
    for metric in metrics().values():
        own = [cell for cell in cells if cell.metric == metric.name]
        if own:
            name = escape(metric.title + detail(metric, own[0]))
            entries.append(f"<div><dt>{name}{arrow(metric.name)}</dt><dd>{escape(metric.explanation)}</dd></div>")
    return f'<h2>What the numbers mean</h2><dl class="columns">{"".join(entries)}</dl>'
