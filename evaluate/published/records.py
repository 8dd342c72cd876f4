"""Published and corrected numbers for other programs: every cell with its derivation, as CSV or JSON.

In: `Table`s. Out: text. Values are fractions of 1, or counts of images.
"""

import csv
import io
from collections.abc import Iterable
from typing import Any

from synclones.base.json_file import pretty_json
from synclones.evaluate.published.corrected import Correction, correction
from synclones.evaluate.published.deviations import CODE, deviations
from synclones.evaluate.published.tables import PAPER, Cell, Table


def record(cell: Cell) -> dict[str, Any]:
    """Return what is known about a cell, flat but for the lists ``undone`` and ``remains``."""
    known = correction(cell)
    return {
        "table": cell.table,
        "row": cell.row,
        "column": cell.column.key,
        "model": cell.model,
        "metric": cell.column.metric,
        "unit": cell.unit,
        "better": cell.column.better,
        "printed": cell.printed,
        "published": cell.value,
        "corrected": known.value,
        "difference": difference(cell, known),
        "status": known.code,
        "reason": known.reason,
        "undone": list(known.undone),
        "remains": list(known.remains),
        "identity": known.identity,
        "source": cell.source,
        "derivation": known.derivation.text if known.derivation else "",
    }


def difference(cell: Cell, correction: Correction) -> float | None:
    """Return corrected - published, None where nothing is corrected."""
    return None if correction.value is None else correction.value - cell.value


def csv_of(tables: Iterable[Table]) -> str:
    """Return one line per cell; lists are separated by spaces, what is not known is empty."""
    text = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for cell in (cell for table in tables for cell in table.cells):
        values = record(cell)
        if writer is None:
            writer = csv.DictWriter(text, list(values), lineterminator="\n")
            writer.writeheader()
        joined = {name: " ".join(value) if isinstance(value, list) else value for name, value in values.items()}
        writer.writerow({name: _digits(value) for name, value in joined.items()})
    return text.getvalue()


def _digits(value: Any) -> Any:
    """Return a number as text without the last digits of floating point."""
    return f"{value:.10g}" if isinstance(value, float) else value


def json_of(tables: Iterable[Table]) -> str:
    """Return every cell with the inputs of its derivation, the sources, and the deviations by id."""
    parts = [
        {"number": table.number, "title": table.title, "cells": [_full(cell) for cell in table.cells]}
        for table in tables
    ]
    known = {
        item.id: {name: getattr(item, name) for name in ("title", "paper", "code", "effect", "mends", "switchable")}
        for item in deviations().values()
    }
    return pretty_json({"paper": PAPER, "code": CODE, "tables": parts, "deviations": known}).decode()


def _full(cell: Cell) -> dict[str, Any]:
    derivation = correction(cell).derivation
    if derivation is None:
        return record(cell) | {"derivation": None}
    inputs = [{"name": item.name, "value": item.value, "source": item.source} for item in derivation.inputs]
    return record(cell) | {
        "derivation": {
            "formula": derivation.formula,
            "inputs": inputs,
            "text": derivation.text,
            "recomputable": derivation.recomputable,
        }
    }
