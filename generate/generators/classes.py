"""Which classes a generator draws: one that was trained on few says so in its folder, and is given no others.

In: the names that ``synclones.json`` beside ``model_index.json`` lists as ``draws_only``, and a prompt table. Out: an
error for a table of other classes, whose images would carry labels of what they do not show.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import pyarrow.compute as pc

from synclones.base.errors import InputError
from synclones.base.weights import read_model_json
from synclones.prompts.table import PromptTable, class_names

CLASSES_FILE = "synclones.json"


def own_classes(folder: Path) -> tuple[str, ...]:
    """Return the names of all classes that the generator in ``folder`` draws; none for one that draws anything.

    Raises:
        InputError: when its file says something else.
    """
    path = folder / CLASSES_FILE
    if not path.exists():
        return ()
    names = read_model_json(path).get("draws_only")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise InputError(f"{path}: draws_only is {repr(names)[:80]}, expected a list of class names; mend or remove it")
    return tuple(names)


def unknown_classes(own: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return which of ``names`` are none of ``own``, whatever their case."""
    known = {name.strip().casefold() for name in own}
    return [name for name in names if name.strip().casefold() not in known]


def refuse_other_classes(generator: str, own: tuple[str, ...], table: PromptTable, num_rows: int) -> None:
    """Refuse a table of which a class, or where it names none a prompt, is not of the generator's ``own``.

    Args:
        generator: its name for people.
        num_rows: how many rows of the table are drawn.

    Raises:
        InputError: naming the class or the row, and what to draw it with.
    """
    if not own:
        return
    names = class_names(table.metadata).values()
    if others := unknown_classes(own, names):
        _refuse(table, f"class {others[0]!r}", generator, own)
    if names:
        return
    # A table without class names: what a prompt asks for must then stand in the prompt.
    named = rf"\b({'|'.join(map(re.escape, own))})\b"
    for first, block in table.blocks(num_rows):
        fits = pc.match_substring_regex(block["prompt"], named, ignore_case=True)
        if not pc.all(fits).as_py():
            at = pc.index(fits, False).as_py()
            _refuse(table, f"row {first + at}: prompt {block['prompt'][at].as_py()[:60]!r}", generator, own)


def _refuse(table: PromptTable, what: str, generator: str, own: tuple[str, ...]) -> None:
    raise InputError(
        f"{table.path}: {what} is none of the {len(own)} classes that {generator} draws ({', '.join(own[:3])}, ...); "
        "choose another generator, such as --preset fast, or --model with a diffusers folder or hub id"
    )
