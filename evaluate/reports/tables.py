"""Tables of results, in percent with intervals: every column's heading and order are its axis' own.

In: `Cell`s. Out: ``results.jsonl``, ``table.md`` and ``table.csv``, and rows and columns for the report.
"""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from synclones.base.files import write_atomic
from synclones.base.json_file import canonical_json
from synclones.evaluate.axis import metrics
from synclones.evaluate.results import Cell

COLUMNS = ("model", "dataset", "metric", "settings", "value", "ci_low", "ci_high", "n", "interval", "weights_sha256")


def heading(cell: Cell) -> str:
    """Return the heading of a cell's column; the bare name of a metric that another version measured."""
    try:
        return metrics()[cell.metric].heading.format_map(cell.settings)
    except (KeyError, ValueError):
        return cell.metric


def percent(cell: Cell) -> str:
    """Return ``91.2 [88.5, 93.3]``, value and interval in percent, or ``undefined``."""
    if cell.value is None or cell.ci_low is None or cell.ci_high is None:
        return "undefined"
    return f"{100 * cell.value:.1f} [{100 * cell.ci_low:.1f}, {100 * cell.ci_high:.1f}]"


def columns(cells: list[Cell]) -> list[str]:
    """Return the headings in the order of reading: by axis and metric, then by settings."""
    return list(dict.fromkeys(heading(cell) for cell in sorted(cells, key=_reading_order)))


def _reading_order(cell: Cell) -> tuple[Any, ...]:
    names = list(metrics())
    rank = names.index(cell.metric) if cell.metric in names else len(names)
    # Strengths are in order as numbers; how often was resampled makes no column of its own.
    own = sorted((name, value) for name, value in cell.settings.items() if name != "resamples")
    settings = [(name, value, "") if isinstance(value, int | float) else (name, 0, str(value)) for name, value in own]
    return rank, settings


def rows(cells: list[Cell]) -> dict[tuple[str, str], dict[str, Cell]]:
    """Return (model, weights) -> heading -> cell, in the order of the cells."""
    table: dict[tuple[str, str], dict[str, Cell]] = {}
    for cell in cells:
        table.setdefault((cell.model, cell.weights_sha256), {})[heading(cell)] = cell
    return table


def markdown(cells: list[Cell]) -> str:
    """Return the cells of one dataset as a table, percent with 95 % intervals."""
    heads = columns(cells)
    lines = [f"| model | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for (model, _), row in rows(cells).items():
        lines.append(f"| {model} | {' | '.join(percent(row[head]) if head in row else '' for head in heads)} |")
    return "\n".join(lines)


def write_tables(folder: Path, cells: list[Cell]) -> None:
    """Write ``results.jsonl``, ``table.md`` and ``table.csv`` of all cells in the folder."""
    write_atomic(folder / "results.jsonl", b"".join(canonical_json(asdict(cell)) + b"\n" for cell in cells))
    datasets = list(dict.fromkeys(cell.dataset for cell in cells))
    parts = [f"## {name}\n\n{markdown([c for c in cells if c.dataset == name])}\n" for name in datasets]
    note = "Percent, with 95 % intervals over the test images.\n"
    write_atomic(folder / "table.md", "\n".join([*parts, note]).encode())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell in cells:
        values = asdict(cell) | {"settings": json.dumps(cell.settings, sort_keys=True)}
        writer.writerow([values[name] for name in COLUMNS])
    write_atomic(folder / "table.csv", text.getvalue().encode())
