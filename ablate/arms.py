"""The rows of a grid's table: combinations of the axes' values with the numbers of all their trainings.

In: `GridResults`. Out: `Arm`s: for each column the numbers by seed, or why there are none.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from synclones.ablate.cells import Cell, GridResults
from synclones.ablate.columns import Column, Number, columns_named, number_of
from synclones.ablate.comparisons import Difference, Measured, Spread, difference, spread_of
from synclones.ablate.paper import count_of, paper_value
from synclones.ablate.resampled import RESAMPLES, resample_column
from synclones.base.errors import SynclonesError
from synclones.evaluate.bounds.family import holm
from synclones.evaluate.stored.results import Cell as Result
from synclones.evaluate.stored.results import read_cells

SIZES = ("images", "pairs", "size", "sizes")
"""What grids call the axis of the number of images."""
_NUMBER = re.compile(r"[\d./ %]+")


@dataclass(frozen=True, eq=False)
class Arm:
    """One combination of the axes' values.

    Attributes:
        values: axis -> value, in the grid's order.
        cells: its trainings, by seed.
        numbers: column -> seed -> number.
        missing: column -> why some training has none, without repetition; not of columns that all have.
        paper: column -> the published number beside, a fraction.
    """

    values: dict[str, str]
    cells: tuple[Cell, ...]
    numbers: dict[str, dict[int, Number]]
    missing: dict[str, str]
    paper: dict[str, float]

    @property
    def name(self) -> str:
        """Its values, one after the other."""
        return ", ".join(self.values.values())

    @property
    def sentence_name(self) -> str:
        """The same for a sentence, where a number alone would say nothing: its axis goes before it."""
        alone = (f"{axis} {value}" if _NUMBER.fullmatch(value) else value for axis, value in self.values.items())
        return ", ".join(alone)

    def spread(self, column: str) -> Spread | None:
        """Return mean and spread of a column over the trainings that have it; None where none has."""
        values = [number.value for number in self.numbers[column].values()]
        return spread_of(values) if values else None

    def interval(self, column: str) -> tuple[float, float] | None:
        """Return the t interval over seeds; of one training, that over test images; None where neither is known."""
        spread = self.spread(column)
        if spread is not None and spread.low is not None and spread.high is not None:
            return spread.low, spread.high
        (number,) = self.numbers[column].values() if spread is not None else (None,)
        if number is None or number.low is None or number.high is None:
            return None
        return number.low, number.high

    def results(self, column: str) -> list[tuple[int, Path, Number]]:
        """Return seed, folder and number of the trainings that have a column."""
        own = self.numbers[column]
        return [(c.seed, c.results, own[c.seed]) for c in self.cells if c.seed in own and c.results is not None]


def arms_of(results: GridResults) -> list[Arm]:
    """Return the arms of a grid in the order of its table, those without any results too."""
    columns = columns_named(results.columns)
    by_values: dict[tuple[str, ...], list[Cell]] = {}
    for cell in results.cells:
        by_values.setdefault(tuple(cell.values.values()), []).append(cell)
    order = [tuple(results.axes), *(tuple(values) for values in results.axes.values())]
    ranks = {
        axis: {value: i for i, value in enumerate(values)} for axis, values in zip(order[0], order[1:], strict=True)
    }

    def rank(cells: list[Cell]) -> tuple[int, ...]:
        return tuple(ranks.get(axis, {}).get(value, 0) for axis, value in cells[0].values.items())

    return [
        _arm(results, sorted(cells, key=lambda c: c.seed), columns) for cells in sorted(by_values.values(), key=rank)
    ]


def _arm(results: GridResults, cells: list[Cell], columns: Sequence[Column]) -> Arm:
    numbers: dict[str, dict[int, Number]] = {column.name: {} for column in columns}
    reasons: dict[str, list[str]] = {column.name: [] for column in columns}
    for cell in cells:
        measured = _read(cell)
        for column in columns:
            number = measured if isinstance(measured, str) else number_of(column, measured)
            if isinstance(number, str):
                reasons[column.name].append(number)
            else:
                numbers[column.name][cell.seed] = number
    values = cells[0].values
    beside = {column.name: paper_value(results.published, values.values(), column) for column in columns}
    return Arm(
        values=values,
        cells=tuple(cells),
        numbers=numbers,
        missing={name: "; ".join(dict.fromkeys(own)) for name, own in reasons.items() if own},
        paper={name: value for name, value in beside.items() if value is not None},
    )


def _read(cell: Cell) -> list[Result] | str:
    """Return the results of a training, or why there are none: a folder that cannot be read is no reason to stop."""
    if cell.results is None:
        return cell.missing or "not computed"
    try:
        measured = read_cells(cell.results)
    except (SynclonesError, OSError) as error:
        return f"cannot be read: {error}"
    models = len({own.model_identity for own in measured})
    if models != 1:
        return f"{cell.results.name}: holds results of {models} models, expected one"
    return measured


# ------------------------------------------------------------------ which axis counts images


def size_axis(results: GridResults) -> str | None:
    """Return the axis of the number of images, None where there is none with two values or more."""
    for axis, values in results.axes.items():
        if axis in SIZES and len(values) > 1 and all(count_of(value) is not None for value in values):
            return axis
    return None


def size_of(results: GridResults, value: str) -> float:
    """Return the number of images that a value of the size axis stands for, at the grid's scale where it is scaled."""
    scale = results.scale if size_axis(results) in results.scaled else 1
    return float((count_of(value) or 0.0) * scale)


