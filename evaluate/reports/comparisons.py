"""Which numbers of two models differ by more than chance.

In: `Comparison`s. Out: HTML.
"""

from html import escape

from synclones.base.page import table
from synclones.evaluate.answers.predictions import ModelPredictions
from synclones.evaluate.axis import metrics
from synclones.evaluate.compare import Comparison, chance
from synclones.evaluate.reports.grids import MOST_COLUMNS


def section(models: list[ModelPredictions], compared: list[Comparison]) -> str:
    """Return the differences of all pairs, in tables of few columns; nothing of one model."""
    if len(models) < 2:
        return ""
    numbers = list(dict.fromkeys(item.metric for item in compared))
    some = len({name for item in compared for name in (item.first, item.second)})
    capped = f" The first {some} of {len(models)} models are compared." if some < len(models) else ""
    pairs: dict[tuple[str, str], dict[str, Comparison]] = {}
    for item in compared:
        pairs.setdefault((item.first, item.second), {})[item.metric] = item
    tables = []
    for start in range(0, len(numbers), MOST_COLUMNS):
        part = numbers[start : start + MOST_COLUMNS]
        lines = [
            [f"{escape(first)} &minus; {escape(second)}", *(_verdict(row.get(number)) for number in part)]
            for (first, second), row in pairs.items()
        ]
        tables.append(table(lines, ("first minus second", *part), numbers=True))
    return (
        "<h2>Which differences are real</h2><p>Both models saw the same images, so they are compared image by image "
        "(paired bootstrap), in percentage points. A difference whose interval holds 0 is <b>inside the noise</b>: "
        f"this test set cannot tell the two apart. {chance(compared)}{capped}</p>{''.join(tables)}"
    )


def _verdict(item: Comparison | None) -> str:
    if item is None:
        return ""
    if item.difference is None:
        return '<td class="noise">undefined<small>too few images</small></td>'
    d, scale, unit = item.difference, *_scale(item.metric)
    kind, words = ("noise", "inside the noise") if d.inside_noise else ("real", "")
    low, high = f"{scale * d.low:+.{_digits(scale)}f}", f"{scale * d.high:+.{_digits(scale)}f}"
    return f'<td class="{kind}">{scale * d.value:+.{_digits(scale)}f}{unit}<small>[{low}, {high}] {words}</small></td>'


def _scale(heading: str) -> tuple[float, str]:
    """Return what a number is multiplied by, and its unit where that is not points: of the metric of this heading."""
    metric = next((metric for metric in metrics().values() if heading.split(" on ")[0] == metric.heading), None)
    if metric is None or metric.scale == 100.0:
        return 100.0, ""
    return metric.scale, f" {metric.unit_short}".rstrip()


def _digits(scale: float) -> int:
    return 1 if scale == 100.0 else 3
