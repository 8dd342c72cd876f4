"""A plan: every cell of a grid in a world at a scale, and the steps behind it, each once however many cells need it.

In: a grid, a world, a scale, and which values are chosen. Out: a `Plan`. Nothing is opened, run or written, and torch
is not loaded.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

from synclones.ablate.grid import Grid, StepTemplate, axis_values, scaled_count
from synclones.ablate.references import resolve
from synclones.ablate.steps import COMMANDS, Step, check_command
from synclones.ablate.world import World, worlds_with
from synclones.base.config import parse_count
from synclones.base.errors import InputError
from synclones.base.mistakes import suggestion
from synclones.base.yaml_file import Given

MAX_CELLS = 100_000


@dataclass(frozen=True)
class PlannedCell:
    """One combination of values and a seed.

    Attributes:
        steps: what it goes through, each after those it needs; the last is its evaluation.
        reason: why it cannot be built, in words, with file and line; then there are no steps.
    """

    values: dict[str, str]
    seed: int
    steps: tuple[Step, ...]
    reason: str = ""

    @property
    def name(self) -> str:
        """How a terminal shows it."""
        return ", ".join([*self.values.values(), f"seed {self.seed}"])


@dataclass(frozen=True)
class Plan:
    """All cells, and their steps by key, each after those it needs."""

    grid: Grid
    world: World
    scale: Fraction
    axes: dict[str, tuple[str, ...]]
    seeds: int
    cells: tuple[PlannedCell, ...]
    steps: dict[str, Step]


def make_plan(
    grid: Grid, world: World, scale: Fraction | None = None, only: Sequence[str] = (), seeds: int = 0
) -> Plan:
    """Plan a grid.

    Args:
        scale: by which counts and budgets are multiplied; the world's for this grid by default, else 1.
        only: texts ``AXIS=VALUE,VALUE``, which choose values.
        seeds: trainings of each combination; the grid's number by default.

    Raises:
        InputError: an unknown axis, value, name or command; or no cell can be built.
    """
    scale = scale or world.defaults(grid.name).scale or Fraction(1)
    context = _Context(grid, world, scale, only)
    count = seeds or grid.seeds
    combinations = list(product(*(values.items() for values in context.axes.values())))
    if len(combinations) * count > MAX_CELLS:
        raise InputError(f"{grid.path}: {len(combinations) * count:,} cells, at most {MAX_CELLS:,}; choose with --only")
    cells = [
        context.cell(dict(zip(context.axes, one, strict=True)), seed) for one in combinations for seed in range(count)
    ]
    if all(cell.reason for cell in cells):
        raise InputError(cells[0].reason)
    steps = _merged(step for cell in cells for step in cell.steps)
    # What a cell shows are the steps as they are run: at the largest size of all.
    cells = [replace(cell, steps=tuple(steps[step.key] for step in cell.steps)) for cell in cells]
    axes = {axis: tuple(values) for axis, values in context.axes.items()}
    return Plan(grid, world, scale, axes, count, tuple(cells), steps)


class _Context:
    """What references find while cells are planned."""

    def __init__(self, grid: Grid, world: World, scale: Fraction, only: Sequence[str]):
        self.grid, self.world, self.scale = grid, world, scale
        fixed = world.defaults(grid.name).budget
        self.counts = {
            "budget": {n: scaled_count(c, scale, f"budget {n}") for n, c in grid.budget.items()} | fixed,
            "size": {n: scaled_count(c, scale, f"size {n}") for n, c in grid.sizes.items()},
        }
        self.axes = _chosen({axis: self._values(axis, given) for axis, given in grid.axes.items()}, only, grid)

    def _values(self, axis: str, given: Given) -> dict[str, Any]:
        """Return name -> value of an axis, counts scaled."""
        resolved = given
        if isinstance(given.value, str):  # a reference to the world's own values
            resolved = self._outside_cells(given.value.strip("{}"), given.where)
        plain = resolved.plain() if isinstance(resolved, Given) else resolved
        values = axis_values(axis, plain, given.where)
        if axis not in self.grid.scaled:
            return values
        counts: dict[int, str] = {}
        for name, value in values.items():
            count = scaled_count(_count(value, f"{given.where}: {axis}"), self.scale, f"{axis}={name}")
            if count in counts:
                raise InputError(
                    f"--scale {self.scale}: {axis}={counts[count]} and {axis}={name} are both {count}; raise it"
                )
            counts[count] = name
        return {name: count for count, name in counts.items()}

    def _outside_cells(self, name: str, where: str) -> Any:
        first, _, rest = name.partition(".")
        if first != "world" or rest not in self.world.values:
            raise self._unknown(name, where, [f"world.{known}" for known in self.world.values])
        return self.world.values[rest]

    def cell(self, values: dict[str, tuple[str, Any]], seed: int) -> PlannedCell:
        """Plan one cell; what it lacks becomes its reason."""
        named = {axis: name for axis, (name, _) in values.items()}
        building = _Building(self, {axis: value for axis, (_, value) in values.items()}, seed)
        last = list(self.grid.steps)[-1]
        try:
            result = building.step(last)
        except InputError as error:
            return PlannedCell(named, seed, (), str(error))
        return PlannedCell(named, seed, tuple(_in_order(result)))

    def _unknown(self, name: str, where: str, known: Iterable[str]) -> InputError:
        # A name of the world may be misspelt, or the grid is one that this world was not made for.
        group, _, rest = name.partition(".")
        if group == "world" and (having := worlds_with(rest)):
            return InputError(
                f"{where}: needs {{{name}}}, which the world {self.world.name} does not state; take --world "
                f"{' or '.join(having)}, or state it in a world of your own"
            )
        stated = f" (the world {self.world.name} does not state it)" if group == "world" else ""
        return InputError(f"{where}: {{{name}}} is unknown{suggestion(name, sorted(known))}{stated}")


class _Building:
    """One cell while its steps are put together."""

    def __init__(self, context: _Context, values: dict[str, Any], seed: int):
        self._context, self._values, self._seed = context, values, seed
        self._made: dict[str, Step | None] = {}

    def step(self, name: str) -> Step:
        """Return a step of the grid, or of the world."""
        context = self._context
        template = context.grid.steps.get(name) or context.world.steps[name]
        if name in self._made:
            made = self._made[name]
            if made is None:
                raise InputError(f"{template.where}: the step {name} needs itself; take one of the references out")
            return made
        self._made[name] = None
        made = self._made[name] = self._build(template)
        return made

    def _build(self, template: StepTemplate) -> Step:
        check_command(template.run, template.where)
        flags: dict[str, Any] = {}
        for several in template.also:
            more = resolve(several, self.lookup)
            if not isinstance(more, dict):
                raise InputError(f"{several.where}: also: {several.shown()} is no mapping of flags; give one")
            flags |= more
        flags |= {name: resolve(value, self.lookup) for name, value in template.flags.items()}
        flags = {name: value for name, value in flags.items() if value is not None}
        _refuse_files(flags, template.where)
        amount = resolve(template.amount, self.lookup) if template.amount is not None else 1
        command, size = COMMANDS[template.run], 0
        if command.size and command.size in flags:
            size = _count(flags[command.size], f"{template.where}: {command.size}")
            flags[command.size] = size
        machine = {k: v for k, v in self._context.world.machine.get(template.run, {}).items() if k not in flags}
        if isinstance(amount, str):
            amount = _count(amount, f"{template.where}: amount")
        return Step(template.name, template.run, flags, machine, size, amount, template.rate or command.kind)

    def lookup(self, name: str, where: str) -> Any:
        """Return what a reference stands for.

        Raises:
            InputError: nothing is called so.
        """
        first, _, rest = name.partition(".")
        context = self._context
        if name == "seed":
            return self._seed
        if first in self._values:
            return self._of_axis(first, rest, where)
        if first == "step" and rest in context.grid.steps:
            return self.step(rest)
        if first in ("budget", "size") and rest in context.counts[first]:
            return context.counts[first][rest]
        if first == "largest" and rest in context.grid.scaled:
            return max(context.axes[rest].values())
        if first == "world" and rest in context.world.names():
            return self._of_world(rest)
        raise context._unknown(name, where, self._known(first))

    def _known(self, first: str) -> list[str]:
        context = self._context
        groups = {
            "world": context.world.names(),
            "step": list(context.grid.steps),
            "largest": list(context.grid.scaled),
            **{name: list(known) for name, known in context.counts.items()},
        }
        listed = [f"{group}.{name}" for group, known in groups.items() for name in known]
        return [one for one in listed if one.startswith(f"{first}.")] or [*self._values, "seed", *listed]

    def _of_axis(self, axis: str, key: str, where: str) -> Any:
        value = self._values[axis]
        if not key:
            return value
        if not isinstance(value, dict) or key not in value:
            known = [f"{axis}.{name}" for name in value] if isinstance(value, dict) else [axis]
            raise self._context._unknown(f"{axis}.{key}", where, known)
        return value[key]

    def _of_world(self, name: str) -> Any:
        world = self._context.world
        if name in world.steps:
            return self.step(name)
        return world.inputs[name] if name in world.inputs else world.values[name]


def _chosen(axes: dict[str, dict[str, Any]], only: Sequence[str], grid: Grid) -> dict[str, dict[str, Any]]:
    """Return the values that ``AXIS=VALUE,VALUE`` name, in the grid's order."""
    chosen = dict(axes)
    for item in only:
        axis, equals, listed = item.partition("=")
        if not equals or not listed:
            raise InputError(f"--only: {item!r} is no AXIS=VALUE; write one, as in {next(iter(axes))}=VALUE")
        if axis not in axes:
            raise InputError(f"--only: {grid.name} has no axis {axis!r}{suggestion(axis, list(axes))}")
        wanted = listed.split(",")
        for value in wanted:
            if value not in axes[axis]:
                raise InputError(f"--only: {axis} has no value {value!r}{suggestion(value, list(axes[axis]))}")
        chosen[axis] = {name: value for name, value in axes[axis].items() if name in wanted}
    return chosen


