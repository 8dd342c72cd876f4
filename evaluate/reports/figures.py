"""The figures of a report as text: diagrams as SVG with words for those who do not see them, photographs as data URIs.

In: arrays, or drawings of matplotlib. Out: strings to put into HTML; the same arrays give the same bytes.
"""

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import simplejpeg
from matplotlib.figure import Figure
from PIL import Image

from synclones.base.page import data_uri
from synclones.base.page_style import INK, LINE, PAPER, SERIES, SOFT, of_page, themed
from synclones.evaluate.axes.calibration import Reliability
from synclones.evaluate.bounds.intervals import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from synclones.evaluate.reports.shown import Shown

OVER, UNDER = SERIES[1], SERIES[0]
"""Confidence that was not earned, and modesty."""
FEW = 30
"""Images of a bin; one with fewer is the fainter, the fewer it has."""
_STYLE: dict[Any, Any] = {
    **{"svg.hashsalt": "synclones", "svg.fonttype": "none", "font.family": "sans-serif", "grid.color": LINE},
    **{
        "axes.edgecolor": SOFT,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
    },
}
MAX_SIDE_PX = 224
"""Of photographs: a report of a hundred of them stays a file that can be sent."""


@contextmanager
def in_style() -> Iterator[None]:
    """Draw by these settings alone, whatever the caller's or a matplotlibrc's are, which hold again afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new_figure(size: tuple[float, float]) -> Figure:
    """Return an empty drawing, (width, height) in inches."""
    assert matplotlib.rcParams["svg.hashsalt"] == _STYLE["svg.hashsalt"], "drawn outside of in_style"
    return Figure(figsize=size)


def svg(figure: Figure, words: str) -> str:
    """Return a drawing as an element that says in ``words`` what it shows; the same drawing gives the same bytes."""
    # Without date and creator, and only the element: the same arrays give the same bytes inside any page.
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = themed(text.getvalue())
    start, _, rest = drawn[drawn.index("<svg") :].partition(">")
    title = re.split(r"[:.;] ", words)[0]
    label = f'<svg role="img" aria-label="{escape(words, quote=True)}"'
    return f"{label}{start.removeprefix('<svg')}><title>{escape(title)}</title>{rest}"


def plain(axes: "Axes", title: str) -> None:
    """Give a diagram its title, as it is written, and take away what is no data."""
    axes.set_title(short(title, 44))
    axes.title.set(fontsize=10, parse_math=False)
    axes.tick_params(labelsize=8)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(9)
        label.set_parse_math(False)
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
    face = PAPER if model.synthetic else model.colour
    return {"marker": model.marker, "markeredgecolor": model.colour, "markerfacecolor": face}


def legend(models: "Iterable[Shown]") -> str:
    """Return which mark stands for which model."""
    entries = (f'<span><b style="color:{of_page(m.colour)}">{m.glyph}</b> {escape(m.name)}</span>' for m in models)
    return f'<p class="legend">{" ".join(entries)}</p>'


@in_style()
def reliability_svg(diagram: Reliability, title: str) -> str:
    """Draw accuracy by confidence with an interval for each bin, and below how many images have that confidence."""
    bins = len(diagram.count)
    figure = new_figure((3.6, 3.9))
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    upper.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle="--")
    words = []
    for number in map(int, np.flatnonzero(diagram.count)):
        count, sure, right = int(diagram.count[number]), diagram.confidence[number], diagram.accuracy[number]
        centre, ink = (number + 0.5) / bins, 0.2 + 0.8 * min(1.0, count / FEW)
        # A bar from what was claimed to what came true; the interval says whether that may be chance.
        colour = OVER if sure > right else UNDER
        upper.bar(centre, right - sure, 0.86 / bins, bottom=sure, color=colour, alpha=0.45 * ink, linewidth=0)
        interval = wilson(round(right * count), count)
        upper.plot([centre] * 2, [interval.low, interval.high], color=colour, linewidth=1.2, alpha=ink)
        upper.plot([centre], [right], "o", color=colour, markersize=4, alpha=ink)
        words.append(
            f"{100 * sure:.0f} % sure, {100 * right:.0f} % right ({100 * interval.low:.0f} to "
            f"{100 * interval.high:.0f}, {count} images)"
        )
    upper.set(ylim=(0, 1), xlim=(0, 1), ylabel="accuracy")
    lower.bar((np.arange(bins) + 0.5) / bins, diagram.count, 0.86 / bins, color=SOFT)
    lower.set(ylabel="images", xlabel="confidence")
    plain(upper, title)
    plain(lower, "")
    margins(figure)
    return svg(figure, f"Confidence and accuracy of {title}: {'; '.join(words)}")


def reliability_legend() -> str:
    """Return what the marks of `reliability_svg` mean."""
    marks = (
        (SOFT, "╌", "confidence is the share of right answers"),
        (OVER, "●", "claims more than comes true"),
        (UNDER, "●", "claims less"),
        (SOFT, "│", "95 % interval"),
    )
    entries = (f'<span><b style="color:{of_page(colour)}">{glyph}</b> {text}</span>' for colour, glyph, text in marks)
    return f'<p class="legend">{" ".join(entries)}</p>'


def jpeg_uri(pixels: np.ndarray) -> str:
    """Return uint8[h, w, 3] as a JPEG data URI, made smaller where a side is longer than `MAX_SIDE_PX`."""
    longest = max(pixels.shape[:2])
    if longest > MAX_SIDE_PX:
        height, width = (max(1, round(side * MAX_SIDE_PX / longest)) for side in pixels.shape[:2])
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
    jpg = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=92, colorsubsampling="444")
    return data_uri(jpg)
