"""The published Tables 1-7, every cell as printed, with its unit, direction and source.

In: ``tables.yaml`` and ``tableN.csv``. Out: `Table`s of `Cell`s. Values are fractions of 1, as everywhere in files;
the number of training images is a count.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from synclones.base.yaml_file import read_yaml

FOLDER = Path(__file__).resolve().parent
PAPER = "Singh et al. 2024, Is Synthetic Data all We Need?, arXiv 2405.20469"
NUMBERS = tuple(range(1, 8))
FIGURES = 0
"""In place of a table's number: of what figures are drawn from."""
COUNT = "images"
# What the rows of Tables 6 and 7 are models of; the one that the other tables show has its name alone.
_FAMILY = {6: ("SynViT-B", "class name 16M"), 7: ("SynCLIP", "synthetic 371M")}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: its name in files.
        heading: its name in text.
        better: higher, lower or neither.
        metric: the metric it shows, as deviations name it.
    """

    key: str
    heading: str
    better: str
    metric: str


@dataclass(frozen=True)
class Cell:
    """A number as printed.

    Attributes:
        row: the row's label, and ``model`` the model it is of.
        printed: the characters on the page.
        value: the fraction they stand for by the convention of the table, or a count of images.
        step: half the last printed digit, in the unit of ``value``.
    """

    table: int
    row: str
    model: str
    column: Column
    printed: str
    value: float
    step: float

    @property
    def unit(self) -> str:
        """What ``value`` counts."""
        return "images" if self.column.key == COUNT else "fraction"

    @property
    def place(self) -> str:
        """Which table it is printed in."""
        return f"Table {self.table}"

    @property
    def source(self) -> str:
        """Where it is printed."""
        return f"{self.place}, {self.row}, {self.column.heading}"


@dataclass(frozen=True)
class Table:
    """A table: its columns, and its cells by row and column key in the order of the paper."""

    number: int
    title: str
    columns: tuple[Column, ...]
    rows: dict[str, dict[str, Cell]]

    @property
    def cells(self) -> list[Cell]:
        """All cells, row by row."""
        return [cell for row in self.rows.values() for cell in row.values()]


@cache
def tables() -> dict[int, Table]:
    """Return the seven tables by number."""
    described = read_yaml(FOLDER / "tables.yaml")
    return {int(number): _table(int(number), given.plain()) for number, given in described.items()}


def _table(number: int, facts: dict[str, dict[str, dict[str, str]]]) -> Table:
    columns = {key: _column(key, column) for key, column in facts["columns"].items()}
    percent = str(facts["printed"]) == "percent"
    rows: dict[str, dict[str, Cell]] = {}
    for line in read_csv(f"table{number}.csv"):
        row, model = _row(number, line)
        rows[row] = {key: _cell(number, row, model, column, line[key], percent) for key, column in columns.items()}
    return Table(number, str(facts["title"]), tuple(columns.values()), rows)


def _column(key: str, facts: dict[str, str]) -> Column:
    return Column(key, facts["heading"], facts["better"], facts.get("metric", key))


def _row(number: int, line: dict[str, str]) -> tuple[str, str]:
    """Return label and model of a row."""
    if number not in _FAMILY:
        return line["model"], line["model"]
    label = f"{line['data']} {line['images']}"
    family, named = _FAMILY[number]
    return label, family if label == named else f"{family} {label}"


def _cell(number: int, row: str, model: str, column: Column, printed: str, percent: bool) -> Cell:
    if column.key == COUNT:
        return Cell(number, row, model, column, printed, 1e6 * float(printed.removesuffix("M")), 0.0)
    scale = 100.0 if percent else 1.0
    step = 0.5 * 10.0 ** -len(printed.partition(".")[2]) / scale
    return Cell(number, row, model, column, printed, float(printed) / scale, step)


def read_csv(name: str) -> list[dict[str, str]]:
    """Return the rows of a data file beside this one."""
    with open(FOLDER / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
