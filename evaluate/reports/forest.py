"""A dot with its interval for every model, number by number, so that one sees at once which of them overlap.

In: `Shown` models. Out: HTML without images, whose texts stay as large as others at any width.
"""

from collections.abc import Callable, Iterable
from html import escape

from synclones.base.page_style import of_page
from synclones.base.units import format_count
from synclones.evaluate.axis import metrics
from synclones.evaluate.reports.cell_text import arrow, reading_order, title, with_bounds
from synclones.evaluate.reports.names import Names
from synclones.evaluate.reports.scale import Scale
from synclones.evaluate.reports.shown import MAX_MODELS, Shown
from synclones.evaluate.stored.results import Cell

MAX_LINES = 1200
ELSEWHERE = ("accuracy_corruption_severity", "shape_bias_of_class", "shape_bias_per_class_answered")
"""What figures of their own show with its intervals."""

STYLE = """
.forest{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,520px),1fr));gap:1.2rem 2.5rem}
.forest figcaption{font-size:14px;font-weight:600;margin:0 0 .2rem}
.dot{display:grid;grid-template-columns:11rem 1fr 10.5rem;gap:0 .8rem;font-size:13px;line-height:1.55}
.dot>i{position:relative;height:1.55em;display:block;border-right:1px solid var(--line);
background:repeating-linear-gradient(to right,var(--line) 0 1px,transparent 1px calc(100%/var(--parts)))}
.dot>i u{position:absolute;top:.7em;height:2px;min-width:2px;background:currentColor}
.dot>i b{position:absolute;top:.45em;width:6px;height:6px;margin-left:-5px;
border:2px solid currentColor;border-radius:50%}
.dot>i b.full{background:currentColor}.dot>i b.hollow{background:var(--paper)}
.dot>i s{position:absolute;top:0;bottom:0;border-left:2px dashed var(--soft)}
.dot span:first-child{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.dot span:last-child{font-variant-numeric:tabular-nums}.dot .unsure{color:var(--soft)}
.ends>i{display:flex;justify-content:space-between;background:none;border:0;color:var(--soft);font-style:normal;
height:auto;margin:0 -1.5em}.ends>i small{font-size:12px;width:3em;text-align:center;white-space:nowrap}
@media(max-width:560px){.dot{grid-template-columns:1fr auto;margin-bottom:.3rem}.dot>i{grid-column:1/-1;grid-row:2}
.ends>i{margin:0 -.9em}.ends>i small{width:auto;min-width:1.8em}}
"""


def section(models: list[Shown], names: Names, chance: float | None = None) -> str:
    """Return a figure for each number, a line for each model that has it; secondary numbers can be unfolded.

    Args:
        chance: the accuracy on the reference of answers that look at no image.
    """
    groups: dict[str, list[tuple[Shown, Cell]]] = {}
    defined = ((m, c) for m in models[:MAX_MODELS] for c in m.cells if c.value is not None)
    ordered = sorted(
        (pair for pair in defined if pair[1].metric not in ELSEWHERE), key=lambda pair: reading_order(pair[1])
    )
    for model, cell in ordered:
        groups.setdefault(title(cell, names.datasets[cell.dataset_sha256]), []).append((model, cell))
    main, more, used = list[str](), list[str](), 0
    # First what models are compared in; the rest is made of the same predictions.
    for name, own in sorted(groups.items(), key=lambda group: not _compared(group[1][0][1])):
        if used + len(own) > MAX_LINES:
            break
        used += len(own)
        model, cell = own[0]
        by_chance = chance if cell.metric == "accuracy" and cell.dataset_sha256 == model.reference else None
        (main if _compared(cell) else more).append(_figure(name, own, by_chance))
    left = f" {used} of {len(ordered)} numbers are drawn; table.csv has all." if used < len(ordered) else ""
    drawn = "".join([*main, *more])
    dashed = " The dashed line is chance." if "<s " in drawn else ""
    hollow = " Hollow dots: trained on synthetic images alone." if 'class="hollow"' in drawn else ""
    others = format_count(len(more), "more number")
    folded = f'<details><summary>{others}</summary><div class="forest">{"".join(more)}</div></details>'
    return (
        "<h2>Every number with its interval</h2><p>Dots with 95 % intervals over the test images, in percent unless a "
        "unit is written; ↑ more is better, ↓ less is better. Each figure has a scale of its own that need not begin "
        f"at 0.{dashed}{hollow}{left}</p>"
        f'<div class="forest">{"".join(main)}</div>{folded if more else ""}'
    )


def _compared(cell: Cell) -> bool:
    metric = metrics().get(cell.metric)
    return metric is not None and metric.compared


def _figure(name: str, own: list[tuple[Shown, Cell]], chance: float | None) -> str:
    values = [v for _, c in own for v in (c.value, c.ci_low, c.ci_high) if v is not None]
    # Of a model below chance the line is to the right: the scale goes on as far as that.
    scale, cell = Scale(min(values), max([*values, *([] if chance is None else [chance])])), own[0][1]
    # Where all are far above it, a line at chance would leave them no room to be told apart.
    by_chance = scale.at(chance) if chance is not None and chance >= scale.ticks[0] else None
    lines = (
        line(
            escape(model.name),
            scale,
            [cell.value if bound is None else bound for bound in (cell.value, cell.ci_low, cell.ci_high)],
            escape(with_bounds(cell)),
            f"color:{of_page(model.colour)}",
            not model.synthetic,
            by_chance,
        )
        for model, cell in sorted(own, key=_best_first)
    )
    return figure(escape(name) + arrow(cell.metric), lines, scale, lambda value: _end(cell, value))


def _best_first(pair: tuple[Shown, Cell]) -> float:
    metric, value = metrics().get(pair[1].metric), pair[1].value or 0.0
    return value if metric is not None and metric.better == "less" else -value


def figure(caption: str, lines: Iterable[str], scale: Scale, printed: Callable[[float], str]) -> str:
    """Return lines above their common scale; ``caption`` is HTML, ``printed`` says a value of the scale."""
    marks = "".join(f"<small>{printed(tick)}</small>" for tick in scale.ticks)
    ends = f'<div class="dot ends" aria-hidden="true"><span></span><i>{marks}</i></div>'
    return (
        f'<figure style="--parts:{len(scale.ticks) - 1}"><figcaption>{caption}</figcaption>{"".join(lines)}{ends}'
        "</figure>"
    )


def line(
    name: str,
    scale: Scale,
    values: list[float | None],
    text: str,
    style: str,
    full: bool = True,
    mark: float | None = None,
) -> str:
    """Return one dot with its interval.

    Args:
        name: as escaped text.
        values: the value and its bounds.
        text: behind the drawing, as HTML.
        style: CSS of the drawing, its colour.
        full: whether the dot is filled.
        mark: a place to be marked, in percent of the width.
    """
    at, start, end = (scale.at(value) for value in values if value is not None)
    marked = "" if mark is None else f'<s style="left:{mark:.2f}%"></s>'
    return (
        f'<div class="dot"><span title="{name}">{name}</span><i aria-hidden="true" style="{style}">{marked}'
        f'<u style="left:{start:.2f}%;width:{end - start:.2f}%"></u>'
        f'<b class="{"full" if full else "hollow"}" style="left:{at:.2f}%"></b></i><span>{text}</span></div>'
    )


def _end(cell: Cell, value: float) -> str:
    metric = metrics().get(cell.metric)
    return f"{(metric.scale if metric else 100.0) * value:g}"
