"""The drawings of a grid: every column over the number of images, or over another axis of numbers, and a radar.

In: a `Study`. Out: SVG elements that say in words what they show; the same study gives the same bytes.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from synclones.ablate.arms import Arm, kind_of, size_of
from synclones.ablate.columns import Column
from synclones.ablate.paper import count_of
from synclones.ablate.reports import words
from synclones.ablate.study import Study
from synclones.base.page_style import LINE, PAPER, SOFT
from synclones.evaluate.reports.figures import in_style, margins, new_figure, plain, short, svg
from synclones.evaluate.reports.shown import COLOURS, GLYPHS, MARKERS

MOST_LINES = 8
FEWEST_SPOKES = 5
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:/[0-9]+)?)\s*%?")


def number_axis(study: Study) -> str | None:
    """Return the axis that curves go along: that of sizes, else the first whose three values or more are numbers."""
    if study.size_axis is not None:
        return study.size_axis
    for axis, values in study.results.axes.items():
        if len(values) > 2 and all(number_of_text(value) is not None for value in values):
            return axis
    return None


def number_of_text(text: str) -> float | None:
    """Return the number that a value is (``1.5``, ``12.5 %``, ``1/8``, ``4M``); None where it is none."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return count_of(text)
    try:
        return float(Fraction(match[1]))
    except (ValueError, ZeroDivisionError):
        return None


def kinds_along(study: Study, axis: str | None) -> dict[str, list[Arm]]:
    """Return the arms by their values without that of an axis, in the order of the table."""
    kinds: dict[str, list[Arm]] = {}
    for arm in study.arms:
        kinds.setdefault(kind_of(arm.values, axis), []).append(arm)
    return kinds


def colour(number: int) -> str:
    """Return the colour of a kind in all drawings."""
    return COLOURS[number % len(COLOURS)]


def glyph(number: int) -> str:
    """Return the marker of a kind in all curves, as a character."""
    return GLYPHS[MARKERS[number % len(MARKERS)]][0]


def curves(study: Study) -> list[str]:
    """Return a drawing per column: lines by kind of data, 95 % bands, the paper's dashed; none without an axis."""
    axis = number_axis(study)
    if axis is None:
        return []
    kinds = dict(list(kinds_along(study, axis).items())[:MOST_LINES])
    return [drawn for column in study.columns if (drawn := _curve(study, column, axis, kinds))]


def _x(study: Study, axis: str, arm: Arm) -> float:
    value = arm.values[axis]
    return size_of(study.results, value) if axis == study.size_axis else number_of_text(value) or 0.0


@in_style()
def _curve(study: Study, column: Column, axis: str, kinds: dict[str, list[Arm]]) -> str:
    figure = new_figure((3.6, 2.7))
    axes = figure.subplots()
    lines = []
    for number, (kind, arms) in enumerate(kinds.items()):
        known = [(_x(study, axis, arm), arm, own) for arm in arms if (own := arm.spread(column.name)) is not None]
        style: dict[str, Any] = {"color": colour(number), "marker": MARKERS[number % len(MARKERS)], "markersize": 3.5}
        # The paper's, where a cell of it stands beside: thin and hollow, so that ours is what one sees.
        papers = [(_x(study, axis, arm), 100 * arm.paper[column.name]) for arm in arms if column.name in arm.paper]
        if papers:
            axes.plot(*zip(*papers, strict=True), "--", linewidth=0.8, markerfacecolor=PAPER, alpha=0.7, **style)
        if not known:
            continue
        bands = [(x, *interval) for x, arm, _ in known if (interval := arm.interval(column.name)) is not None]
        if bands:
            x, low, high = (np.array(values) for values in zip(*bands, strict=True))
            axes.fill_between(x, 100 * low, 100 * high, color=colour(number), alpha=0.16, linewidth=0)
        axes.plot([x for x, *_ in known], [100 * own.mean for *_, own in known], "-", linewidth=1.4, **style)
        lines.append(f"{kind} {', '.join(f'{arm.values[axis]}: {words.spread(own)}' for _, arm, own in known)}")
    if not lines:
        return ""
    _scale(study, axes, axis)
    # A band that fills the page says nothing; the drawing is of the values, and bands end at its edge.
    _limits(axes, [line for line in axes.lines])
    axes.set(xlabel=axis, ylabel=column.unit)
    plain(axes, f"{column.heading} {column.arrow}")
    margins(figure)
    return svg(figure, f"{column.heading} by {axis}: {'; '.join(lines)}")


