"""Tables of results, in percent with intervals: every column's heading and order are its axis' own.

In: `Cell`s. Out: ``results.jsonl``, ``table.md``, ``table.csv`` and ``table.tex``, and ``figures.csv``.
"""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path

from synclones.base.escape import csv_text, markdown_text
from synclones.base.files import write_atomic
from synclones.base.json_file import canonical_json
from synclones.evaluate.reports.cell_text import (
    TRAINED,
    among,
    beside,
    columns,
    heading,
    percent,
    protocol_note,
    tabled,
    trained_note,
)
from synclones.evaluate.reports.figure_data import figures_csv
from synclones.evaluate.reports.grids import Grid, grids, headed
from synclones.evaluate.reports.latex import latex
from synclones.evaluate.reports.names import Names, names_of
from synclones.evaluate.stored.results import Cell

WIDEST = 8
"""More columns than these are no table to read: then there is one for each axis."""
COLUMNS = ("model", "dataset", "metric", "settings", "value", "ci_low", "ci_high", "n", "interval", "weights_sha256")


def rows(cells: list[Cell], names: Names) -> dict[str, dict[str, Cell]]:
    """Return name of the model -> heading -> cell, of one data set, in the order of the cells."""
    table: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        table.setdefault(names.models[cell.model_identity], {})[heading(cell)] = cell
    return table


def sections(cells: list[Cell], names: Names) -> dict[str, list[Cell]]:
    """Return name of the data set -> its cells, in the order of the cells."""
    parts: dict[str, list[Cell]] = {}
    for cell in cells:
        parts.setdefault(among(cell, names.datasets[cell.dataset_sha256]), []).append(cell)
    return parts


def is_narrow(cells: list[Cell]) -> bool:
    """Return whether the cells of one data set fit into one table with a line for each model."""
    shown = [cell for cell in cells if tabled(cell)]
    numbers = {(cell.model_identity, heading(cell)) for cell in shown}
    return len(numbers) == len(shown) and len(columns(shown)) <= WIDEST


def markdown(cells: list[Cell], names: Names | None = None) -> str:
    """Return cells as a table, percent with 95 % intervals; as one for each axis where they are many."""
    names, cells = names or names_of(cells), [cell for cell in cells if tabled(cell)]
    if not is_narrow(cells):
        return "\n\n".join(_markdown_grid(heading, grid) for heading, grid in headed(grids(cells, names)))
    heads, seen = columns(cells), {names.models[cell.model_identity] for cell in cells if cell.trained_on_test}
    lines = [f"| model | {' | '.join(map(markdown_text, heads))} |", f"|---|{'---|' * len(heads)}"]
    for model, row in rows(cells, names).items():
        numbers = " | ".join(percent(row[head]) if head in row else "" for head in heads)
        lines.append(f"| {_marked(model, model in seen)} | {numbers} |")
    return "\n".join(lines)


def _marked(model: str, trained: bool) -> str:
    return markdown_text(model) + (f" **({TRAINED})**" if trained else "")


def _markdown_grid(heading: str, grid: Grid) -> str:
    heads = (grid.corner, *(["protocol"] if grid.protocols else []), *grid.heads)
    lines = [f"### {markdown_text(heading)}", ""] if heading else []
    lines += [f"| {' | '.join(map(markdown_text, heads))} |", "|---" * len(heads) + "|"]
    for row in grid.rows:
        numbers = [percent(row.cells[head]) if head in row.cells else "" for head in grid.heads]
        start = [_marked(row.name, row.trained), *([row.protocol] if grid.protocols else [])]
        lines.append(f"| {' | '.join([*start, *numbers])} |")
    return "\n".join(lines)


def write_tables(folder: Path, cells: list[Cell]) -> None:
    """Write ``results.jsonl``, the tables in three forms, and ``figures.csv`` of all cells in the folder."""
    names = names_of(cells)
    write_atomic(folder / "results.jsonl", b"".join(canonical_json(cell.facts()) + b"\n" for cell in cells))
    parts = sections(cells, names)
    if all(map(is_narrow, parts.values())):
        text = [f"## {markdown_text(name)}\n\n{markdown(own, names)}\n" for name, own in parts.items()]
    else:
        text = [f"{markdown(cells, names)}\n"]
    notes = f"{beside(cells)}{trained_note(cells)}{protocol_note(cells)}"
    text.append(f"Percent, with 95 % intervals over the test images.{notes}\n")
    write_atomic(folder / "table.md", "\n".join(text).encode())
    write_atomic(folder / "table.csv", _csv(cells, names).encode())
    write_atomic(folder / "table.tex", latex(cells, names).encode())
    write_atomic(folder / "figures.csv", figures_csv(cells, names).encode())


def _csv(cells: list[Cell], names: Names) -> str:
    """Return one line per cell; columns for what few cells have are there when some cell has it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    more = {"faultless": (None,), "trained_on_test": (False,), "protocol": ("corrected",)}
    head = (*COLUMNS, *(name for name, silent in more.items() if any(getattr(c, name) not in silent for c in cells)))
    writer.writerow(head)
    for cell in cells:
        values = asdict(cell) | {
            "settings": json.dumps(cell.settings, sort_keys=True),
            "model": csv_text(names.models[cell.model_identity]),
            "dataset": csv_text(names.datasets[cell.dataset_sha256]),
            "metric": csv_text(cell.metric),
        }
        writer.writerow([values[name] for name in head])
    return text.getvalue()
