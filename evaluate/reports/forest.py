"""Every number with its interval on a line, so that one sees at once which of them overlap.

In: `Shown` models. Out: HTML without images: a line for every number, at any width.
"""

from collections.abc import Iterable
from html import escape

from synclones.evaluate.axis import metrics
from synclones.evaluate.reports.cell_text import percent, reading_order, title
from synclones.evaluate.reports.names import Names
from synclones.evaluate.reports.shown import MAX_MODELS, Shown
from synclones.evaluate.stored.results import Cell

MAX_LINES = 700
ELSEWHERE = ("accuracy_corruption_severity", "shape_bias_of_class", "shape_bias_per_class_answered")
"""What figures of their own show with its intervals."""

STYLE = """
.forest h4{margin:.6rem 0 0;font-size:13px;font-weight:600}
.forest p{display:grid;grid-template-columns:15rem 1fr 15rem;gap:0 .8rem;margin:0;max-width:none;font-size:12.5px}
.forest i{position:relative;height:1.4em;border:solid #ccc;border-width:0 1px;display:block}
.forest u{position:absolute;top:.62em;height:2px;min-width:2px}
.forest b{position:absolute;top:.4em;width:8px;height:8px;margin-left:-4px;border-radius:50%}
.forest small{color:#777;white-space:nowrap}.legend span{margin-right:1rem;white-space:nowrap}
@media(max-width:560px){.forest p{grid-template-columns:1fr auto;margin-bottom:.3rem}
.forest i{grid-column:1/-1;grid-row:2}
table{font-size:12px}th,td{padding-right:.5rem}td small{white-space:normal}}
"""


def section(models: list[Shown], names: Names) -> str:
    """Return a group of lines for each number, a line for each model that has it."""
    models = models[:MAX_MODELS]
    groups: dict[str, list[tuple[Shown, Cell]]] = {}
    defined = ((m, c) for m in models for c in m.cells if c.value is not None and c.metric not in ELSEWHERE)
    ordered = sorted(defined, key=lambda pair: reading_order(pair[1]))
    for model, cell in ordered:
        groups.setdefault(title(cell, names.datasets[cell.dataset_sha256]), []).append((model, cell))
    lines, used = [], 0
    for name, own in groups.items():
        if used + len(own) > MAX_LINES:
            break
        used += len(own)
        lines.append(f"<h4>{escape(name)}</h4>{''.join(_lines(own))}")
    left = len(ordered) - used
    more = f" {used} of {len(ordered)} numbers are drawn; table.csv has all." if left else ""
    return (
        "<h2>Every number with its interval</h2><p>Lines are 95 % intervals, from 0 to 100 % unless other ends are "
        f"written. Single severities and classes are in the figures above.{more}</p>"
        f'<div class="forest">{"".join(lines)}</div>'
    )


def _lines(own: list[tuple[Shown, Cell]]) -> Iterable[str]:
    low, high = ends([cell for _, cell in own])
    for model, cell in own:
        assert cell.value is not None
        bounds = [cell.value if bound is None else bound for bound in (cell.ci_low, cell.ci_high)]
        at, start, end = (100 * (value - low) / (high - low) for value in (cell.value, *bounds))
        scale = "" if (low, high) == (0.0, 1.0) else f" <small>({_end(cell, low)} to {_end(cell, high)})</small>"
        yield (
            f"<p><span>{escape(model.name)}{scale}</span>"
            f'<i><u style="left:{start:.2f}%;width:{end - start:.2f}%;background:{model.colour}"></u>'
            f'<b style="left:{at:.2f}%;background:{model.colour}"></b></i><span>{escape(percent(cell))}</span></p>'
        )


def ends(cells: list[Cell]) -> tuple[float, float]:
    """Return where lines begin and end: 0 to 1 where it holds all of them, else what does and is round."""
    values = [v for cell in cells for v in (cell.value, cell.ci_low, cell.ci_high) if v is not None]
    if min(values) >= 0 and max(values) <= 1:
        return 0.0, 1.0
    return min(0.0, min(values)), max(1.0, max(values))


def _end(cell: Cell, value: float) -> str:
    metric = metrics().get(cell.metric)
    return metric.printed(value) if metric else f"{100 * value:.1f}"
