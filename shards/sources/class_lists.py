"""What the labels of a foreign set mean: ids of classes, from a list, the texts themselves, or nobody, who is asked.

In: labels as stored and how often each occurs; a class list (.txt with an id a line, .csv or .tsv with a column
``class_id`` or ``id``, .json: a list of ids or of objects, or torchvision's class_to_idx). Out: `Classes`. Numbers are
never given a meaning that nobody stated.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synclones.base.class_texts import without_blank_end
from synclones.base.errors import InputError, one_line
from synclones.base.json_file import parse_json, read_regular

CLASS_LIST = "classes.txt"  # beside the data
MAX_LABEL = 2**24  # as many classes as a set may have
_MAX_ID_CHARS, _NAMED = 256, 3
_HOW = (
    "give a class list: .txt with one class id a line, .csv with a column class_id, or .json "
    f"(a list, or class_to_idx), or put {CLASS_LIST} beside the data"
)


@dataclass(frozen=True)
class Classes:
    """The classes of a set, or why it has none."""

    ids: tuple[str, ...]
    """The class of each number; empty when the labels have no meaning yet."""
    number: Mapping[str, int]
    """Label as stored -> class number."""
    fault: str = ""
    """What to say to somebody who asks for the classes of a set without."""
    note: str = ""
    """What was taken without being asked for."""


@dataclass(frozen=True)
class Labels:
    """What is stored."""

    counts: Mapping[str, int]
    """Label as stored -> how many images have it."""
    are_numbers: bool
    missing: int
    """Images without one."""
    first_missing: str
    names: tuple[str, ...] = ()
    """What the files themselves say that the numbers mean."""


def classes_of(path: object, labels: Labels, given: Path | None, beside: Path) -> Classes:
    """Find what labels mean; ``given``: a class list, ``beside``: where one may lie.

    Raises:
        InputError: the list that was given is none, or does not fit the labels.
    """
    # Sets without labels, or not wholly labelled, may be used for their images and captions.
    if not labels.counts:
        if given is not None:
            raise InputError(f"{path}: the images have no labels, and {given} was given; leave it out, or name the key")
        return Classes((), {}, f"{path}: the images have no labels; give the set's label key, or labelled images")
    numbers = {text: int(text) for text in labels.counts} if labels.are_numbers else {}
    if labels.missing:
        fault = (
            f"{path}: {labels.missing:,} images have no label (the first: {one_line(labels.first_missing)}), "
            f"{sum(labels.counts.values()):,} have one; label all of them or leave them out"
        )
        return Classes((), numbers, fault)
    # Texts speak for themselves; numbers mean what the nearest list says.
    if given is not None:
        return _fitting(path, labels, read_class_list(given), str(given))
    if not labels.are_numbers:
        ids = tuple(sorted(labels.counts))
        note = f"{path}: classes are its {len(ids):,} labels, sorted; the first is {one_line(ids[0])}"
        return Classes(ids, {text: number for number, text in enumerate(ids)}, note=note)
    if beside.is_file():
        classes = _fitting(path, labels, read_class_list(beside), str(beside))
        return Classes(classes.ids, classes.number, note=f"{path}: classes are the {len(classes.ids)} of {beside}")
    if labels.names:
        return _fitting(path, labels, labels.names, "its own list of names")
    low, high = min(numbers.values()), max(numbers.values())
    return Classes((), numbers, f"{path}: the labels are numbers, {low} to {high}, without a meaning; {_HOW}")


def _fitting(path: object, labels: Labels, ids: Sequence[str], origin: str) -> Classes:
    """Return the classes of a list, which must hold every label.

    Raises:
        InputError: it does not.
    """
    if not labels.are_numbers:
        number = {text: at for at, text in enumerate(ids)}
        strange = sorted(set(labels.counts) - set(ids))
        if strange:
            shown = ", ".join(repr(text) for text in strange[:_NAMED])
            raise InputError(
                f"{path}: {len(strange)} labels are no class of {origin}: {shown}; give the set's own list"
            )
        return Classes(tuple(ids), number)
    numbers = {text: int(text) for text in labels.counts}
    high = max(numbers.values())
    if high >= len(ids):
        from_one = " (they seem to count from 1: shift them)" if high == len(ids) and min(numbers.values()) else ""
        raise InputError(
            f"{path}: label {high} is beyond the {len(ids)} classes of {origin}, which are 0 to {len(ids) - 1}"
            f"{from_one}; give the list that the labels were made with"
        )
    return Classes(tuple(ids), numbers)


def read_class_list(path: Path) -> tuple[str, ...]:
    """Read the ids of a class list, in the order of labels.

    Raises:
        InputError: no such file, another form, or an id that is empty, doubled or not printable.
    """
    try:
        text = read_regular(path).decode("utf-8-sig")
        ids = _FORMS[path.suffix.lower()](text)
    except KeyError:
        raise InputError(f"{path}: a class list ends in {', '.join(_FORMS)}; rename or convert it") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such class list; correct the path") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path}: no class list ({error}); {_HOW}") from None
    if not ids:
        raise InputError(f"{path}: names no class; {_HOW}")
    twice = next((text for text, count in Counter(ids).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{path}: class {twice!r} appears twice; keep it once")
    bad = next((text for text in ids if not text or not text.isprintable() or len(text) > _MAX_ID_CHARS), None)
    if bad is not None:
        raise InputError(f"{path}: {bad[:60]!r} is no class id; expected 1 to {_MAX_ID_CHARS} printable characters")
    return tuple(ids)


def _from_lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _from_table(text: str, delimiter: str = ",") -> list[str]:
    reader = csv.DictReader(io.StringIO(without_blank_end(text), newline=""), strict=True, delimiter=delimiter)
    column = next((name for name in ("class_id", "id") if name in (reader.fieldnames or [])), None)
    if column is None:
        raise ValueError(f"the header is {reader.fieldnames}, without class_id")
    rows = list(reader)
    for at, row in enumerate(rows):
        if None in row or None in row.values():
            raise ValueError(f"row {at + 1} has another number of columns than the header")
        number = next((row[name] for name in ("label", "class_idx", "class_index") if name in row), str(at))
        if number.strip() != str(at):
            raise ValueError(f"row {at + 1} states the label {number!r}, but its position is {at}; order the rows")
    return [row[column].strip() for row in rows]


def _from_json(text: str) -> list[str]:
    value: Any = parse_json(text)
    if isinstance(value, dict):
        if any(type(number) is not int for number in value.values()):
            raise ValueError("an object must be a class_to_idx, ids to numbers")
        if sorted(value.values()) != list(range(len(value))):
            raise ValueError("its numbers are not 0, 1, 2, ..., each once")
        return sorted(value, key=value.__getitem__)
    if not isinstance(value, list):
        raise ValueError("expected a list or an object")
    ids = [item.get("class_id", item.get("id")) if isinstance(item, dict) else item for item in value]
    texts = [text for text in ids if isinstance(text, str)]
    if len(texts) < len(ids):
        raise ValueError("expected ids as texts, or objects with class_id")
    return texts


_FORMS = {
    ".txt": _from_lines,
    ".csv": _from_table,
    ".tsv": lambda text: _from_table(text, "\t"),
    ".json": _from_json,
}
