"""The figures of a report as text: diagrams as SVG with words for those who do not see them, photographs as data URIs.

In: arrays, or drawings of matplotlib. Out: strings to put into HTML; the same arrays give the same bytes.
"""

import io
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import simplejpeg
from PIL import Image

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "synclones"
matplotlib.rcParams["svg.fonttype"] = "none"
matplotlib.rcParams["font.family"] = "sans-serif"

from matplotlib.figure import Figure  # noqa: E402 - the salt must be set before

from synclones.base.page import data_uri  # noqa: E402
from synclones.evaluate.axes.calibration import Reliability  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from synclones.evaluate.reports.shown import Shown

BLUE, RED, GREEN = "#4c78a8", "#e45756", "#54a24b"
MAX_SIDE_PX = 224
"""Of photographs: a report of a hundred of them stays a file that can be sent."""


def new_figure(size: tuple[float, float]) -> Figure:
    """Return an empty drawing, (width, height) in inches."""
    return Figure(figsize=size)


def svg(figure: Figure, words: str) -> str:
    """Return a drawing as an element that says in ``words`` what it shows; the same drawing gives the same bytes."""
    # Without date and creator, and only the element: the same arrays give the same bytes inside any page.
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    element = drawn[drawn.index("<svg") :]
    return f'<svg role="img" aria-label="{escape(words, quote=True)}"{element.removeprefix("<svg")}'


def plain(axes: "Axes", title: str) -> None:
    """Give a diagram its title, as it is written, and take away what is no data."""
    axes.set_title(short(title, 44))
    axes.title.set(fontsize=10, parse_math=False)
    axes.tick_params(labelsize=8)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def margins(figure: Figure, left: float = 0.55, top: float = 0.3, bottom: float = 0.45, right: float = 0.12) -> None:
    """Leave room for what stands around the diagrams, in inches: measuring texts would take longer than drawing."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)


def short(text: str, most: int = 20) -> str:
    """Return a name as far as a diagram has room; legends and words have the whole."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def figure_row(drawings: Iterable[str]) -> str:
    """Return drawings side by side, as many as the width holds."""
    return f'<div class="figures">{"".join(drawings)}</div>'


def marker(model: "Shown") -> dict[str, Any]:
    """Return how a model's points look, as matplotlib takes it: hollow where it is synthetic."""
    face = "white" if model.synthetic else model.colour
    return {"marker": model.marker, "markeredgecolor": model.colour, "markerfacecolor": face}


def legend(models: "Iterable[Shown]") -> str:
    """Return which mark stands for which model."""
    entries = (f'<span><b style="color:{m.colour}">{m.glyph}</b> {escape(m.name)}</span>' for m in models)
    return f'<p class="legend">{" ".join(entries)}</p>'


def reliability_svg(diagram: Reliability, title: str) -> str:
    """Draw accuracy by confidence, and below how many images have that confidence."""
    bins = len(diagram.count)
    centre = (np.arange(bins) + 0.5) / bins
    filled = diagram.count > 0
    # Above: bars to the accuracy, and in colour how far the confidence is from it, over or under.
    figure = new_figure((3.6, 3.9))
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    upper.plot([0, 1], [0, 1], color="#999", linewidth=1, linestyle="--")
    low, gap = np.minimum(diagram.accuracy, diagram.confidence)[filled], (diagram.confidence - diagram.accuracy)[filled]
    upper.bar(centre[filled], low, 0.9 / bins, color=BLUE)
    upper.bar(centre[filled], gap.clip(0), 0.9 / bins, bottom=low, color=RED, alpha=0.45)
    upper.bar(centre[filled], (-gap).clip(0), 0.9 / bins, bottom=low, color=GREEN, alpha=0.55)
    upper.set(ylim=(0, 1), xlim=(0, 1), ylabel="accuracy")
    lower.bar(centre, diagram.count, 0.9 / bins, color="#888")
    lower.set(ylabel="images", xlabel="confidence")
    plain(upper, title)
    plain(lower, "")
    margins(figure)
    means = (
        f"{100 * c:.0f} % sure, {100 * a:.0f} % right ({n} images)"
        for c, a, n in zip(diagram.confidence[filled], diagram.accuracy[filled], diagram.count[filled], strict=True)
    )
    return svg(figure, f"Confidence and accuracy of {title}: {'; '.join(means)}")


def jpeg_uri(pixels: np.ndarray) -> str:
    """Return uint8[h, w, 3] as a JPEG data URI, made smaller where a side is longer than `MAX_SIDE_PX`."""
    longest = max(pixels.shape[:2])
    if longest > MAX_SIDE_PX:
        height, width = (max(1, round(side * MAX_SIDE_PX / longest)) for side in pixels.shape[:2])
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
    jpg = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=92, colorsubsampling="444")
    return data_uri(jpg)
