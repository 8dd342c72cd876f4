"""What the paper has beside a cell of a grid: numbers of the authors' logs for Tables 6 and 7, printed ones for 1 to 5.

In: the name of a published table, the values of a cell, a column. Out: fractions, corrected where the logs allow it;
and the published curves of accuracy over the number of images, with the back-test of the scaling law on them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from synclones.ablate.columns import Column, plain
from synclones.ablate.scaling import Expected, Law, Point, Refusal, expected_accuracy, fit, log_log
from synclones.evaluate.published.beside import published_for
from synclones.evaluate.published.tables import read_csv, tables

IMAGES = 50_000
"""Of ImageNet's validation set, which the published accuracies are of."""
TRAINING_SD = 0.002
"""Assumed of the published trainings, which were done once each: a standard deviation over seeds of 0.2 points."""
_TABLES = {"table6": 6, "table7": 7}
_MANY = {"k": 1e3, "m": 1e6, "b": 1e9}
# In points of 100 in the logs; the others are fractions there.
_PERCENT = ("accuracy", "bg_gap")
_LOGGED = {"r_cc_2d": "stated_r_cc", "cb2": "stated_cb2"}


def count_of(text: str) -> float | None:
    """Return the number of images that a value stands for (``16M``, ``250k``, ``4,000``); None where it is none."""
    match = re.fullmatch(r"([0-9][0-9,_]*(?:\.[0-9]+)?)\s*([kKmMbB]?)", text.strip())
    return None if match is None else float(re.sub("[,_]", "", match[1])) * _MANY.get(match[2].lower(), 1.0)


def same_kind(ours: str, theirs: str) -> bool:
    """Return whether two names of a kind of data are the same but for case, signs and a plural."""
    return plain(ours).rstrip("s") == plain(theirs).rstrip("s")


@cache
def _logs() -> tuple[dict[str, str], ...]:
    return tuple(read_csv("ablations.csv"))


def paper_value(published: str, values: Iterable[str], column: Column) -> float | None:
    """Return the number of the published table that a cell of these values stands beside, a fraction; None without.

    Args:
        published: table6, table7, or tables1-5, where one value is the name of a model.
    """
    own = list(values)
    if published in _TABLES:
        row = _row(published, own)
        return None if row is None or not column.papers else _logged(row, column.papers)
    if published == "tables1-5" and column.model_tables is not None:
        cells = (published_for(name).get(column.model_tables) for name in own)
        return next((cell.value for cell in cells if cell is not None), None)
    return None


def _row(published: str, values: list[str]) -> dict[str, str] | None:
    for row in _rows(published):
        sized = any(count_of(value) == count_of(row["images"]) for value in values)
        if sized and any(same_kind(value, row["data"]) for value in values):
            return row
    return None


def _rows(published: str) -> list[dict[str, str]]:
    """Return what the logs say of the cells of Table 6 or 7."""
    return [row for row in _logs() if f"{row['data']} {row['images']}" in tables()[_TABLES[published]].rows]


def _logged(row: Mapping[str, str], key: str) -> float:
    if key == "r_adv_fgsm":
        return float(row["accuracy_fgsm"]) / float(row["accuracy"])
    return float(row[_LOGGED.get(key, key)]) / (100 if key in _PERCENT else 1)


# ------------------------------------------------------------------ curves over the number of images


def paper_kinds(published: str) -> tuple[str, ...]:
    """Return the kinds of data of a published table; none where it has no sizes."""
    return tuple(dict.fromkeys(row["data"] for row in _rows(published))) if published in _TABLES else ()


def paper_points(published: str, kind: str) -> tuple[Point, ...]:
    """Return the published errors of one kind of data by size, with the standard error they are taken to have.

    That is of 50,000 test images and of an assumed 0.2 points over seeds, since each was trained once.
    """
    if published not in _TABLES:
        return ()
    points = []
    for row in _rows(published):
        if same_kind(row["data"], kind):
            error = 1 - _logged(row, "accuracy")
            sigma = np.sqrt(error * (1 - error) / IMAGES + TRAINING_SD**2)
            points.append(Point(count_of(row["images"]) or 0.0, error, float(sigma)))
    return tuple(points)


@dataclass(frozen=True)
class BackTest:
    """The largest size of one published curve, as laws fitted to the smaller ones expect it; accuracies, fractions.

    Attributes:
        line_of_two, line_of_three: what straight lines in log-log through the first two and three sizes expect.
    """

    published: str
    kind: str
    size: float
    measured: float
    line_of_two: float
    line_of_three: float
    law: Law | Refusal
    expected: Expected | Refusal

    @property
    def held(self) -> bool:
        """Whether the interval holds what was measured."""
        return isinstance(self.expected, Expected) and self.expected.low <= self.measured <= self.expected.high


def back_test() -> list[BackTest]:
    """Return the test on all 24 published cells: 18 are fitted, the largest size of each of six curves is held out."""
    tests = []
    for published in _TABLES:
        for kind in paper_kinds(published):
            *smaller, last = paper_points(published, kind)
            of_two, of_three = (1 - log_log(smaller[:n], last.size) for n in (2, 3))
            expected = expected_accuracy(smaller, last.size, last.sigma)
            tests.append(BackTest(published, kind, last.size, 1 - last.error, of_two, of_three, fit(smaller), expected))
    return tests
