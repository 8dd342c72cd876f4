"""A grid as its file states it: a question, axes, and the steps that each cell goes through.

In: `ablate/grids/NAME.yaml`, or a file of the user's. Out: a `Grid`, in which references still stand.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from synclones.ablate.references import as_word
from synclones.base.config import parse_count
from synclones.base.errors import InputError
from synclones.base.mistakes import suggestion
from synclones.base.yaml_file import Given, read_yaml

FOLDER = Path(__file__).parent / "grids"
_KEYS = ("title", "question", "source", "published", "axes", "scaled", "seeds", "budget", "sizes", "steps", "columns")
_STEP_KEYS = ("run", "on", "flags", "also", "amount", "rate")
_TAKEN = ("world", "step", "seed", "largest", "budget", "size")  # words that references begin with
MAX_SEEDS = 1000


@dataclass(frozen=True)
class StepTemplate:
    """A public command with its flags, before anything is known of a cell.

    Attributes:
        run: words of the command, as in ``prompts build``.
        flags: name without dashes -> value; the empty name is that of an argument without a flag (`on:`).
        also: references to mappings of further flags, later ones winning.
        amount: how much of it there is to do, for costs; one by default.
        rate: the world's rate by which that is priced; the kind of the step when empty.
    """

    name: str
    run: str
    flags: dict[str, Given]
    also: tuple[Given, ...]
    amount: Given | None
    rate: str
    where: str


@dataclass(frozen=True)
class Grid:
    """A question as a table of cells.

    Attributes:
        axes: axis -> name of a value -> the value, a scalar or a mapping; or one reference to such a mapping.
        scaled: axes whose values are counts.
        budget: counts that every training has, scaled.
        sizes: other counts, scaled.
    """

    name: str
    path: Path
    title: str
    question: str
    source: str
    published: str
    axes: dict[str, Given]
    scaled: tuple[str, ...]
    seeds: int
    budget: dict[str, int]
    sizes: dict[str, int]
    steps: dict[str, StepTemplate]
    columns: tuple[str, ...]


def grid_names() -> list[str]:
    """Return the grids that the package has."""
    return shipped(FOLDER)


def shipped(folder: Path) -> list[str]:
    """Return the names of the YAML files that the package has in a folder."""
    return sorted(file.stem for file in folder.glob("*.yaml"))


def file_of(name: str, folder: Path, what: str) -> Path:
    """Return the YAML file of a name: the package's in ``folder``, or the user's own, which is named by its path.

    Raises:
        InputError: the package has none of that name.
    """
    if "/" in name or name.endswith((".yaml", ".yml")):
        return Path(name)
    if name not in shipped(folder):
        raise InputError(f"{what} {name!r} is unknown{suggestion(name, shipped(folder))}; or give a YAML file")
    return folder / f"{name}.yaml"


def read_grid(name: str) -> Grid:
    """Read a grid by name, or the file of one.

    Raises:
        InputError: no such grid, or file and line of what is wrong in it.
    """
    path = file_of(name, FOLDER, "grid")
    given = read_yaml(path)
    refuse_unknown(given, _KEYS, "a grid")
    for key in ("title", "axes", "steps", "columns"):
        if key not in given:
            raise InputError(f"{path}: has no `{key}:`; a grid needs title, axes, steps and columns")
    axes = mapping(given["axes"], "axes")
    for axis, value in axes.items():
        if axis in _TAKEN:
            raise InputError(f"{value.where}: no axis can be called {axis!r}; give it another name")
    texts = {key: text(given[key], key) if key in given else "" for key in ("title", "question", "source", "published")}
    return Grid(
        name=path.stem,
        path=path,
        **texts,
        axes=axes,
        scaled=_scaled(given.get("scaled"), axes),
        seeds=_seeds(given.get("seeds")),
        budget=counts(given.get("budget"), "budget"),
        sizes=counts(given.get("sizes"), "sizes"),
        steps=read_steps(given["steps"]),
        columns=tuple(names(given["columns"], "columns")),
    )


def read_steps(given: Given) -> dict[str, StepTemplate]:
    """Read the steps of a grid or a world.

    Raises:
        InputError: file and line of what is wrong.
    """
    return {name: _step(name, step) for name, step in mapping(given, "steps").items()}


def _step(name: str, given: Given) -> StepTemplate:
    step = mapping(given, name)
    refuse_unknown(step, _STEP_KEYS, "a step")
    if "run" not in step:
        raise InputError(f"{given.where}: {name}: has no `run:`; say which command it is, as in `run: generate`")
    also = step.get("also")
    several = () if also is None else tuple(also.value) if isinstance(also.value, list) else (also,)
    flags = mapping(step["flags"], "flags") if "flags" in step else {}
    flags = {"": step["on"], **flags} if "on" in step else flags
    rate = text(step["rate"], "rate") if "rate" in step else ""
    return StepTemplate(name, text(step["run"], "run"), flags, several, step.get("amount"), rate, given.where)


def axis_values(axis: str, resolved: Any, where: str) -> dict[str, Any]:
    """Return name -> value of an axis: of a mapping its items, of a list its members by how they are written.

    Raises:
        InputError: it is neither, empty, or has two values of one name.
    """
    if isinstance(resolved, dict) and resolved:
        return dict(resolved)
    if not isinstance(resolved, list) or not resolved:
        raise InputError(f"{where}: {axis}: expected a list of values, or a mapping of their names")
    if any(isinstance(value, list | dict) for value in resolved):
        raise InputError(f"{where}: {axis}: a value of a list has parts; give it a name, as in `{axis}: {{name: ...}}`")
    values = {as_word(value): value for value in resolved}
    if len(values) < len(resolved):
        raise InputError(f"{where}: {axis}: a value stands twice; keep one")
    return values


def scaled_count(count: int, scale: Fraction, what: str) -> int:
    """Return a count at a scale, rounded, halves up.

    Raises:
        InputError: nothing is left of it.
    """
    rounded = math.floor(count * scale + Fraction(1, 2))
    if count and not rounded:
        raise InputError(f"--scale {scale}: of {what}, {count:,}, nothing is left; give at least 1/{2 * count}")
    return rounded


def mapping(given: Given, what: str) -> dict[str, Given]:
    """Return a mapping.

    Raises:
        InputError: it is something else, or empty.
    """
    if not isinstance(given.value, dict) or not given.value:
        raise InputError(f"{given.where}: {what}: got {given.shown()}, expected lines of `name: value`")
    return given.value


def text(given: Given, what: str) -> str:
    """Return a text.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(given.value, str):
        raise InputError(f"{given.where}: {what}: got {given.shown()}, expected text")
    return given.value


