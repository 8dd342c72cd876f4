"""The columns of a grid's table: which of the numbers of an evaluation each of them is, in which unit and direction.

In: the `Cell`s of one model's folder of results. Out: a `Number`, or why there is none; never a zero in its place.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from synclones.base.errors import InputError
from synclones.evaluate.results import Cell

Results = Sequence[Cell]
# Ratios, attacks and outliers are measured on the clean test set alone, which therefore is the one that they name.
_ON_REFERENCE = ("r_adv", "accuracy_fgsm", "r_cc", "auroc", "r_adv_pgd", "accuracy_pgd")


@dataclass(frozen=True)
class Number:
    """The value of a column for one model, a fraction; the interval is over test images where the results have one.

    Attributes:
        cells: what it was read from; several where it is their mean.
    """

    value: float
    low: float | None
    high: float | None
    cells: tuple[Cell, ...]

    @property
    def images(self) -> str:
        """What identifies the images it was measured on: equal for models that can be compared image by image."""
        names = ("set_sha256", "outliers_sha256", "mixed_rand_sha256", "attack", "epsilon_255", "score", "bins")
        stated = [(c.dataset_sha256, c.n, *(str(c.settings.get(name, "")) for name in names)) for c in self.cells]
        return repr(sorted(stated))


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a grid's table.

    Attributes:
        name: as grids write it.
        heading: as tables print it.
        unit: of the printed number: a value times 100 is in it.
        choose: cells of one model, of the corrected protocol -> those whose mean the column is.
        chosen: the rule in words.
        ends: the values at centre and rim of a radar, as the report of an evaluation has them.
        papers: the key of the column in Tables 6 and 7, and of (table, key) in Tables 1 to 5; empty where none is.
    """

    name: str
    heading: str
    unit: Literal["%", "points"] = "%"
    better: Literal["more", "less"]
    choose: Callable[[Results], list[Cell]]
    chosen: str
    ends: tuple[float, float] = (0.0, 1.0)
    papers: str = ""
    model_tables: tuple[int, str] | None = None

    @property
    def arrow(self) -> str:
        """Which way is better, as a character."""
        return "↑" if self.better == "more" else "↓"

    def sign(self) -> int:
        """Return 1 where more is better, else -1."""
        return 1 if self.better == "more" else -1


def plain(text: str) -> str:
    """Return letters and digits alone, in small letters: names that differ in nothing else are the same."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def reference_of(cells: Results) -> str:
    """Return the content hash of the clean test set; without any number that is measured on it alone, the first set."""
    own = [cell for cell in cells if cell.metric in _ON_REFERENCE] or [c for c in cells if c.metric == "accuracy"]
    return own[0].dataset_sha256 if own else ""


def _clean(metric: str) -> Callable[[Results], list[Cell]]:
    """Return the rule that takes a metric on the clean test set."""

    def choose(cells: Results) -> list[Cell]:
        reference = reference_of(cells)
        return [cell for cell in cells if cell.metric == metric and cell.dataset_sha256 == reference][:1]

    return choose


def _attack(metric: str) -> Callable[[Results], list[Cell]]:
    """Return the rule that takes a metric at the strength of the papers, 1/255."""
    return lambda cells: [c for c in cells if c.metric == metric and c.settings.get("epsilon_255") == 1][:1]


def _first(metric: str) -> Callable[[Results], list[Cell]]:
    return lambda cells: [cell for cell in cells if cell.metric == metric][:1]


def _outliers(metric: str) -> Callable[[Results], list[Cell]]:
    """Return the rule that takes SUN as the papers' ablations do, and where it is not measured the mean of all sets."""

    def choose(cells: Results) -> list[Cell]:
        by_score = [c for c in cells if c.metric == metric and c.settings.get("score") == "max-probability"]
        sun = [cell for cell in by_score if plain(str(cell.settings.get("outliers"))) == "sun"]
        return sun[:1] or by_score

    return choose


def _corrupted(metric: str) -> Callable[[Results], list[Cell]]:
    """Return the rule that takes ImageNet-C as the papers' ablations do, and without it the first single set."""

    def choose(cells: Results) -> list[Cell]:
        own = [cell for cell in cells if cell.metric == metric]
        named = [cell for cell in own if plain(str(cell.settings.get("set"))) == "imagenetc"]
        single = [cell for cell in own if " and " not in str(cell.settings.get("set"))]
        return (named or single or own)[:1]

    return choose


