"""Shape bias of every model as bars, and class by class as points, as in Figure 4 of the paper.

In: `Shown` models. Out: HTML, and `Point`s. Classes are counted in two ways, which are both named: by the image's
shape, as Geirhos et al. do, and by the answer, as the papers' code does (D10).
"""

import numpy as np

from synclones.base.page_style import INK, PAPER
from synclones.evaluate.reports.figures import (
    figure_row,
    in_style,
    legend,
    margins,
    marker,
    new_figure,
    plain,
    short,
    svg,
)
from synclones.evaluate.reports.points import Point, of_cell
from synclones.evaluate.reports.shown import MAX_MODELS, Shown
from synclones.evaluate.stored.results import Cell

PANELS = {
    "shape_bias_of_class": "by the class of the image's shape",
    "shape_bias_per_class_answered": "by the answered class (D10)",
}


def points(models: list[Shown]) -> list[Point]:
    """Return the bias of every model, and of every class in each way of counting."""
    bars = [_point("shape_bias", "", model, cell) for model in models for cell in model.having("shape_bias")]
    return bars + [
        _point("shape_bias_by_class", PANELS[metric], model, cell)
        for metric in PANELS
        for model in models
        for cell in model.having(metric)
    ]


def _point(figure: str, panel: str, model: Shown, cell: Cell) -> Point:
    value, low, high = of_cell(cell)
    label = str(cell.settings.get("class", ""))
    return Point(figure=figure, panel=panel, model=model.name, label=label, y=value, y_low=low, y_high=high)


def section(models: list[Shown]) -> str:
    """Return bars, and a diagram for each way of counting classes; nothing where the bias is not measured."""
    models = models[:MAX_MODELS]
    known = points(models)
    bars = [point for point in known if point.figure == "shape_bias"]
    if not bars:
        return ""
    drawings = [_bars(bars, models)]
    for panel in PANELS.values():
        own = [point for point in known if point.panel == panel]
        drawings += [_classes(panel, own, models)] if own else []
    dashed = " Dashed: trained on synthetic images alone." if any(model.synthetic for model in models) else ""
    return (
        "<h2>Shape or texture</h2><p>Of images with the shape of one class and the texture of another, the share of "
        "answers by shape among answers by either; people have about 96 %. Class by class there are two ways of "
        "counting: under the class of the image's shape, or under the class that was answered. Lines across are "
        f"means of a model over its classes.{dashed}</p>{legend(models)}{figure_row(drawings)}"
    )


@in_style()
def _bars(bars: list[Point], models: list[Shown]) -> str:
    figure = new_figure((3.6, 0.8 + 0.3 * len(bars)))
    axes = figure.subplots()
    styles = {model.name: model for model in models}
    for line, bar in enumerate(bars):
        model = styles[bar.model]
        style, face = ("--", PAPER) if model.synthetic else ("-", model.colour)
        axes.barh(line, 100 * bar.y, 0.7, edgecolor=model.colour, linewidth=1.2, linestyle=style, facecolor=face)
        if bar.y_low is not None and bar.y_high is not None:
            axes.plot([100 * bar.y_low, 100 * bar.y_high], [line, line], color=INK, linewidth=1)
    axes.set_yticks(range(len(bars)), [short(bar.model) for bar in bars])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="shape bias, %")
    plain(axes, "all classes")
    margins(figure, left=_room([bar.model for bar in bars]))
    return svg(figure, f"Shape bias: {'; '.join(f'{bar.model} {100 * bar.y:.1f} %' for bar in bars)}")


def _room(names: list[str]) -> float:
    """Return the width that names take beside a diagram, in inches."""
    return 0.25 + 0.072 * max(len(short(name)) for name in names)


@in_style()
def _classes(panel: str, points: list[Point], models: list[Shown]) -> str:
    names = list(dict.fromkeys(point.label for point in points))
    figure = new_figure((3.6, 1.2 + 0.26 * len(names)))
    axes = figure.subplots()
    words = []
    for model in models:
        own = {point.label: 100 * point.y for point in points if point.model == model.name}
        if not own:
            continue
        lines = [names.index(label) for label in own]
        axes.plot(list(own.values()), lines, linestyle="", markersize=5, **marker(model))
        mean = float(np.mean(list(own.values())))
        axes.axvline(mean, color=model.colour, linewidth=1, linestyle="--" if model.synthetic else "-")
        each = ", ".join(f"{label} {value:.1f} %" for label, value in own.items())
        words.append(f"{model.name}: {each}, mean {mean:.1f} %")
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    for text in axes.get_yticklabels():
        text.set_parse_math(False)
    axes.invert_yaxis()
    axes.set(xlim=(0, 100), xlabel="shape bias, %")
    plain(axes, panel)
    margins(figure, left=_room(names))
    return svg(figure, f"Shape bias of classes, {panel}. {'; '.join(words)}")
