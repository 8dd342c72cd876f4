"""One HTML file that tells what was measured to somebody who has not read the papers.

In: cells, predictions, comparisons and the test images. Out: ``report.html``, self-contained and deterministic.
"""

from html import escape
from pathlib import Path

import numpy as np

from synclones.base.files import write_atomic
from synclones.base.page import SMALL_PX, image_figure, image_row, page, table
from synclones.evaluate.axes.calibration import reliability
from synclones.evaluate.axis import Metric, metrics
from synclones.evaluate.compare import Comparison, chance
from synclones.evaluate.predict import TestSet
from synclones.evaluate.predictions import ModelPredictions
from synclones.evaluate.reports.figures import jpeg_uri, reliability_svg
from synclones.evaluate.reports.tables import (
    TRAINED,
    Names,
    columns,
    percent,
    rows,
    sections,
    trained,
    trained_note,
)
from synclones.evaluate.results import Cell

MISTAKES, PER_CLASS, MAX_CLASSES = 12, 6, 20


def write_report(
    path: Path,
    test_set: TestSet,
    models: list[ModelPredictions],
    cells: list[Cell],
    names: Names,
    compared: list[Comparison],
    bins: int,
) -> None:
    """Write the report: all ``cells`` of the folder as tables, and what ``models`` did on ``test_set`` in detail.

    ``bins`` are those of the diagrams of confidence.
    """
    n = len(test_set)
    # Small images are enlarged as they are: smoothed, a reader would see what no model saw.
    is_small = max(test_set[0].pixels.shape[:2]) < SMALL_PX
    # Top down from the numbers to what they rest on: words, differences, confidence, mistakes, the images themselves.
    title = f"{test_set.name}: {len(models)} model{'s' if len(models) > 1 else ''}"
    body = [
        f'<p class="facts">{n} test images of {len(test_set.class_ids)} classes, content '
        f"{test_set.content_hash[:16]}. Small grey numbers are 95 % intervals: where the value would plausibly lie had "
        "other images been drawn for the test. They do not cover that a training repeated with another seed varies as "
        "well.</p>",
        _tables(cells, names),
        _legend(cells),
        _whose(models, cells),
        _comparisons(models, compared),
        _diagrams(models, bins),
        _mistakes(test_set, models),
        _contact_sheet(test_set),
    ]
    write_atomic(path, page(title, body, is_small))


def _tables(cells: list[Cell], names: Names) -> str:
    """Return a table per data set, with its name where there are several."""
    parts = sections(cells, names)
    tables = [
        (f"<h3>on {escape(name)}</h3>" if len(parts) > 1 else "") + _table(own, names) for name, own in parts.items()
    ]
    note = f'<p class="warning">{escape(trained_note(cells).strip())}</p>' if trained_note(cells) else ""
    return f"<h2>Results, in percent</h2>{''.join(tables)}{note}"


def _table(cells: list[Cell], names: Names) -> str:
    heads, seen = columns(cells), trained(cells, names)
    mark = f'<small class="warning">{TRAINED}</small>'
    lines = []
    for model, row in rows(cells, names).items():
        numbers = (_with_interval(percent(row[head])) if head in row else "" for head in heads)
        lines.append([escape(model) + (mark if model in seen else ""), *numbers])
    return table(lines, ("model", *heads), numbers=True)


def _whose(models: list[ModelPredictions], cells: list[Cell]) -> str:
    """Say whom the rest of the page is about, where the tables hold more than that."""
    if len(models) == len({(cell.model_identity, cell.dataset_sha256) for cell in cells}):
        return ""
    names = ", ".join(escape(predictions.model.name) for predictions in models)
    return (
        f'<p class="note">What follows is about the evaluation that was made last: {names}. To compare these with '
        "others of the folder, name all of them in one command: what was computed is kept.</p>"
    )


def _with_interval(text: str) -> str:
    value, bracket, interval = text.partition(" [")
    return f"{value}<small>{bracket.strip()}{interval}</small>" if bracket else escape(text)


def _legend(cells: list[Cell]) -> str:
    entries = []
    for metric in metrics().values():
        own = [cell for cell in cells if cell.metric == metric.name]
        if own:
            detail = _detail(metric, own[0])
            entries.append(f"<dt>{escape(metric.title + detail)}</dt><dd>{escape(metric.explanation)}</dd>")
    return f"<h2>What the columns mean</h2><dl>{''.join(entries)}</dl>"


