"""Compares clean accuracies with what is published of the same model: another number means other weights or pixels.

In: cells of results. Out: a line for every model of the paper whose accuracy on ImageNet's 50,000 images is another.
"""

from collections.abc import Iterable

from synclones.evaluate.published.beside import published_of
from synclones.evaluate.published.tables import FIGURES
from synclones.evaluate.stored.results import Cell

IMAGES = 50_000
SLACK = 0.0002
"""Between the papers' own logs of one model lie 0.02 points."""
OWN_WAY = 0.025
"""What another preparation of the images moves: 0.2 to 2.4 points among the paper's models."""


def unexpected(cells: Iterable[Cell]) -> list[str]:
    """Return a line for each clean accuracy that is not the published one, within what its protocol may move it."""
    lines = []
    for cell in cells:
        published = published_of(cell.model, cell) if cell.metric == "accuracy" and cell.n == IMAGES else None
        if published is None or published.table == FIGURES or cell.value is None:
            continue
        # All of the code's ways of preparing the reference are followed, or some of them, or none.
        slack = SLACK + published.step if "D9" in cell.deviations else OWN_WAY
        if abs(cell.value - published.value) > slack:
            lines.append(
                f"{cell.model}: clean accuracy {100 * cell.value:.2f} % ({cell.protocol}), published are "
                f"{100 * published.value:.2f} %; more than {100 * slack:.2g} points apart are other weights, other "
                "classes, or images that are prepared in another way"
            )
    return lines
