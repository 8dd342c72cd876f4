"""Accuracy by severity, a small diagram for every corruption with a line for each model and its 95 % band.

In: `Shown` models. Out: HTML, and `Point`s. Severity 0 is the clean set, where the corrupted one asks the same of the
same classes.
"""

from synclones.evaluate.reports.figures import figure_row, in_style, legend, margins, new_figure, plain, svg
from synclones.evaluate.reports.points import Point, of_cell
from synclones.evaluate.reports.shown import MAX_MODELS, Shown
from synclones.evaluate.stored.results import Cell

METRIC = "accuracy_corruption_severity"
MAX_PANELS = 40


def points(models: list[Shown]) -> list[Point]:
    """Return the accuracy of every model under every corruption, by severity."""
    return [point for model in models for point in _of_model(model)]


def _of_model(model: Shown) -> list[Point]:
    cells = model.having(METRIC)
    panels = list(dict.fromkeys(_panel(cell) for cell in cells))
    # A ratio to clean accuracy exists only where both ask for the same classes, so it says which sets begin at 0.
    ratios = {str(cell.settings.get("set")): cell.dataset_sha256 for cell in model.having("r_cc")}
    clean = {cell.dataset_sha256: cell for cell in model.having("accuracy")}
    drawn = []
    for panel in panels:
        own = sorted((cell for cell in cells if _panel(cell) == panel), key=lambda cell: cell.settings["severity"])
        start = clean.get(ratios.get(str(own[0].settings["set"]), ""))
        drawn += [_point(panel, model, 0, start)] if start else []
        drawn += [_point(panel, model, cell.settings["severity"], cell) for cell in own]
    return drawn


def _panel(cell: Cell) -> str:
    return f"{cell.settings['corruption']} ({cell.settings['set']})"


def _point(panel: str, model: Shown, severity: int, cell: Cell) -> Point:
    value, low, high = of_cell(cell)
    return Point(figure="severity", panel=panel, model=model.name, x=float(severity), y=value, y_low=low, y_high=high)


def section(models: list[Shown]) -> str:
    """Return a diagram for every corruption; nothing where no set is corrupted."""
    models = models[:MAX_MODELS]
    known = points(models)
    panels = list(dict.fromkeys(point.panel for point in known))
    if not panels:
        return ""
    more = (
        f" The first {MAX_PANELS} of {len(panels)} are drawn; figures.csv has all." if len(panels) > MAX_PANELS else ""
    )
    drawings = (_drawing(panel, [p for p in known if p.panel == panel], models) for panel in panels[:MAX_PANELS])
    return (
        "<h2>Corruptions by severity</h2><p>Accuracy as images get worse, from severity 1 to 5; 0 is the clean set. "
        f"Bands are 95 % intervals, and all diagrams have the same scale.{more}</p>"
        f"{legend(models)}{figure_row(drawings)}"
    )


@in_style()
def _drawing(panel: str, points: list[Point], models: list[Shown]) -> str:
    figure = new_figure((3.6, 2.5))
    axes = figure.subplots()
    words = []
    for model in models:
        own = [point for point in points if point.model == model.name]
        if not own:
            continue
        x, y = [p.x or 0.0 for p in own], [100 * p.y for p in own]
        low, high = ([100 * (p.y if v is None else v) for p, v in zip(own, b, strict=True)] for b in _bounds(own))
        style = "--" if model.synthetic else "-"
        axes.fill_between(x, low, high, color=model.colour, alpha=0.18, linewidth=0)
        axes.plot(x, y, style, color=model.colour, marker=model.marker, markersize=3.5, linewidth=1.3)
        words.append(f"{model.name} {', '.join(f'{value:.1f} %' for value in y)}")
    axes.set(ylim=(0, 100), xlabel="severity", ylabel="accuracy, %")
    axes.set_xticks(range(0, 6))
    plain(axes, panel)
    margins(figure)
    first = min(int(p.x or 0) for p in points)
    return svg(figure, f"Accuracy under {panel} from severity {first} on: {'; '.join(words)}")


def _bounds(own: list[Point]) -> tuple[list[float | None], list[float | None]]:
    return [p.y_low for p in own], [p.y_high for p in own]
