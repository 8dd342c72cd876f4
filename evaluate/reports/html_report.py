"""One HTML file that tells what was measured to somebody who has not read the papers.

In: cells, predictions, comparisons and the test images. Out: ``report.html``, self-contained and deterministic.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from synclones.base.files import write_atomic
from synclones.base.page import SMALL_PX, page
from synclones.evaluate.answers.predictions import ModelPredictions
from synclones.evaluate.axes.calibration import reliability
from synclones.evaluate.compare import Comparison
from synclones.evaluate.reports import (
    comparisons,
    curves,
    examples,
    forest,
    published_section,
    radar,
    result_tables,
    scatter,
    shape,
)
from synclones.evaluate.reports.figures import figure_row, reliability_svg
from synclones.evaluate.reports.names import Names
from synclones.evaluate.reports.shown import MAX_MODELS, shown
from synclones.evaluate.stored.results import Cell
from synclones.evaluate.test_set import TestSet


def write_report(
    path: Path,
    test_set: TestSet,
    models: list[ModelPredictions],
    cells: list[Cell],
    names: Names,
    compared: list[Comparison],
    bins: int,
    synthetic: Mapping[str, bool] = MappingProxyType({}),
) -> None:
    """Write the report: all ``cells`` of the folder as tables and figures, and in detail what ``models`` did.

    Args:
        path: of the file.
        test_set: the reference.
        models: of the evaluation that was made last.
        cells: of the folder.
        names: of models and sets.
        compared: differences of the models.
        bins: of the diagrams of confidence.
        synthetic: name of a model -> whether it is trained on synthetic images alone, where that is known.
    """
    drawn = shown(cells, names, synthetic)
    # Small images are enlarged as they are: smoothed, a reader would see what no model saw.
    is_small = max(test_set[0].pixels.shape[:2]) < SMALL_PX
    # Top down from the numbers to what they rest on: words, differences, confidence, mistakes, the images themselves.
    title = f"{test_set.name}: {len(models)} model{'s' if len(models) > 1 else ''}"
    body = [
        f'<p class="facts">{len(test_set)} test images of {len(test_set.class_ids)} classes, content '
        f"{test_set.content_hash[:16]}. Small grey numbers are 95 % intervals: where the value would plausibly lie had "
        "other images been drawn for the test. They do not cover that a training repeated with another seed varies as "
        "well.</p>",
        radar.section(drawn),
        result_tables.section(cells, names),
        result_tables.legend(cells),
        published_section.section(cells, names),
        scatter.section(drawn),
        curves.section(drawn),
        shape.section(drawn),
        forest.section(drawn, names),
        result_tables.whose(models, cells),
        comparisons.section(models, compared),
        _diagrams(models, bins),
        examples.mistakes(models),
        examples.disagreements(models),
        examples.corruptions(models),
        examples.contact_sheet(test_set),
    ]
    write_atomic(path, page(title, body, is_small, forest.STYLE))


def _diagrams(models: list[ModelPredictions], bins: int) -> str:
    figures = []
    for predictions in models[:MAX_MODELS]:
        diagram = reliability(predictions.clean.confidence, predictions.clean.correct, bins)
        figures.append(reliability_svg(diagram, predictions.model.name))
    return (
        "<h2>Does confidence mean what it says?</h2><p>Each bar: the images with about that confidence, and how many "
        "of them were right. On the dashed line the two agree. Red is confidence that was not earned, green is "
        f"modesty. Below: how many images the bar stands for.</p>{figure_row(figures)}"
    )