_OUTLIERS = "by the largest probability; outliers of SUN, or the mean of all sets of outliers where SUN is none of them"
COLUMNS: dict[str, Column] = {
    column.name: column
    for column in (
        Column(
            name="accuracy",
            heading="accuracy",
            better="more",
            choose=_clean("accuracy"),
            chosen="on the clean test set",
            papers="accuracy",
            model_tables=(2, "accuracy"),
        ),
        Column(
            name="fgsm",
            heading="R_adv FGSM",
            better="more",
            choose=_attack("r_adv"),
            chosen="accuracy under FGSM of 1/255 over clean accuracy",
            papers="r_adv_fgsm",
            model_tables=(2, "r_adv_fgsm"),
        ),
        Column(
            name="pgd",
            heading="R_adv PGD",
            better="more",
            choose=_attack("r_adv_pgd"),
            chosen="accuracy under PGD of 1/255 over clean accuracy",
            model_tables=(2, "r_adv_pgd"),
        ),
        Column(
            name="corruption",
            heading="R_cc",
            better="more",
            choose=_corrupted("r_cc"),
            chosen="accuracy under corruption over clean accuracy; of ImageNet-C, or of the first corrupted set",
            papers="r_cc_2d",
        ),
        Column(
            name="context",
            heading="CB_2",
            better="more",
            choose=_first("cb2"),
            chosen="accuracy where two of time, weather and place are uncommon, over that where none is",
            papers="cb2",
            model_tables=(4, "cb2"),
        ),
        Column(
            name="shape",
            heading="shape bias",
            better="more",
            choose=_first("shape_bias"),
            chosen="answers by shape among those by shape or texture",
            papers="shape_bias",
        ),
        Column(
            name="background",
            heading="BG-Gap",
            unit="points",
            better="less",
            choose=_first("bg_gap"),
            chosen="accuracy before backgrounds of the own class, less that before backgrounds of any class",
            ends=(0.2, 0.0),
            papers="bg_gap",
            model_tables=(5, "bg_gap"),
        ),
        Column(
            name="fpr95",
            heading="FPR@95",
            better="less",
            choose=_outliers("fpr95_id_positive"),
            chosen=f"outliers that pass where 95 % of the test images do, {_OUTLIERS}",
            ends=(1.0, 0.0),
            papers="fpr95_sun",
            model_tables=(1, "fpr95_sun"),
        ),
        Column(
            name="auroc",
            heading="AUROC",
            better="more",
            choose=_outliers("auroc"),
            chosen=f"chance that an image of the classes looks more like one than an outlier does, {_OUTLIERS}",
            ends=(0.5, 1.0),
            model_tables=(1, "auroc_sun"),
        ),
        Column(
            name="ece",
            heading="ECE",
            better="less",
            choose=_clean("ece"),
            chosen="expected calibration error on the clean test set",
            ends=(0.5, 0.0),
            papers="ece",
        ),
    )
}
EIGHT = ("accuracy", "fgsm", "corruption", "context", "shape", "background", "fpr95", "ece")
"""Those of Tables 6 and 7, in their order."""


def columns_named(names: Sequence[str]) -> tuple[Column, ...]:
    """Return columns by name.

    Raises:
        InputError: naming the first that there is none of.
    """
    for name in names:
        if name not in COLUMNS:
            raise InputError(f"columns: {name!r} was given, expected some of {', '.join(COLUMNS)}; correct the grid")
    return tuple(COLUMNS[name] for name in names)


def number_of(column: Column, cells: Results) -> Number | str:
    """Return the column's number among one model's cells, or why there is none, in words.

    Only numbers of the corrected protocol count. Of a mean of several sets no interval over images is known.
    """
    chosen = column.choose([cell for cell in cells if cell.protocol != "paper"])
    if not chosen:
        return f"not measured: {column.chosen}"
    values = [cell.value for cell in chosen if cell.value is not None]
    if len(values) < len(chosen):
        return "undefined: it divides by an accuracy of 0, or no image counts"
    if len(chosen) == 1:
        return Number(values[0], chosen[0].ci_low, chosen[0].ci_high, tuple(chosen))
    return Number(float(np.mean(values)), None, None, tuple(chosen))
