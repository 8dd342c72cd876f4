"""All axes of robustness of a model at a glance, as in Figure 1 of the paper, with what the paper's does not say.

In: `Shown` models. Out: HTML, and `Point`s. Every spoke has a direction and a range that are the same in all reports,
and they are printed beside the drawings: 0 is the centre, 1 the rim.
"""

from dataclasses import dataclass
from html import escape

import numpy as np

from synclones.base.page import table
from synclones.base.page_style import LINE, SOFT
from synclones.evaluate.reports.cell_text import title
from synclones.evaluate.reports.figures import figure_row, in_style, margins, new_figure, short, svg
from synclones.evaluate.reports.points import Point
from synclones.evaluate.reports.shown import MAX_MODELS, Shown
from synclones.evaluate.stored.results import Cell

FEWEST = 3
"""Spokes that make an area."""


@dataclass(frozen=True)
class Spoke:
    """An axis of the drawing."""

    name: str
    metric: str
    centre: float
    """The value at 0."""
    rim: float
    """The value at 1."""
    settings: tuple[tuple[str, object], ...] = ()

    def radius(self, value: float) -> float:
        """Return where a value lies between centre and rim, cut off at both."""
        return float(np.clip((value - self.centre) / (self.rim - self.centre), 0.0, 1.0))

    @property
    def transform(self) -> str:
        """The formula of the radius, in words."""
        way = "more is better" if self.rim > self.centre else "less is better"
        return f"(value - {100 * self.centre:g}) / ({100 * self.rim:g} - {100 * self.centre:g}), {way}"


SPOKES = (
    Spoke("accuracy", "accuracy", 0.0, 1.0),
    Spoke("calibration", "ece", 0.5, 0.0),
    Spoke("outliers", "auroc", 0.5, 1.0),
    Spoke("adversarial", "r_adv", 0.0, 1.0, (("epsilon_255", 1.0),)),
    Spoke("corruptions", "r_cc", 0.0, 1.0),
    Spoke("context", "cb2", 0.0, 1.0),
    Spoke("background", "bg_gap", 0.2, 0.0),
    Spoke("shape", "shape_bias", 0.0, 1.0),
)


def value_of(model: Shown, spoke: Spoke) -> float | None:
    """Return a model's value at a spoke: of several sets of outliers the mean, of several of corruptions the last."""
    cells = _cells(model, spoke)
    values = [cell.value for cell in cells if cell.value is not None]
    if not values:
        return None
    return float(np.mean(values)) if spoke.metric == "auroc" else values[0]


def _cells(model: Shown, spoke: Spoke) -> list[Cell]:
    """Return what a value is of: by the first score of outliers, by the most corruptions."""
    cells = model.having(spoke.metric)
    if spoke.metric in ("accuracy", "ece"):
        cells = [cell for cell in cells if cell.dataset_sha256 == model.reference]
    cells = [cell for cell in cells if all(cell.settings.get(name) == value for name, value in spoke.settings)]
    if spoke.metric == "auroc":
        return [cell for cell in cells if cell.settings.get("score") == cells[0].settings.get("score")]
    if spoke.metric == "r_cc":
        return sorted(cells, key=lambda cell: -int(cell.settings.get("corruptions", 0)))[:1]
    return cells[:1]


def points(models: list[Shown]) -> list[Point]:
    """Return every corner: ``x`` is the value, ``y`` the radius."""
    return [
        Point(figure="radar", panel=model.name, model=model.name, label=spoke.name, x=value, y=spoke.radius(value))
        for model in models
        for spoke in SPOKES
        if (value := value_of(model, spoke)) is not None
    ]


def section(models: list[Shown]) -> str:
    """Return a drawing for each model, the others in grey, and what the spokes are; nothing of fewer than three."""
    spokes = [spoke for spoke in SPOKES if any(value_of(model, spoke) is not None for model in models)]
    if len(spokes) < FEWEST:
        return ""
    drawn = models[:MAX_MODELS]
    left = [spoke.name for spoke in SPOKES if spoke not in spokes]
    more = f" The first {MAX_MODELS} of {len(models)} models are drawn." if len(models) > MAX_MODELS else ""
    missing = f" Not measured: {', '.join(left)}." if left else ""
    return (
        "<h2>All kinds of robustness at a glance</h2><p>Every spoke is one kind of robustness, from the centre (0) to "
        "the rim (1); further out is better, and grey lines are the other models. An area depends on the order of the "
        "spokes and says nothing by itself. How values become radii stands below; ranges are the same in every report, "
        "and what lies beyond "
        f"one is drawn at its end.{missing}{more}</p>"
        f"{figure_row(_drawing(model, drawn, spokes) for model in drawn)}{_definitions(models, spokes)}"
    )


def _definitions(models: list[Shown], spokes: list[Spoke]) -> str:
    lines = []
    for spoke in spokes:
        cell = next(cells[0] for model in models if (cells := _cells(model, spoke)))
        sets = sorted({len(own) for model in models if (own := _cells(model, spoke))})
        counts = f"{sets[0]} sets" if len(sets) == 1 else f"{sets[0]} to {sets[-1]} sets, not the same of all models"
        what = f"mean AUROC of {counts}" if spoke.metric == "auroc" and sets[-1] > 1 else title(cell, cell.dataset)
        lines.append([escape(spoke.name), escape(what), escape(spoke.transform)])
    return table(lines, ("spoke", "number", "radius, values in percent"))


@in_style()
def _drawing(model: Shown, models: list[Shown], spokes: list[Spoke]) -> str:
    angles = 2 * np.pi * np.arange(len(spokes)) / len(spokes)
    figure = new_figure((3.6, 3.4))
    axes = figure.add_subplot(projection="polar")
    axes.set_theta_zero_location("N")  # type: ignore[attr-defined]
    axes.set_theta_direction(-1)  # type: ignore[attr-defined]
    for other in models:
        radii = [_radius(other, spoke) for spoke in spokes]
        own = other is model
        colour, width, above = (model.colour, 2.0, 3) if own else (LINE, 0.7, 2)
        axes.plot([*angles, angles[0]], [*radii, radii[0]], color=colour, linewidth=width, zorder=above)
        if own:  # a point alone shows what has no neighbour to be joined with
            axes.plot(angles, radii, "o", color=model.colour, markersize=3.5, zorder=4)
    axes.set_xticks(angles, [spoke.name for spoke in spokes], fontsize=8)
    axes.set_yticks((0.25, 0.5, 0.75, 1.0), ("", "0.5", "", "1"), fontsize=7, color=SOFT)
    axes.tick_params(axis="x", pad=11)
    axes.set(ylim=(0, 1))
    axes.set_title(short(model.name, 44), pad=12)
    axes.title.set(fontsize=10, parse_math=False)
    margins(figure, left=0.7, right=0.7, top=0.65)
    return svg(figure, f"Radar of {model.name}: {', '.join(_words(model, spoke) for spoke in spokes)}")


def _radius(model: Shown, spoke: Spoke) -> float:
    value = value_of(model, spoke)
    return np.nan if value is None else spoke.radius(value)


def _words(model: Shown, spoke: Spoke) -> str:
    value = value_of(model, spoke)
    return f"{spoke.name} not measured" if value is None else f"{spoke.name} {100 * value:.1f} %"