def _count(value: Any, where: str) -> int:
    try:
        return parse_count(value)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def _refuse_files(flags: dict[str, Any], where: str) -> None:
    """Refuse a file or folder that stands as a text, of which the address would know the path and not the content.

    Raises:
        InputError: naming it.
    """
    for name, value in flags.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and ("/" in text or Path(text).suffix) and Path(text).exists():
                raise InputError(
                    f"{where}: {name}: {text} lies here, and a step is known by what goes into it; state it under "
                    "`inputs:` of the world, and write {world.NAME}"
                )


def _in_order(last: Step) -> list[Step]:
    """Return a step and all that it needs, each after its needs, each once."""
    ordered: dict[str, Step] = {}

    def visit(step: Step) -> None:
        for need in step.needs:
            visit(need)
        ordered.setdefault(step.key, step)

    visit(last)
    return list(ordered.values())


def _merged(steps: Iterable[Step]) -> dict[str, Step]:
    """Return steps by key; of one that is asked for in several sizes the largest."""
    merged: dict[str, Step] = {}
    for step in steps:
        known = merged.get(step.key)
        if known is None or step.size > known.size:
            merged[step.key] = step
    # The largest may need what only comes later in the list: a table of its own size.
    ordered: dict[str, Step] = {}
    for step in merged.values():
        for one in _in_order(step):
            ordered.setdefault(one.key, merged[one.key])
    return ordered
