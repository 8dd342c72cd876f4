"""Reads what people write of classes: names in a CSV, and sentences with a slot for a name.

In: files. Out: ids with names, and templates, in order.
"""

import csv
import io
from pathlib import Path

from synclones.base.errors import InputError
from synclones.base.json_file import read_regular

SLOT = "{}"
MAX_TEXT_BYTES = 2**26


def class_names(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read a CSV with columns ``class_id`` and ``name`` (others are left alone): ids and names, in order.

    Raises:
        InputError: no such file, columns that are missing, a row without one of them, or none at all.
    """
    text = without_blank_end("\n".join(_lines(path, "a CSV of classes")))
    rows = list(csv.reader(io.StringIO(text)))
    header = rows[0] if rows else []
    if not {"class_id", "name"} <= set(header):
        raise InputError(f"{path}:1: the columns are {', '.join(header) or 'none'}, expected class_id and name")
    columns = header.index("class_id"), header.index("name")
    pairs: list[tuple[str, ...]] = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) <= max(columns) or not all(row[column].strip() for column in columns):
            raise InputError(f"{path}:{number}: has no class_id or no name; complete it")
        pairs.append(tuple(row[column].strip() for column in columns))
    if not pairs:
        raise InputError(f"{path}: names no class; write one a line")
    ids, names = zip(*pairs, strict=True)
    return ids, names


def without_blank_end(text: str) -> str:
    """Return a text without the lines at its end that are empty or hold commas alone, as spreadsheets leave them."""
    last = len(text.rstrip(" \t\r\n,"))
    end = text.find("\n", last)
    return text if end < 0 else text[: end + 1]


def template_lines(path: Path) -> tuple[str, ...]:
    """Read sentences with {} in the place of a name, one a line.

    Raises:
        InputError: no such file, or nothing in it.
    """
    lines = tuple(_lines(path, "a file of sentences"))
    if not lines:
        raise InputError(f"{path}: is empty; write one sentence a line, with {SLOT} in the place of the name")
    return lines


def _lines(path: Path, what: str) -> list[str]:
    try:
        text = read_regular(path, MAX_TEXT_BYTES).decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give {what}") from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give {what}") from None
    return [line for line in text.splitlines() if line.strip()]
