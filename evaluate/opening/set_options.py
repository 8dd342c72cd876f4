"""Reads the options that a suite gives a layout, and small lists of names that lie beside images.

In: the options of one set as plain values. Out: values of the kind that is asked for, or an `InputError`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError
from synclones.base.json_file import read_json, read_regular

_MAX_LIST_BYTES = 2**27  # ten million names


def texts(options: Mapping[str, Any], key: str, where: object) -> tuple[str, ...] | None:
    """Return a list of texts, each once; None where the option is not given.

    Raises:
        InputError: it is something else.
    """
    given = options.get(key)
    if given is None:
        return None
    if not isinstance(given, list) or not given or not all(isinstance(item, str) for item in given):
        raise InputError(f"{where}: {key}: {given!r} was given, expected a list of texts; quote numbers")
    twice = next((item for item in given if given.count(item) > 1), None) if len(set(given)) < len(given) else None
    if twice is not None:
        raise InputError(f"{where}: {key}: {twice!r} is given twice; keep it once")
    return tuple(given)


def severities(options: Mapping[str, Any], where: object) -> tuple[int, ...]:
    """Return which of the severities 1 to 5 are asked for, ascending.

    Raises:
        InputError: one is none, or given twice.
    """
    given = options.get("severities", [1, 2, 3, 4, 5])
    sound = isinstance(given, list) and given and all(type(item) is int and 1 <= item <= 5 for item in given)
    if not sound or len(set(given)) < len(given):
        raise InputError(f"{where}: severities: {given!r} was given, expected some of 1 to 5, each once")
    return tuple(sorted(given))


def mapping(options: Mapping[str, Any], path: Path) -> dict[str, tuple[str, ...]] | None:
    """Return folder -> ids of classes: the option ``mapping``, or the JSON or CSV file that ``mapping_file`` names.

    A file is named from the folder of the set on. The JSON is an object; lines of the CSV are a folder and an id each.

    Raises:
        InputError: both are given, the file cannot be read, or it is something else.
    """
    given = options.get("mapping")
    if "mapping_file" in options:
        if given is not None:
            raise InputError(f"{path}: mapping and mapping_file are given; keep one")
        given = _from_file(path / str(options["mapping_file"]))
    if given is None:
        return None
    if not isinstance(given, dict) or not given:
        raise InputError(f"{path}: the mapping is {str(given)[:80]!r}, expected folder -> class id, or a list of them")
    read = {str(name): (ids,) if isinstance(ids, str) else ids for name, ids in given.items()}
    for name, ids in read.items():
        if not isinstance(ids, tuple | list) or not ids or not all(isinstance(item, str) and item for item in ids):
            raise InputError(f"{path}: the mapping says {name}: {ids!r}, expected a class id, or a list of them")
    return {name: tuple(ids) for name, ids in read.items()}


def _from_file(file: Path) -> Any:
    if file.suffix.lower() == ".json":
        try:
            return read_json(file)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{file}: no mapping of folders that can be read ({error}); correct mapping_file"
            ) from None
    read: dict[str, list[str]] = {}
    for number, line in enumerate(lines_of(file), 1):
        name, comma, class_id = (part.strip() for part in line.rpartition(","))
        if not comma or not name or not class_id:
            raise InputError(f"{file}:{number}: {line[:80]!r}: expected a folder, a comma and a class id")
        read.setdefault(name.strip('"'), []).append(class_id.strip('"'))
    return read


def lines_of(file: Path) -> list[str]:
    """Return the lines of a list that are not empty.

    Raises:
        InputError: it cannot be read, or is no UTF-8.
    """
    try:
        text = read_regular(file, _MAX_LIST_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: no list of names that can be read ({error}); correct the path") from None
    return [line.strip() for line in text.split("\n") if line.strip()]
