"""Tables of results, in percent with intervals: every column's heading and order are its axis' own.

In: `Cell`s. Out: ``results.jsonl``, ``table.md`` and ``table.csv``, and rows and columns for the report.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from synclones.base.escape import csv_text, markdown_text
from synclones.base.files import write_atomic
from synclones.base.json_file import canonical_json
from synclones.evaluate.axis import metrics
from synclones.evaluate.results import Cell

TRAINED = "trained on this set"
COLUMNS = ("model", "dataset", "metric", "settings", "value", "ci_low", "ci_high", "n", "interval", "weights_sha256")


def heading(cell: Cell) -> str:
    """Return the heading of a cell's column; the bare name of a metric that another version measured."""
    try:
        return metrics()[cell.metric].heading.format_map(cell.settings)
    except (KeyError, ValueError, TypeError):
        return cell.metric


def percent(cell: Cell) -> str:
    """Return ``91.2 [88.5, 93.3]``, value and interval in percent, or ``undefined``.

    Where even a faultless model would show some of what is measured, that follows: ``, calibrated 2.5``.
    """
    if cell.value is None or cell.ci_low is None or cell.ci_high is None:
        return "undefined"
    beside = "" if cell.faultless is None else f", {_faultless(cell)} {100 * cell.faultless:.1f}"
    return f"{100 * cell.value:.1f} [{100 * cell.ci_low:.1f}, {100 * cell.ci_high:.1f}]{beside}"


def _faultless(cell: Cell) -> str:
    metric = metrics().get(cell.metric)
    return metric.faultless if metric and metric.faultless else "faultless"


def beside(cells: list[Cell]) -> str:
    """Return the sentences that say what the numbers beside the values are; nothing where there are none."""
    words = dict.fromkeys((_faultless(cell), cell.metric) for cell in cells if cell.faultless is not None)
    titles = {name: metric.title for name, metric in metrics().items()}
    return "".join(
        f" {word.capitalize()}: what a {word} model of the same confidences would show as {titles.get(name, name)} "
        "on as many images, on average."
        for word, name in words
    )


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


@dataclass(frozen=True)
class Names:
    """What models and data sets are called among all results of a folder: no two of them the same."""

    models: dict[str, str]
    """By `Cell.model_identity`."""
    datasets: dict[str, str]
    """By content hash."""


def names_of(cells: list[Cell]) -> Names:
    """Return names that tell models and data sets apart: their folders', with the start of a hash where that fails."""
    return Names(
        models=_unlike((c.model, c.model_identity, c.weights_sha256) for c in cells),
        datasets=_unlike((c.dataset, c.dataset_sha256, c.dataset_sha256) for c in cells),
    )


def _unlike(named: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Return identity -> name, of (name, identity, hash); one of several names of an identity is the first."""
    first: dict[str, tuple[str, str]] = {}
    for name, identity, digest in named:
        first.setdefault(identity, (name, digest))
    forms = {i: (n, f"{n} ({d[:8]})", f"{n} ({d[:8]}, {i[:8]})") for i, (n, d) in first.items()}
    counts = [Counter(level) for level in zip(*forms.values(), strict=True)]
    return {
        identity: next((form for form, count in zip(own, counts, strict=True) if count[form] == 1), own[-1])
        for identity, own in forms.items()
    }


def rows(cells: list[Cell], names: Names) -> dict[str, dict[str, Cell]]:
    """Return name of the model -> heading -> cell, of one data set, in the order of the cells."""
    table: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        table.setdefault(names.models[cell.model_identity], {})[heading(cell)] = cell
    return table


def trained(cells: list[Cell], names: Names) -> set[str]:
    """Return the names of the models that were trained on the set which these cells are of."""
    return {names.models[cell.model_identity] for cell in cells if cell.trained_on_test}


def trained_note(cells: list[Cell]) -> str:
    """Return the sentence that says what the mark of such models means; nothing where there are none."""
    if not any(cell.trained_on_test for cell in cells):
        return ""
    return (
        f" {TRAINED.capitalize()}: the model has seen these very images, or ones made from them; its numbers show what "
        "it remembers, not what it would do with new images."
    )


def sections(cells: list[Cell], names: Names) -> dict[str, list[Cell]]:
    """Return name of the data set -> its cells, in the order of the cells."""
    parts: dict[str, list[Cell]] = {}
    for cell in cells:
        parts.setdefault(names.datasets[cell.dataset_sha256], []).append(cell)
    return parts


def markdown(cells: list[Cell], names: Names | None = None) -> str:
    """Return the cells of one dataset as a table, percent with 95 % intervals."""
    heads, names = columns(cells), names or names_of(cells)
    seen = trained(cells, names)
    lines = [f"| model | {' | '.join(map(markdown_text, heads))} |", f"|---|{'---|' * len(heads)}"]
    for model, row in rows(cells, names).items():
        numbers = " | ".join(percent(row[head]) if head in row else "" for head in heads)
        mark = f" **({TRAINED})**" if model in seen else ""
        lines.append(f"| {markdown_text(model)}{mark} | {numbers} |")
    return "\n".join(lines)


def write_tables(folder: Path, cells: list[Cell]) -> None:
    """Write ``results.jsonl``, ``table.md`` and ``table.csv`` of all cells in the folder."""
    names = names_of(cells)
    write_atomic(folder / "results.jsonl", b"".join(canonical_json(cell.facts()) + b"\n" for cell in cells))
    parts = [f"## {markdown_text(name)}\n\n{markdown(own, names)}\n" for name, own in sections(cells, names).items()]
    note = f"Percent, with 95 % intervals over the test images.{beside(cells)}{trained_note(cells)}\n"
    write_atomic(folder / "table.md", "\n".join([*parts, note]).encode())
    write_atomic(folder / "table.csv", _csv(cells, names).encode())


def _csv(cells: list[Cell], names: Names) -> str:
    """Return one line per cell; columns for what few cells have are there when some cell has it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    more = {"faultless": None, "trained_on_test": False}
    head = (*COLUMNS, *(name for name, silent in more.items() if any(getattr(c, name) != silent for c in cells)))
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
