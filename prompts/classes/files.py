"""Read the files that name classes, places and templates: class lists as CSV, TSV, JSON or txt, others as txt.

In: a file with ``id`` (or ``class_id``), ``name`` and any further columns; JSON is a list of such objects or a mapping
from id to name, txt has a name a line. Out: (row, its line) pairs, the id under ``class_id``; the contents of a row
are checked elsewhere. A list of texts is read as line number -> text, without empty lines and those
that start with `#`.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from synclones.base.class_texts import without_blank_end
from synclones.base.errors import InputError
from synclones.base.json_file import parse_json
from synclones.prompts.characters import has_unprintable
from synclones.prompts.classes.mappings import CLASS_TO_IDX, from_class_to_idx, from_mapping

Row = dict[str, str]
SUFFIXES = (".csv", ".tsv", ".json", ".txt")
MAX_LINE_CHARS = 500


def read_rows(path: Path, form: str = "") -> Iterator[tuple[Row, str]]:
    """Return each class with its line, for messages; ``form`` may be `CLASS_TO_IDX`.

    Raises:
        InputError: for an unknown suffix, encoding, header, quoting, or a value that is no text.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path}: a class list ends in {', '.join(SUFFIXES)}; rename or convert it")
    if path.suffix == ".txt" and not form:
        return iter([({"name": name}, f"{path}:{number}") for number, name in read_lines(path, "--classes").items()])
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None
    if form and path.suffix != ".json":
        raise InputError(f"{path}: {form} is a form of JSON; give a .json file, or leave out {form + ':'!r}")
    return _json_rows(path, text, form) if path.suffix == ".json" else _csv_rows(path, text)


def _csv_rows(path: Path, text: str) -> Iterator[tuple[Row, str]]:
    # Not `splitlines`: it also breaks at characters that a name must not hold, and so would hide them.
    delimiter = "\t" if path.suffix == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(without_blank_end(text), newline=""), strict=True, delimiter=delimiter)
    try:
        _check_header(path, reader.fieldnames or [])
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{where}: expected {len(reader.fieldnames or [])} columns; quote names with commas")
            yield _renamed(row), where
    except csv.Error as error:
        # DictReader counts lines only when a row was complete.
        line = reader.reader.line_num
        raise InputError(f"{path}:{line}: not a {path.suffix[1:].upper()} line ({error}); check its quotes") from None


def _check_header(path: Path, header: Sequence[str]) -> None:
    if "name" not in header:
        raise InputError(f"{path}:1: the header is {list(header)}, expected `class_id,name` or `name`")
    names = [_NAMES.get(column, column) for column in header]
    twice = [column for column in names if names.count(column) > 1]
    if twice:
        raise InputError(f"{path}:1: the column {twice[0]!r} appears twice in the header; keep one of them")


_NAMES = {"id": "class_id"}


def _renamed(row: Row) -> Row:
    return {_NAMES.get(key, key): value for key, value in row.items()}


def _json_rows(path: Path, text: str, form: str) -> Iterator[tuple[Row, str]]:
    try:
        given: Any = parse_json(text)
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); check it") from None
    if form == CLASS_TO_IDX:
        given = from_class_to_idx(path, given)
    elif isinstance(given, dict):
        given = from_mapping(path, given)
    if not isinstance(given, list):
        raise InputError(f"{path}: expected a list of objects with `id` and `name`, or a mapping from id to name")
    for number, entry in enumerate(given, 1):
        where = f"{path}: entry {number}"
        if not isinstance(entry, dict) or "name" not in entry:
            raise InputError(f"{where}: {str(entry)[:60]!r} is no class; write an object with `id` and `name`")
        kinds = {"name": str}  # a number may be an id, not a name
        bad = next((key for key, value in entry.items() if not isinstance(value, kinds.get(key, str | int))), None)
        if bad is not None:
            raise InputError(f"{where}: {bad} is {entry[bad]!r}, expected a text")
        yield _renamed({key: str(value) for key, value in entry.items()}), where


def read_lines(path: Path, flag: str) -> dict[int, str]:
    """Return line number -> text.

    Raises:
        InputError: for no file, no text, or a line that is too long, doubled, not UTF-8 or not printable.
    """
    if not path.is_file():
        raise InputError(f"{flag}: no file {str(path)!r}; give a text file with one entry a line")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    entries = {n: line.strip() for n, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")}
    first: dict[str, int] = {}
    for number, text in entries.items():
        if has_unprintable(text) or len(text) > MAX_LINE_CHARS:
            raise InputError(
                f"{path}:{number}: holds a control character or over {MAX_LINE_CHARS} characters; mend the line"
            )
        if first.setdefault(text, number) != number:
            raise InputError(f"{path}:{number}: {text!r} appears in line {first[text]} already; keep it once")
    if not entries:
        raise InputError(f"{path}: no entries; write one a line")
    return entries
