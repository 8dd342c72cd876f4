"""Read the JSON objects that other tools write for a class list, where they have one reading; where not, ask.

In: an object. Out: a list of ``class_id`` and ``name`` in the order of labels. Known are ``{"n01440764": "tench"}``,
``{"0": "tench"}``, ``{"0": ["n01440764", "tench"]}`` (ImageNet's index, which Keras and others load), and, when
it is named, torchvision's ``class_to_idx``, ``{"tench": 0}``.
"""

from pathlib import Path
from typing import Any

from synclones.base.errors import InputError

CLASS_TO_IDX = "class-to-idx"


def from_mapping(path: Path, given: dict[str, Any]) -> list[Any]:
    """Return the classes of an object of ids or numbers.

    Raises:
        InputError: it can be read in two ways.
    """
    values = list(given.values())
    if values and all(_is_number(value) for value in values):
        raise InputError(
            f"{path}: maps {next(iter(given))!r} to {values[0]!r}: is that its name or its label? "
            f"For torchvision's class_to_idx write --classes {CLASS_TO_IDX}:{path}; for names a list of objects with "
            "`id` and `name`"
        )
    if all(_is_number(key) for key in given):
        given = _by_number(path, given)
    if values and all(isinstance(value, list) for value in values):
        return _from_index(path, given)
    return [{"class_id": key} | (value if isinstance(value, dict) else {"name": value}) for key, value in given.items()]


def from_class_to_idx(path: Path, given: Any) -> list[Any]:
    """Return the classes of torchvision's ``class_to_idx``: keys are ids, and names with blanks for underscores.

    Raises:
        InputError: it maps no texts to 0..N-1, each once.
    """
    numbers = sorted(given.values()) if isinstance(given, dict) and all(map(_is_integer, given.values())) else None
    if numbers is None or numbers != list(range(len(numbers))):
        raise InputError(f"{path}: is no class_to_idx, which maps class names to 0, 1, 2, ..., each once; check it")
    return [{"class_id": key, "name": key.replace("_", " ")} for key in sorted(given, key=given.__getitem__)]


def _from_index(path: Path, given: dict[str, Any]) -> list[Any]:
    if list(given) != [str(number) for number in range(len(given))]:
        raise InputError(
            f"{path}: the keys of [id, name] pairs are the labels, expected 0 to {len(given) - 1}, each once"
        )
    for key, value in given.items():
        if len(value) != 2 or not all(isinstance(text, str) for text in value):
            raise InputError(f"{path}: {key} is {str(value)[:60]}, expected [id, name]; mend the entry")
    return [{"class_id": class_id, "name": name.replace("_", " ")} for class_id, name in given.values()]


def _by_number(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return labels 0..N-1 in their order, which JSON writers do not keep; other numbers are ids, and must ascend."""
    ordered = dict(sorted(given.items(), key=lambda item: int(item[0])))
    if list(ordered) != [str(number) for number in range(len(given))] and list(ordered) != list(given):
        raise InputError(
            f"{path}: its ids are numbers in no order, and a class's label is its position; "
            "order them, or number the classes from 0"
        )
    return ordered


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10)
