"""The figures of a report as text: reliability diagrams as SVG, photographs as data URIs.

In: arrays. Out: strings to put into HTML; the same arrays give the same bytes.
"""

import io

import matplotlib
import numpy as np
import simplejpeg

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "synclones"
matplotlib.rcParams["font.family"] = "sans-serif"

from matplotlib.figure import Figure  # noqa: E402 - the salt must be set before

from synclones.base.page import data_uri  # noqa: E402
from synclones.evaluate.axes.calibration import Reliability  # noqa: E402

BLUE, RED, GREEN = "#4c78a8", "#e45756", "#54a24b"


def reliability_svg(diagram: Reliability, title: str) -> str:
    """Draw accuracy by confidence, and below how many images have that confidence."""
    bins = len(diagram.count)
    centre = (np.arange(bins) + 0.5) / bins
    filled = diagram.count > 0
    # Above: bars to the accuracy, and in colour how far the confidence is from it, over or under.
    figure = Figure(figsize=(3.6, 3.9))
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    upper.plot([0, 1], [0, 1], color="#999", linewidth=1, linestyle="--")
    low, gap = np.minimum(diagram.accuracy, diagram.confidence)[filled], (diagram.confidence - diagram.accuracy)[filled]
    upper.bar(centre[filled], low, 0.9 / bins, color=BLUE)
    upper.bar(centre[filled], gap.clip(0), 0.9 / bins, bottom=low, color=RED, alpha=0.45)
    upper.bar(centre[filled], (-gap).clip(0), 0.9 / bins, bottom=low, color=GREEN, alpha=0.55)
    upper.set(ylim=(0, 1), xlim=(0, 1), ylabel="accuracy", title=title)
    upper.title.set(fontsize=10, parse_math=False)
    lower.bar(centre, diagram.count, 0.9 / bins, color="#888")
    lower.set(ylabel="images", xlabel="confidence")
    for axes in (upper, lower):
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.tight_layout()
    # Without date and creator, and only the element: the same arrays give the same bytes inside any page.
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def jpeg_uri(pixels: np.ndarray) -> str:
    """Return uint8[h, w, 3] as a JPEG data URI."""
    jpg = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=92, colorsubsampling="444")
    return data_uri(jpg)
