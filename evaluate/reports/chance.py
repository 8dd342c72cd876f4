"""Which models answer no better than somebody who looks at no image.

In: `Cell`s and the reference. Out: names, with what shows it in words.
"""

import numpy as np

from synclones.evaluate.reports.cell_text import percent
from synclones.evaluate.reports.names import Names
from synclones.evaluate.stored.results import Cell
from synclones.evaluate.test_set import TestSet

AT_CHANCE = "at chance"


def chance_of(test_set: TestSet) -> float | None:
    """Return the accuracy of always answering the class with the most images; None of a single class."""
    if len(test_set.class_ids) < 2:
        return None
    return float(np.bincount(test_set.labels).max() / len(test_set))


def at_chance(cells: list[Cell], names: Names, test_set: TestSet) -> dict[str, str]:
    """Return the models whose interval of the accuracy on the reference holds that of chance, or lies below it."""
    chance = chance_of(test_set)
    return {
        names.models[cell.model_identity]: f"accuracy {percent(cell)}, chance {100 * chance:.1f}"
        for cell in cells
        if chance is not None
        and (cell.metric, cell.dataset_sha256) == ("accuracy", test_set.content_hash)
        and cell.ci_low is not None
        and cell.ci_low <= chance
    }
