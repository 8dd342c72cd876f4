"""All numbers as tables of a page, one or more for each axis, and what their columns mean.

In: `Cell`s. Out: HTML.
"""

from html import escape

from synclones.base.page import table
from synclones.evaluate.answers.predictions import ModelPredictions
from synclones.evaluate.axis import metrics
from synclones.evaluate.reports.cell_text import TRAINED, detail, percent, protocol_note, trained_note
from synclones.evaluate.reports.grids import Grid, grids, headed
from synclones.evaluate.reports.names import Names
from synclones.evaluate.stored.results import Cell


def section(cells: list[Cell], names: Names) -> str:
    """Return the tables of all axes, with what their marks mean."""
    parts = []
    for heading, grid in headed(grids(cells, names)):
        parts += [f"<h3>{escape(heading)}</h3>"] if heading else []
        parts.append(_table(grid))
    note = f'<p class="warning">{escape(trained_note(cells).strip())}</p>' if trained_note(cells) else ""
    protocols = f'<p class="note">{escape(protocol_note(cells).strip())}</p>' if protocol_note(cells) else ""
    return f"<h2>Results, in percent</h2>{''.join(parts)}{note}{protocols}"


def _table(grid: Grid) -> str:
    mark, lines = f'<small class="warning">{TRAINED}</small>', []
    for row in grid.rows:
        numbers = (with_interval(percent(row.cells[head])) if head in row.cells else "" for head in grid.heads)
        protocol = [row.protocol] if grid.protocols else []
        lines.append([escape(row.name) + (mark if row.trained else ""), *protocol, *numbers])
    heads = (grid.corner, *(["protocol"] if grid.protocols else []), *grid.heads)
    return table(lines, heads, numbers=True)


def with_interval(text: str) -> str:
    """Return what `percent` says with the interval small, below the value."""
    value, bracket, interval = text.partition(" [")
    return f"{escape(value)}<small>{bracket.strip()}{escape(interval)}</small>" if bracket else escape(text)


def whose(models: list[ModelPredictions], cells: list[Cell]) -> str:
    """Say whom the rest of the page is about, where the tables hold more than that."""
    own = {model.model.weights_sha256 for model in models}
    sets = {item.of.test_set.content_hash for model in models for item in model.sets}
    if all(cell.weights_sha256 in own and cell.dataset_sha256 in sets for cell in cells):
        return ""
    names = ", ".join(escape(predictions.model.name) for predictions in models)
    return (
        f'<p class="note">What follows is about the evaluation that was made last: {names}. To compare these with '
        "others of the folder, name all of them in one command: what was computed is kept.</p>"
    )


def legend(cells: list[Cell]) -> str:
    """Return what every metric says that is there."""
    entries = []
    for metric in metrics().values():
        own = [cell for cell in cells if cell.metric == metric.name]
        if own:
            name = escape(metric.title + detail(metric, own[0]))
            entries.append(f"<dt>{name}</dt><dd>{escape(metric.explanation)}</dd>")
    return f"<h2>What the numbers mean</h2><dl>{''.join(entries)}</dl>"