def _detail(metric: Metric, cell: Cell) -> str:
    try:
        return f" ({metric.detail.format_map(cell.settings)})" if metric.detail else ""
    except (KeyError, ValueError, TypeError):  # a cell of another version
        return ""


def _comparisons(models: list[ModelPredictions], compared: list[Comparison]) -> str:
    if len(models) < 2:
        return ""
    metrics = list(dict.fromkeys(item.metric for item in compared))
    some = len({name for item in compared for name in (item.first, item.second)})
    capped = f" The first {some} of {len(models)} models are compared." if some < len(models) else ""
    pairs: dict[tuple[str, str], dict[str, Comparison]] = {}
    for item in compared:
        pairs.setdefault((item.first, item.second), {})[item.metric] = item
    lines = [
        [f"{escape(first)} &minus; {escape(second)}", *(_verdict(row[metric]) for metric in metrics)]
        for (first, second), row in pairs.items()
    ]
    return (
        "<h2>Which differences are real</h2><p>Both models saw the same images, so they are compared image by image "
        "(paired bootstrap), in percentage points. A difference whose interval holds 0 is <b>inside the noise</b>: "
        f"this test set cannot tell the two apart. {chance(compared)}{capped}</p>"
        f"{table(lines, ('first minus second', *metrics), numbers=True)}"
    )


def _verdict(item: Comparison) -> str:
    if item.difference is None:
        return '<td class="noise">undefined<small>too few images</small></td>'
    d = item.difference
    kind, words = ("noise", "inside the noise") if d.inside_noise else ("real", "")
    numbers = f"{100 * d.value:+.1f}<small>[{100 * d.low:+.1f}, {100 * d.high:+.1f}] {words}</small>"
    return f'<td class="{kind}">{numbers}</td>'


def _diagrams(models: list[ModelPredictions], bins: int) -> str:
    figures = []
    for predictions in models:
        diagram = reliability(predictions.clean.confidence, predictions.clean.correct, bins)
        figures.append(reliability_svg(diagram, predictions.model.name))
    return (
        "<h2>Does confidence mean what it says?</h2><p>Each bar: the images with about that confidence, and how many "
        "of them were right. On the dashed line the two agree. Red is confidence that was not earned, green is "
        "modesty. Below: how many images the bar stands for.</p>"
        f'<div class="figures">{"".join(figures)}</div>'
    )


def _mistakes(test_set: TestSet, models: list[ModelPredictions]) -> str:
    sections, names = ["<h2>The most confident mistakes</h2>"], test_set.class_ids
    for predictions in models:
        clean = predictions.clean
        wrong = np.flatnonzero(~clean.correct)
        chosen = wrong[np.argsort(-clean.confidence[wrong], kind="stable")][:MISTAKES]
        figures = []
        for position in map(int, chosen):
            label, answer = names[clean.labels[position]], names[clean.logits[position].argmax()]
            caption = f"is {label}, said {answer} ({clean.confidence[position]:.0%})"
            figures.append(_figure(test_set, position, caption))
        count = f"{len(wrong)} of {len(clean)} images wrong" if len(wrong) else "no image wrong"
        name = escape(predictions.model.name)
        sections.append(f"<p><b>{name}</b>: {count}</p>{image_row(figures)}")
    return "".join(sections)


def _contact_sheet(test_set: TestSet) -> str:
    groups: dict[int, list[int]] = {}
    for position in range(len(test_set)):
        chosen = groups.setdefault(test_set.label(position), [])
        if len(chosen) < PER_CLASS:
            chosen.append(position)
    shown_classes = sorted(groups)[:MAX_CLASSES]
    figures = []
    for label in shown_classes:
        figures += [_figure(test_set, position, test_set.class_ids[label]) for position in groups[label]]
    more = f" {MAX_CLASSES} of {len(groups)} classes are shown." if len(groups) > MAX_CLASSES else ""
    heading = f"<h2>The test images</h2><p>The first {PER_CLASS} of each class.{more}</p>"
    return f"{heading}{image_row(figures)}"


def _figure(test_set: TestSet, position: int, caption: str) -> str:
    image = test_set[position]
    return image_figure(jpeg_uri(image.pixels), caption, f"sample {image.index}")
