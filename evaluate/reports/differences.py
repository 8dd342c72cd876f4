"""How models differ in each number: few pairs as dots with intervals around 0, many as a matrix of all models.

In: `Comparison`s. Out: HTML.
"""

from html import escape

from synclones.base.page import table
from synclones.evaluate.axis import metrics
from synclones.evaluate.compare import Comparison, family_note
from synclones.evaluate.reports.cell_text import arrow
from synclones.evaluate.reports.forest import figure, line
from synclones.evaluate.reports.scale import Scale
from synclones.evaluate.reports.verdict import MINUS, signed, unit

MOST_PAIRS = 6
"""Pairs whose intervals are drawn: those of four models. A matrix shows more of them at once."""
_UP, _DOWN = "<s>▲</s>", "<s>▼</s>"
OPEN = 2
"""Matrices that need not be unfolded."""
STYLE = """
.matrix table{font-size:12px;font-variant-numeric:tabular-nums}
.matrix th,.matrix td{padding:.2rem .28rem}.matrix td{text-align:right;white-space:nowrap}
.matrix tbody th{position:sticky;left:0;background:var(--paper);white-space:nowrap;max-width:10.5rem;overflow:hidden;
text-overflow:ellipsis}
td.better{background:color-mix(in srgb,var(--c0) 18%,transparent);font-weight:600}
td.worse{background:color-mix(in srgb,var(--c1) 18%,transparent);font-weight:600}
.matrix td s{font-size:9px;text-decoration:none}.matrix td.self{background:var(--panel)}
@media(max-width:560px){.matrix tbody th{max-width:7rem}}
"""


def section(compared: list[Comparison], left_out: list[str], models: int = 0) -> str:
    """Return the differences of all pairs; nothing of one model.

    Args:
        models: how many there are that could be compared; of many the first alone are.
        left_out: models of the folder that are not compared: they were not measured on all of the same images.
    """
    aside = (
        '<p class="note">Not compared, for the others saw other images or conditions: '
        f"{escape(', '.join(left_out))}. To compare all, name them in one command: what was computed is kept.</p>"
    )
    if not compared:
        return f"<h2>Differences</h2>{aside}" if left_out else ""
    numbers: dict[str, list[Comparison]] = {}
    for item in compared:
        numbers.setdefault(item.metric, []).append(item)
    named = len({name for item in compared for name in (item.first, item.second)})
    bounded = f"<b>The first {named} of {models} models are compared</b>, also in the sentences above. "
    few = max(map(len, numbers.values())) <= MOST_PAIRS
    figures = "".join(_figure(own) for own in numbers.values()) if few else ""
    drawn = f'<div class="forest">{figures}</div>' if few else _matrices(numbers)
    how = (
        "the first less the second"
        if few
        else "the model of the row less that of the column; with the interval when pointed at"
    )
    return (
        f"<h2>Differences</h2><p>{bounded if models > named else ''}"
        "All models saw the same images, so they are compared image by image (paired "
        f"bootstrap): {how}, in points unless a unit is written. A difference whose interval holds 0 is <b>inside the "
        f"noise</b>: these images cannot tell the two apart. {family_note(compared)}</p>"
        f"{drawn}{aside if left_out else ''}"
    )


def _figure(own: list[Comparison]) -> str:
    """Return the differences of few pairs in one number."""
    bounds = [v for i in own if i.difference for v in (i.difference.low, i.difference.high, 0.0)] or [-0.01, 0.01]
    scale = Scale(min(bounds), max(bounds))
    lines = []
    for item in own:
        name = f"{escape(item.first)} {MINUS} {escape(item.second)}"
        if item.difference is None:
            lines.append(f'<div class="dot"><span>{name}</span><i></i><span class="unsure">too few images</span></div>')
            continue
        d, is_clear = item.difference, item.verdict == "differs"
        numbers = f"{signed(item, d.value)} [{signed(item, d.low)}, {signed(item, d.high)}]"
        text = f"<b>{numbers}</b>" if is_clear else f'<small class="unsure">{numbers}<br>{item.verdict}</small>'
        style = f"color:var(--{'ink' if is_clear else 'soft'})"
        lines.append(line(name, scale, [d.value, d.low, d.high], text, style, is_clear, scale.at(0.0)))
    caption = f"{escape(own[0].metric)}{arrow(own[0].name)}{_in_unit(own[0])}"
    return figure(caption, lines, scale, lambda value: _end(own[0], value))


def _end(item: Comparison, value: float) -> str:
    factor = metrics()[item.name].scale if item.name in metrics() else 100.0
    return f"{factor * value:+g}".replace("-", MINUS) if value else "0"


def _in_unit(item: Comparison) -> str:
    return "" if unit(item) == " points" else f", {escape(unit(item).strip() or 'no unit')}"


def _matrices(numbers: dict[str, list[Comparison]]) -> str:
    key = (
        '<p class="legend"><span><b>▲</b> the row is clearly better</span> <span><b>▼</b> clearly worse</span> '
        "<span>plain: cannot be told apart</span></p>"
    )
    parts = []
    for position, (number, own) in enumerate(numbers.items()):
        clear = sum(item.verdict == "differs" for item in own)
        opened = " open" if position < OPEN else ""
        parts.append(
            f"<details{opened}><summary>{escape(number)}{arrow(own[0].name)}{_in_unit(own[0])}: {clear} of {len(own)} "
            f'pairs differ clearly</summary><div class="matrix">{_matrix(own)}</div></details>'
        )
    return key + "".join(parts)


def _matrix(own: list[Comparison]) -> str:
    models = list(dict.fromkeys(name for item in own for name in (item.first, item.second)))
    known = {(i.first, i.second): i for item in own for i in (item, item.reversed())}
    rows = [
        [f"{number} {escape(row)}", *(_cell(known.get((row, column)), row == column) for column in models)]
        for number, row in enumerate(models, 1)
    ]
    return table(rows, ("model", *map(str, range(1, len(models) + 1))), first="th")


def _cell(item: Comparison | None, same: bool) -> str:
    if same:
        return '<td class="self"></td>'
    if item is None or item.difference is None:
        return '<td class="noise" title="too few images">?</td>'
    d = item.difference
    tip = (
        f"{item.first} {MINUS} {item.second}: {signed(item, d.value)}, {signed(item, d.low)} to {signed(item, d.high)}"
    )
    kind, mark = "noise", ""
    if item.verdict == "differs":
        kind, mark = {True: ("better", _UP), False: ("worse", _DOWN), None: ("real", "")}[item.first_is_better]
    words = escape(f"{tip}, {item.verdict}", quote=True)
    return f'<td class="{kind}" title="{words}">{signed(item, d.value)}{mark}</td>'
