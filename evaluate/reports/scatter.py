"""Test error against calibration error, a diagram for each set, as in Figure 3 of the paper.

In: `Shown` models. Out: HTML, and `Point`s.
"""

from synclones.evaluate.reports.figures import figure_row, in_style, legend, margins, marker, new_figure, plain, svg
from synclones.evaluate.reports.points import Point, of_cell
from synclones.evaluate.reports.shown import MAX_MODELS, Shown

MAX_SETS = 12


def points(models: list[Shown]) -> list[Point]:
    """Return error and ECE of every model on every set where both are known."""
    drawn = []
    for model in models:
        accuracies = {cell.dataset_sha256: cell for cell in model.having("accuracy")}
        for ece in sorted(model.having("ece"), key=lambda cell: cell.dataset_sha256 != model.reference):
            accuracy = accuracies.get(ece.dataset_sha256)
            if accuracy is None:
                continue
            right, low, high = of_cell(accuracy)
            y, y_low, y_high = of_cell(ece)
            drawn.append(
                Point(
                    figure="error_vs_ece",
                    panel=ece.dataset,
                    model=model.name,
                    x=1 - right,
                    x_low=None if high is None else 1 - high,
                    x_high=None if low is None else 1 - low,
                    y=y,
                    y_low=y_low,
                    y_high=y_high,
                )
            )
    return drawn


def section(models: list[Shown]) -> str:
    """Return a diagram for each set; nothing of fewer than two models."""
    known = points(models[:MAX_MODELS])
    panels = list(dict.fromkeys(point.panel for point in known))
    if len(models) < 2 or not panels:
        return ""
    more = f" The first {MAX_SETS} of {len(panels)} sets are drawn." if len(panels) > MAX_SETS else ""
    hollow = " Hollow: trained on synthetic images alone." if any(model.synthetic for model in models) else ""
    drawings = (_drawing(panel, [p for p in known if p.panel == panel], models) for panel in panels[:MAX_SETS])
    return (
        "<h2>Errors and calibration</h2><p>To the right are more wrong answers, further up is confidence that misses "
        f"the share of right ones by more: the lower left is best. Lines are 95 % intervals.{hollow}{more}</p>"
        f"{legend(models[:MAX_MODELS])}{figure_row(drawings)}"
    )


@in_style()
def _drawing(panel: str, points: list[Point], models: list[Shown]) -> str:
    figure = new_figure((3.6, 3.1))
    axes = figure.subplots()
    styles = {model.name: model for model in models}
    for point in points:
        model = styles[point.model]
        assert point.x is not None
        if point.x_low is not None and point.x_high is not None:
            axes.plot([100 * point.x_low, 100 * point.x_high], [100 * point.y] * 2, color=model.colour, linewidth=1)
        if point.y_low is not None and point.y_high is not None:
            axes.plot([100 * point.x] * 2, [100 * point.y_low, 100 * point.y_high], color=model.colour, linewidth=1)
        axes.plot([100 * point.x], [100 * point.y], linestyle="", zorder=3, markersize=7, **marker(model))
    axes.set(xlabel="test error, %", ylabel="ECE, %")
    axes.set_ylim(bottom=0)
    plain(axes, panel)
    margins(figure)
    words = "; ".join(f"{p.model}: error {100 * (p.x or 0):.1f} %, ECE {100 * p.y:.1f} %" for p in points)
    return svg(figure, f"Test error and ECE on {panel}. {words}")
