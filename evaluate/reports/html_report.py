"""One HTML file that tells what was measured to somebody who has not read the papers.

In: cells, predictions, comparisons and the test images. Out: ``report.html``, self-contained and deterministic.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from synclones.base.files import write_atomic
from synclones.base.manifest import find_parent
from synclones.base.page import SMALL_PX, page
from synclones.base.units import format_count
from synclones.evaluate.answers.predictions import ModelPredictions
from synclones.evaluate.axes.calibration import reliability
from synclones.evaluate.compare import Comparison
from synclones.evaluate.reports import (
    classes,
    curves,
    differences,
    examples,
    forest,
    model_table,
    published_section,
    radar,
    result_tables,
    scatter,
    shape,
    verdict,
)
from synclones.evaluate.reports.cell_text import TRAINED, percent
from synclones.evaluate.reports.chance import AT_CHANCE, at_chance, chance_of
from synclones.evaluate.reports.class_names import class_names
from synclones.evaluate.reports.figures import FEW, figure_row, reliability_legend, reliability_svg
from synclones.evaluate.reports.names import Names
from synclones.evaluate.reports.shown import MAX_MODELS, shown
from synclones.evaluate.stored.origins import Origin
from synclones.evaluate.stored.results import Cell
from synclones.evaluate.test_set import TestSet


@dataclass(frozen=True)
class Evaluation:
    """What a report is about: all models of a folder of results."""

    test_set: TestSet
    """The reference."""
    models: list[ModelPredictions]
    """Those whose answers to the sets of the last evaluation are known, in the order of the tables."""
    cells: list[Cell]
    """All of the folder."""
    names: Names
    """Of models and sets."""
    compared: list[Comparison]
    """Differences of the models."""
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """What is known of the models, by `Cell.model_identity`."""
    command: str = ""
    """That made the last evaluation."""


def write_report(path: Path, made: Evaluation, bins: int) -> None:
    """Write the report; ``bins`` are those of the diagrams of confidence."""
    cells, names, models, test_set = made.cells, made.names, made.models, made.test_set
    synthetic = {names.models[key]: origin.synthetic for key, origin in made.origins.items() if key in names.models}
    drawn = shown(cells, names, synthetic)
    runs = (find_parent(path.parent, origin.run) for origin in made.origins.values() if origin.run)
    called = class_names(test_set.class_ids, [test_set.folder, *(run for run in runs if run is not None)])
    guessing = at_chance(cells, names, test_set)
    marks = {names.models[cell.model_identity]: TRAINED for cell in cells if cell.trained_on_test}
    marks |= dict.fromkeys(guessing, AT_CHANCE)
    # Small images are enlarged as they are: smoothed, a reader would see what no model saw.
    is_small = max(test_set[0].pixels.shape[:2]) < SMALL_PX
    # Top down from what it comes to, by the numbers, to what they rest on: confidence, mistakes, the images themselves.
    body = [
        verdict.section(made.compared, _alone(made), guessing),
        _facts(test_set),
        forest.section(drawn, names, chance_of(test_set)),
        model_table.section(names, made.origins, path.parent, marks),
        differences.section(made.compared, _left_out(made), len(models)),
        result_tables.section(cells, names, guessing),
        result_tables.legend(cells),
        published_section.section(cells, names),
        radar.section(drawn),
        scatter.section(drawn),
        curves.section(drawn),
        shape.section(drawn),
        _diagrams(models, bins),
        classes.section(models, called),
        examples.mistakes(models, called),
        examples.disagreements(models, called),
        examples.corruptions(models, called),
        examples.contact_sheet(test_set, called),
        _made_by(made),
    ]
    count = len(names.models)
    title = f"{test_set.name}: {format_count(count, 'model')}"
    write_atomic(path, page(title, body, is_small, forest.STYLE + differences.STYLE + classes.STYLE))


def _alone(made: Evaluation) -> str:
    """Return what is said first where no two models are compared."""
    own = [c for c in made.cells if c.metric == "accuracy" and c.dataset_sha256 == made.test_set.content_hash]
    return f"{made.names.models[own[0].model_identity]} answers {percent(own[0])} % right." if own else ""


def _left_out(made: Evaluation) -> list[str]:
    """Return the models of the folder whose answers are not known."""
    own = {item.model.name for item in made.models}
    return [name for name in made.names.models.values() if name not in own]


def _facts(test_set: TestSet) -> str:
    return (
        f'<p class="facts">{len(test_set)} test images of {len(test_set.class_ids)} classes, content '
        f"{test_set.content_hash[:16]}. Intervals are 95 %: where the value would plausibly lie had other images been "
        "drawn for the test. They do not cover that a training repeated with another seed varies as well.</p>"
    )


def _diagrams(models: list[ModelPredictions], bins: int) -> str:
    figures = []
    for predictions in models[:MAX_MODELS]:
        diagram = reliability(predictions.clean.confidence, predictions.clean.correct, bins)
        figures.append(reliability_svg(diagram, predictions.model.name))
    return (
        "<h2>Does confidence mean what it says?</h2><p>Of the images with about one confidence, the share of right "
        "answers, as a dot with its 95 % interval; the bar goes to what was claimed. On the dashed line the two agree. "
        f"Fainter: fewer than {FEW} images. Below: how many images there are.</p>{reliability_legend()}"
        f"{figure_row(figures)}"
    )


def _made_by(made: Evaluation) -> str:
    """Return how the report was made: the commands that make it again and follow it back."""
    if not made.command:
        return ""
    last = max((origin.evaluated for origin in made.origins.values()), default="")
    commands = escape(f"{made.command}\nsynclones trace FOLDER")
    dated = f", {last}" if last else ""
    return (
        f"<h2>How this was made</h2><p>The last evaluation{dated}, and what shows where all of it comes from; FOLDER "
        f"is that of this report.</p><pre>{commands}</pre>"
    )
