"""The curves of trainings as SVG that takes its colours from the page, light or dark.

In: points of one quantity by training. Out: an element that says in words what it shows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 430, 220, 58, 12, 10, 34
COLOURS = 6
DASHES = ("", "6 3", "2 3")
MOST_BINS = 200  # of a line: its mean, in a band from the lowest to the highest point, so that no spike is lost
BAND_INK = 0.3  # opacity of all bands of a figure together
LARGEST = 1e300  # beyond it the span of an axis would be no number
FEW_POINTS = 30  # of which each is marked

Points = Sequence[tuple[float, float]]
Place = Callable[[float, float], tuple[float, float]]
"""(x, y) of a quantity -> (x, y) in the figure."""


def curve(title: str, lines: Mapping[str, Points], x_title: str) -> str:
    """Return a figure with a line for each training (name -> (x, y) in order of x); empty without any finite point."""
    finite = {name: [(x, y) for x, y in points if _is_drawn(y)] for name, points in lines.items()}
    everything = [point for points in finite.values() for point in points]
    if not everything:
        lost = _not_finite(lines)
        return f"<figure><figcaption>{escape(title)}</figcaption>{lost}</figure>" if lost else ""
    last = max(x for x, _ in everything) or 1.0
    ticks_y = ticks(min(y for _, y in everything), max(y for _, y in everything))
    scale_y = (HEIGHT - TOP - BOTTOM) / (ticks_y[-1] - ticks_y[0])

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / last * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - (y - ticks_y[0]) * scale_y

    parts = [_axes(last, ticks_y, at, x_title)]
    for number, points in enumerate(finite.values()):
        stretches = thinned(points)
        if len(stretches) < len(points):
            ends = [(at(x, low), at(x, high)) for x, low, _, high in stretches]
            parts.append(_band(ends, number, BAND_INK / len(finite)))
        marked = len(points) <= FEW_POINTS
        parts.append(_line([at(x, middle) for x, _, middle, _ in stretches], number, marked))
    words = f"{title} over {x_title}: " + "; ".join(_words(name, points) for name, points in finite.items())
    start = f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words)}">'
    drawn = f"{start}{''.join(parts)}</svg>"
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawn}{_not_finite(lines)}</figure>"


def _is_drawn(value: float) -> bool:
    return math.isfinite(value) and abs(value) < LARGEST


def key(names: Sequence[str]) -> str:
    """Return which line is whose; ``names`` are HTML."""
    items = (
        f'<li><svg viewBox="0 0 32 12" aria-hidden="true">{_stroke("M0 6H32", n)}</svg>{name}</li>'
        for n, name in enumerate(names)
    )
    return f'<ul class="key">{"".join(items)}</ul>'


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return about as many round numbers as asked for, evenly apart, from at most ``low`` to at least ``high``."""
    size = max(abs(low), abs(high))
    span = high - low if high - low > 1e-9 * size else size
    span = span if span > 1 / LARGEST else 1.0
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def thinned(points: Points) -> list[tuple[float, float, float, float]]:
    """Return (x, lowest, mean, highest y) of each of a few hundred stretches; of few points each is one of its own."""
    if len(points) <= 2 * MOST_BINS:
        return [(x, y, y, y) for x, y in points]
    edges = [len(points) * number // MOST_BINS for number in range(MOST_BINS + 1)]
    stretches = [points[begin:end] for begin, end in zip(edges, edges[1:], strict=False)]
    ys = [[y for _, y in stretch] for stretch in stretches]
    return [
        (stretch[-1][0], min(own), math.fsum(own) / len(own), max(own))
        for stretch, own in zip(stretches, ys, strict=True)
    ]


def short(value: float) -> str:
    """Return a number at an axis: ``1.2M``, ``250k``, ``0.05``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.4g}{unit}"
    return f"{value:.4g}" if abs(value) > 1e-12 else "0"


def _axes(last: float, ticks_y: list[float], at: Place, x_title: str) -> str:
    left, base = at(0.0, ticks_y[0])
    parts = []
    for tick in ticks_y:
        y = at(0.0, tick)[1]
        parts.append(f'<path class="grid" d="M{left:.1f} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{left - 7:.1f}" y="{y + 4:.1f}" text-anchor="end">{short(tick)}</text>')
    for tick in ticks(0.0, last):
        if tick <= last:
            x = at(tick, ticks_y[0])[0]
            parts.append(f'<text x="{x:.1f}" y="{base + 15:.1f}" text-anchor="middle">{short(tick)}</text>')
    middle = (left + WIDTH - RIGHT) / 2
    return "".join(parts) + f'<text x="{middle:.0f}" y="{HEIGHT - 3}" text-anchor="middle">{escape(x_title)}</text>'


def _band(ends: Sequence[tuple[tuple[float, float], tuple[float, float]]], number: int, ink: float) -> str:
    """Return the area between the lowest and the highest points."""
    outline = [low for low, _ in ends] + [high for _, high in reversed(ends)]
    return f'<path class="band c{number % COLOURS}" fill-opacity="{ink:.2f}" d="{_path(outline)}Z"/>'


def _line(points: Sequence[tuple[float, float]], number: int, marked: bool) -> str:
    if not points:
        return ""
    colour = f"mark c{number % COLOURS}"
    marks = "".join(f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points)
    return _stroke(_path(points), number) + (marks if marked else "")


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _stroke(path: str, number: int) -> str:
    dash = DASHES[number // COLOURS % len(DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path class="line c{number % COLOURS}" d="{path}"{dashed}/>'


def _words(name: str, points: Points) -> str:
    return f"{name} from {points[0][1]:.4g} to {points[-1][1]:.4g}" if points else f"{name} without a number"


def _not_finite(lines: Mapping[str, Points]) -> str:
    """Return a warning for each training with values that are no numbers: since when, or how many there were."""
    words = []
    for name, points in lines.items():
        lost = [number for number, (_, y) in enumerate(points) if not _is_drawn(y)]
        if lost and lost == list(range(lost[0], len(points))):
            words.append(f"{name}: no finite number from {short(points[lost[0]][0])} images on")
        elif lost:
            where = short(points[lost[0]][0])
            words.append(f"{name}: no finite number at {len(lost)} of {len(points)} points, first at {where} images")
    return f'<p class="warning">{escape("; ".join(words))}</p>' if words else ""
