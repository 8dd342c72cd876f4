"""Photographs: the most confident mistakes, what one model gets right and another wrong, corruptions, the test images.

In: predictions and the images of their sets. Out: HTML; how many are shown is bounded and said.
"""

from collections.abc import Sized
from html import escape
from itertools import combinations

import numpy as np

from synclones.base.page import image_figure, image_row
from synclones.evaluate.answers.predictions import ModelPredictions, SetPredictions
from synclones.evaluate.reports.class_names import ClassNames
from synclones.evaluate.reports.figures import jpeg_uri
from synclones.evaluate.test_set import TestSet

MISTAKES, PER_CLASS, MAX_CLASSES = 12, 6, 20
MAX_MODELS, MAX_PAIRS, PER_PAIR = 8, 3, 8
MAX_CORRUPTIONS, SEVERITIES = 20, (1, 3, 5)


def mistakes(models: list[ModelPredictions], names: ClassNames) -> str:
    """Return the images of the reference about which each model was surest and wrong."""
    parts = [f"<h2>The most confident mistakes</h2>{_capped(models, MAX_MODELS, 'models')}"]
    for predictions in models[:MAX_MODELS]:
        clean, test_set = predictions.clean, predictions.reference.of.test_set
        wrong = np.flatnonzero(~clean.correct)
        chosen = wrong[np.argsort(-clean.confidence[wrong], kind="stable")][:MISTAKES]
        figures = []
        for position in map(int, chosen):
            label, answer = (names.of(int(values[position])) for values in (clean.labels, clean.answers))
            caption = f"is {label}, said {answer} ({clean.confidence[position]:.0%})"
            figures.append(_figure(test_set, position, caption))
        count = f"{len(wrong)} of {len(clean)} images wrong" if len(wrong) else "no image wrong"
        parts.append(f"<p><b>{escape(predictions.model.name)}</b>: {count}</p>{image_row(figures)}")
    return "".join(parts)


def disagreements(models: list[ModelPredictions], names: ClassNames) -> str:
    """Return images of the reference that one of two models gets right and the other wrong, both ways; none of one."""
    pairs = list(combinations(models, 2))
    if not pairs:
        return ""
    parts = [
        "<h2>Right for one, wrong for the other</h2><p>Of two models, the images on which they differ and the wrong "
        f"one was surest.</p>{_capped(pairs, MAX_PAIRS, 'pairs')}"
    ]
    for first, second in pairs[:MAX_PAIRS]:
        parts += [_only(first, second, names), _only(second, first, names)]
    return "".join(parts)


def _only(right: ModelPredictions, wrong: ModelPredictions, names: ClassNames) -> str:
    """Return what the first gets right and the second wrong."""
    test_set, a, b = right.reference.of.test_set, right.clean, wrong.clean
    differ = np.flatnonzero(a.correct & ~b.correct)
    chosen = differ[np.argsort(-b.confidence[differ], kind="stable")][:PER_PAIR]
    models = [escape(predictions.model.name) for predictions in (right, wrong)]
    figures = []
    for position in map(int, chosen):
        label, answer = names.of(int(a.labels[position])), names.of(int(b.answers[position]))
        caption = f"is {label} ({a.confidence[position]:.0%}), said {answer} ({b.confidence[position]:.0%})"
        figures.append(_figure(test_set, position, caption))
    heading = f"<p><b>{models[0]}</b> right, <b>{models[1]}</b> wrong: {len(differ)} of {len(a)} images</p>"
    return f"{heading}{image_row(figures)}"


def corruptions(models: list[ModelPredictions], names: ClassNames) -> str:
    """Return one image under every corruption at severities 1, 3 and 5, with the first model's answers."""
    parts = models[0].having("corrupted") if models else []
    rows: dict[str, list[SetPredictions]] = {}
    for item in parts:
        if item.of.settings.get("severity") in SEVERITIES:
            rows.setdefault(f"{item.of.settings['corruption']} ({item.of.name})", []).append(item)
    if not rows:
        return ""
    figures = []
    for name in list(rows)[:MAX_CORRUPTIONS]:
        for item in sorted(rows[name], key=lambda item: int(item.of.settings["severity"])):
            answer = names.among(item.of.test_set.class_ids).of(int(item.answers.answers[0]))
            figures.append(_figure(item.of.test_set, 0, f"{name} {item.of.settings['severity']}: said {answer}"))
    label = names.among(parts[0].of.test_set.class_ids).of(int(parts[0].answers.labels[0]))
    return (
        f"<h2>What corruptions look like</h2><p>The first image of each set ({escape(label)} where all are of the same "
        f"images) at severities 1, 3 and 5, and what {escape(models[0].model.name)} answered.</p>"
        f"{_capped(rows, MAX_CORRUPTIONS, 'corruptions')}{image_row(figures)}"
    )


def contact_sheet(test_set: TestSet, names: ClassNames) -> str:
    """Return the first images of each class."""
    groups: dict[int, list[int]] = {}
    for position, label in enumerate(map(int, test_set.labels)):
        chosen = groups.setdefault(label, [])
        if len(chosen) < PER_CLASS:
            chosen.append(position)
    figures = []
    for label in sorted(groups)[:MAX_CLASSES]:
        figures += [_figure(test_set, position, names.of(label)) for position in groups[label]]
    more = f" {MAX_CLASSES} of {len(groups)} classes are shown." if len(groups) > MAX_CLASSES else ""
    heading = f"<h2>The test images</h2><p>The first {PER_CLASS} of each class.{more}</p>"
    return f"{heading}{image_row(figures)}"


def _capped(items: Sized, most: int, what: str) -> str:
    count = len(items)
    return f'<p class="note">The first {most} of {count} {what} are shown.</p>' if count > most else ""


def _figure(test_set: TestSet, position: int, caption: str) -> str:
    image = test_set[position]
    return image_figure(jpeg_uri(image.pixels), caption, f"sample {image.index}")
