"""Class by class: how many images of each class a model gets right, and which class it takes for which.

In: predictions on the reference. Out: HTML; how many classes and models are shown is bounded and said.
"""

from html import escape

import numpy as np

from synclones.base.page import table
from synclones.evaluate.answers.predictions import ModelPredictions
from synclones.evaluate.bounds.intervals import wilson
from synclones.evaluate.reports.class_names import ClassNames

MAX_MODELS, BARS, CONFUSIONS = 8, 12, 6
STYLE = """
.bars div{display:grid;grid-template-columns:8.5rem 1fr 10rem;gap:0 .7rem;font-size:13px;line-height:1.6}
.bars i{position:relative;height:.9em;margin-top:.35em;background:var(--panel);display:block}
.bars u{position:absolute;inset:0 auto 0 0;background:var(--c0);opacity:.55}
.bars b{position:absolute;top:50%;height:1px;background:var(--ink)}
.bars span{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
@media(max-width:560px){.bars div{grid-template-columns:5rem 1fr 10rem}}
"""


def section(models: list[ModelPredictions], names: ClassNames) -> str:
    """Return per model the classes with the fewest right answers as bars, and the most frequent confusions."""
    if not models or len(models[0].reference.of.test_set.class_ids) < 2:
        return ""
    parts = [_of_model(item, names) for item in models[:MAX_MODELS]]
    classes = len(models[0].reference.of.test_set.class_ids)
    some = f" The {BARS} worst of {classes} classes are shown." if classes > BARS else ""
    more = f" The first {MAX_MODELS} of {len(models)} models are shown." if len(models) > MAX_MODELS else ""
    return (
        "<h2>Class by class</h2><p>Share of the images of each class that are answered right, the worst first; lines "
        f"are 95 % intervals. Below, which class was most often taken for which.{some}{more}</p>"
        f'<div class="beside">{"".join(parts)}</div>'
    )


def _of_model(item: ModelPredictions, names: ClassNames) -> str:
    bars, confused = _bars(item, names), _confusions(item, names)
    return f'<div><h3>{escape(item.model.name)}</h3><div class="bars">{bars}</div>{confused}</div>'


def _bars(item: ModelPredictions, names: ClassNames) -> str:
    clean = item.clean
    classes = len(item.reference.of.test_set.class_ids)
    count = np.bincount(clean.labels, minlength=classes)
    right = np.bincount(clean.labels[clean.correct], minlength=classes)
    present = np.flatnonzero(count)
    order = present[np.argsort(right[present] / count[present], kind="stable")][:BARS]
    lines = []
    for label in map(int, order):
        share = wilson(int(right[label]), int(count[label]))
        low, high = 100 * share.low, 100 * share.high
        name = escape(names.of(label))
        lines.append(
            f'<div><span title="{escape(names.of(label), quote=True)}">{name}</span><i aria-hidden="true">'
            f'<u style="width:{100 * share.value:.1f}%"></u><b style="left:{low:.1f}%;width:{high - low:.1f}%"></b></i>'
            f"<span>{100 * share.value:.0f} % of {count[label]} [{low:.0f}, {high:.0f}]</span></div>"
        )
    return "".join(lines)


def _confusions(item: ModelPredictions, names: ClassNames) -> str:
    """Return the pairs of classes with the most wrong answers."""
    clean = item.clean
    classes = len(item.reference.of.test_set.class_ids)
    wrong = ~clean.correct
    pairs, times = np.unique(clean.labels[wrong] * classes + clean.answers[wrong], return_counts=True)
    count = np.bincount(clean.labels, minlength=classes)
    rows = []
    for position in np.argsort(-times, kind="stable")[:CONFUSIONS]:
        label, answer = divmod(int(pairs[position]), classes)
        number = f"{times[position]} of {count[label]}"
        rows.append([escape(names.of(label)), escape(names.of(answer)), number])
    return table(rows, ("is", "was taken for", "images")) if rows else "<p>No image is answered wrong.</p>"
