"""How one number is shown: its heading, its value with its interval, and what a reader must know beside it.

In: `Cell`s. Out: text. Metrics say themselves by what their values are multiplied, and what that counts.
"""

from typing import Any

from synclones.evaluate.axis import Metric, axes, metrics
from synclones.evaluate.stored.results import Cell

TRAINED = "trained on this set"
PAPER = "paper"
OTHER = "other"
# Settings that make no column of their own: how often was resampled, and how many images there are.
_NO_COLUMN = ("resamples", "images", "images_of_p0")


def heading(cell: Cell) -> str:
    """Return the heading of a cell's column; the bare name of a metric that another version measured."""
    try:
        return metrics()[cell.metric].heading.format_map(cell.settings)
    except (KeyError, ValueError, TypeError):
        return cell.metric


def title(cell: Cell, dataset: str) -> str:
    """Return heading and data set: what a number is called where it stands alone."""
    names = (name for name in ("set", "outliers") if name in cell.settings)
    return heading(cell) if any(names) else f"{heading(cell)} on {among(cell, dataset)}"


def among(cell: Cell, dataset: str) -> str:
    """Return the data set, with how many classes answers were sought among where these are fewer than the model has."""
    classes = cell.settings.get("classes")
    return dataset if classes is None else f"{dataset} ({classes} classes)"


def arrow(metric: str) -> str:
    """Return which way a metric is better, as a sign to put behind its name; nothing where neither way is."""
    known = metrics().get(metric)
    return {"more": "\N{NO-BREAK SPACE}↑", "less": "\N{NO-BREAK SPACE}↓"}.get(known.better if known else "", "")


def axis_of(cell: Cell) -> str:
    """Return the name of the axis that a cell belongs to; `OTHER` for one of another version."""
    return next((axis.name for axis in axes() if any(m.name == cell.metric for m in axis.metrics)), OTHER)


def tabled(cell: Cell) -> bool:
    """Return whether a number has a column in wide tables."""
    metric = metrics().get(cell.metric)
    return metric is None or metric.tabled


def printed(cell: Cell, value: float) -> str:
    """Return a value of a cell's metric as it is printed, without its unit."""
    metric = metrics().get(cell.metric)
    return metric.printed(value) if metric else f"{100 * value:.1f}"


def unit(cell: Cell) -> str:
    """Return the unit of what is printed: nothing for percent, of which tables say so."""
    metric = metrics().get(cell.metric)
    return "" if metric is None or metric.unit_short in ("%", "") else f" {metric.unit_short}"


def percent(cell: Cell) -> str:
    """Return ``91.2 [88.5, 93.3]``, value and interval in percent or with their unit, or ``undefined``.

    Where even a faultless model would show some of what is measured, that follows: ``, calibrated 2.5``.
    """
    own = with_bounds(cell)
    return own if cell.faultless is None else f"{own}, {_faultless(cell)} {printed(cell, cell.faultless)}"


def with_bounds(cell: Cell) -> str:
    """Return ``91.2 [88.5, 93.3]`` and nothing beside it."""
    if cell.value is None or cell.ci_low is None or cell.ci_high is None:
        return "undefined"
    value, low, high = (printed(cell, number) for number in (cell.value, cell.ci_low, cell.ci_high))
    return f"{value}{unit(cell)} [{low}, {high}]"


def _faultless(cell: Cell) -> str:
    metric = metrics().get(cell.metric)
    return metric.faultless if metric and metric.faultless else "faultless"


def beside(cells: list[Cell]) -> str:
    """Return the sentences that say what the numbers beside the values are; nothing where there are none."""
    words = dict.fromkeys((_faultless(cell), cell.metric) for cell in cells if cell.faultless is not None)
    titles = {name: metric.title for name, metric in metrics().items()}
    return "".join(
        f" {word.capitalize()}: what a {word} model of the same confidences would show as {titles.get(name, name)} "
        "on as many images, on average."
        for word, name in words
    )


def columns(cells: list[Cell]) -> list[str]:
    """Return the headings in the order of reading: by axis and metric, then by settings."""
    return list(dict.fromkeys(heading(cell) for cell in sorted(cells, key=reading_order)))


def reading_order(cell: Cell) -> tuple[Any, ...]:
    """Return what cells are sorted by."""
    names = list(metrics())
    rank = names.index(cell.metric) if cell.metric in names else len(names)
    # Strengths are in order as numbers.
    own = sorted((name, value) for name, value in cell.settings.items() if name not in _NO_COLUMN)
    settings = [(name, value, "") if isinstance(value, int | float) else (name, 0, str(value)) for name, value in own]
    return rank, settings


def detail(metric: Metric, cell: Cell) -> str:
    """Return what a report adds to a metric's title, in brackets."""
    try:
        return f" ({metric.detail.format_map(cell.settings)})" if metric.detail else ""
    except (KeyError, ValueError, TypeError):  # a cell of another version
        return ""


def trained_note(cells: list[Cell]) -> str:
    """Return the sentence that says what the mark of such models means; nothing where there are none."""
    if not any(cell.trained_on_test for cell in cells):
        return ""
    return (
        f" {TRAINED.capitalize()}: the model has seen these very images, or ones made from them; its numbers show what "
        "it remembers, not what it would do with new images."
    )


def protocol_note(cells: list[Cell]) -> str:
    """Return the sentence that says what the protocol ``paper`` is; nothing where no number follows it."""
    if not any(cell.protocol == PAPER for cell in cells):
        return ""
    return (
        " Protocol paper: as the code of Singh et al. 2024 computed it, deviations included (`synclones evaluate "
        "explain D1`), to compare with what they print; corrected: as their text defines it."
    )