def _scale(study: Study, axes, axis: str) -> None:  # type: ignore[no-untyped-def]
    """Put a tick at every value; sizes lie on a logarithmic axis."""
    values = study.results.axes[axis]
    if axis == study.size_axis:
        axes.set_xscale("log")
        places = [size_of(study.results, value) for value in values]
    else:
        places = [number_of_text(value) or 0.0 for value in values]
    axes.set_xticks(places, [short(value, 8) for value in values])
    axes.set_xticks([], minor=True)


def _limits(axes, lines) -> None:  # type: ignore[no-untyped-def]
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in lines])
    room = max(1.0, 0.35 * float(values.max() - values.min()))
    axes.set_ylim(max(float(values.min()) - room, min(0.0, float(values.min()))), float(values.max()) + room)


def radars(study: Study) -> list[str]:
    """Return a radar per kind of data at its largest size; none of fewer than five columns."""
    spokes = [c for c in study.columns if any(arm.numbers[c.name] for arm in study.arms)]
    if len(spokes) < FEWEST_SPOKES:
        return []
    kinds = list(kinds_along(study, number_axis(study)).values())[:MOST_LINES]
    # Of a kind whose largest size is not measured, the largest that is; its colour stays that of the curves.
    measured = [[arm for arm in arms if any(arm.numbers[c.name] for c in spokes)] for arms in kinds]
    last = {number: arms[-1] for number, arms in enumerate(measured) if arms}
    return [_radar(number, last, spokes) for number in last]


def radius(column: Column, fraction: float) -> float:
    """Return where a value lies between centre and rim, cut off at both."""
    centre, rim = column.ends
    return float(np.clip((fraction - centre) / (rim - centre), 0.0, 1.0))


@in_style()
def _radar(number: int, arms: dict[int, Arm], spokes: Sequence[Column]) -> str:
    angles = 2 * np.pi * np.arange(len(spokes)) / len(spokes)
    figure = new_figure((3.6, 3.4))
    axes = figure.add_subplot(projection="polar")
    axes.set_theta_zero_location("N")  # type: ignore[attr-defined]
    axes.set_theta_direction(-1)  # type: ignore[attr-defined]
    for other, arm in arms.items():
        spreads = [arm.spread(column.name) for column in spokes]
        radii = [np.nan if s is None else radius(c, s.mean) for c, s in zip(spokes, spreads, strict=True)]
        own = other == number
        line, width, above = (colour(number), 2.0, 3) if own else (LINE, 0.7, 2)
        axes.plot([*angles, angles[0]], [*radii, radii[0]], color=line, linewidth=width, zorder=above)
        if own:
            axes.plot(angles, radii, "o", color=line, markersize=3.5, zorder=4)
    arm = arms[number]
    papers = [radius(c, arm.paper[c.name]) if c.name in arm.paper else np.nan for c in spokes]
    axes.plot([*angles, angles[0]], [*papers, papers[0]], "--", color=colour(number), linewidth=0.9, zorder=3)
    axes.set_xticks(angles, [column.heading for column in spokes], fontsize=8)
    axes.set_yticks((0.25, 0.5, 0.75, 1.0), ("", "0.5", "", "1"), fontsize=7, color=SOFT)
    axes.tick_params(axis="x", pad=11)
    axes.set(ylim=(0, 1))
    axes.set_title(short(arm.name, 44), pad=12)
    axes.title.set(fontsize=10, parse_math=False)
    margins(figure, left=0.7, right=0.7, top=0.65)
    values = ", ".join(f"{column.heading} {words.spread(arm.spread(column.name))}" for column in spokes)
    return svg(figure, f"Radar of {arm.name}: {values}")