def kind_of(values: dict[str, str], axis: str | None) -> str:
    """Return an arm's values without the one of an axis."""
    return ", ".join(value for name, value in values.items() if name != axis) or "all"


# ------------------------------------------------------------------ differences between arms


@dataclass(frozen=True)
class Pair:
    """Two arms that differ in one axis, compared in one column.

    Attributes:
        difference: first minus second, or why it is not known.
        adjusted: its p-value among all comparisons of the column (Holm).
    """

    first: Arm
    second: Arm
    axis: str
    column: Column
    difference: Difference | str
    adjusted: float | None


def compare_arms(results: GridResults, arms: Sequence[Arm], resamples: int = RESAMPLES) -> list[Pair]:
    """Compare arms that differ in the value of one axis, in every column; each column is a family of comparisons."""
    pairs, near = [], _neighbours(arms)
    for column in columns_named(results.columns):
        measured = _measured(arms, column.name, resamples)
        own = [
            (arms[i], arms[j], axis, difference(measured[i], measured[j]))
            for i, j, axis in near
            if arms[i].numbers[column.name] and arms[j].numbers[column.name]
        ]
        adjusted = holm([item.p if isinstance(item, Difference) else None for *_, item in own])
        pairs += [Pair(a, b, axis, column, item, p) for (a, b, axis, item), p in zip(own, adjusted, strict=True)]
    return pairs


def _neighbours(arms: Sequence[Arm]) -> list[tuple[int, int, str]]:
    """Return the positions of arms that differ in one axis alone, and which, in the order of the table."""
    pairs = []
    for axis in arms[0].values if arms else ():
        alike: dict[tuple[str, ...], list[int]] = {}
        for position, arm in enumerate(arms):  # what is the same in all other axes: few of each, and no pair of others
            alike.setdefault(tuple(v for name, v in arm.values.items() if name != axis), []).append(position)
        pairs += [(i, j, axis) for own in alike.values() for i, j in combinations(own, 2)]
    return sorted(pairs)


def _measured(arms: Sequence[Arm], column: str, resamples: int) -> list[Measured]:
    """Return a column of every arm with its resamples, which are the same for all trainings."""
    trainings = [(i, *item) for i, arm in enumerate(arms) for item in arm.results(column)]
    drawn = resample_column([(folder, number) for _, _, folder, number in trainings], resamples)
    known: list[dict[int, np.ndarray]] = [{} for _ in arms]
    for (i, seed, *_), values in zip(trainings, drawn, strict=True):
        if values is not None:
            known[i][seed] = values
    return [_of_arm(arm, column, own) for arm, own in zip(arms, known, strict=True)]


def _of_arm(arm: Arm, column: str, resampled: dict[int, np.ndarray]) -> Measured:
    own = arm.numbers[column]
    halves = {s: (n.high - n.low) / 2 for s, n in own.items() if n.low is not None and n.high is not None}
    images = {number.images for number in own.values()}
    return Measured(
        by_seed={seed: number.value for seed, number in own.items()},
        resampled=resampled,
        half_widths=halves,
        images=images.pop() if len(images) == 1 else f"{arm.name}: several",
    )