def names(given: Given, what: str) -> list[str]:
    """Return a list of names.

    Raises:
        InputError: it is something else, or has one twice.
    """
    if not isinstance(given.value, list) or not given.value:
        raise InputError(f"{given.where}: {what}: got {given.shown()}, expected a list of names")
    listed = [text(item, what) for item in given.value]
    if len(set(listed)) < len(listed):
        raise InputError(f"{given.where}: {what}: one stands twice; keep one")
    return listed


def counts(given: Given | None, what: str) -> dict[str, int]:
    """Return a mapping of counts; none without one.

    Raises:
        InputError: a value is no count.
    """
    read = {}
    for name, item in mapping(given, what).items() if given is not None else ():
        try:
            read[name] = parse_count(item.value)
        except ValueError as error:
            raise InputError(f"{item.where}: {name}: {error}") from None
    return read


def refuse_unknown(given: dict[str, Given], known: tuple[str, ...], what: str) -> None:
    """Refuse keys that nothing would read.

    Raises:
        InputError: with file, line and the near name.
    """
    for key, value in given.items():
        if key not in known:
            raise InputError(f"{value.where}: {key!r} is no key of {what}{suggestion(key, list(known))}")


def _scaled(given: Given | None, axes: dict[str, Given]) -> tuple[str, ...]:
    listed = names(given, "scaled") if given is not None else []
    for name in listed:
        if name not in axes:
            assert given is not None
            raise InputError(f"{given.where}: scaled: {name!r} is no axis of this grid{suggestion(name, list(axes))}")
    return tuple(listed)


def _seeds(given: Given | None) -> int:
    if given is None:
        return 1
    if type(given.value) is not int or not 1 <= given.value <= MAX_SEEDS:
        raise InputError(f"{given.where}: seeds: got {given.shown()}, expected 1 to {MAX_SEEDS}")
    return given.value
