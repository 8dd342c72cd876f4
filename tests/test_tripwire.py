"""A clean accuracy that is not the published one of that model is told of, within what its protocol may move it."""

from dataclasses import replace

import pytest
from report_cells import of_paper

from synclones.evaluate.published.tables import tables
from synclones.evaluate.published.tripwire import unexpected

PAPER = {"protocol": "paper", "deviations": ("D9",)}


@pytest.mark.parametrize(
    ("moved", "how", "lines"),
    [
        (0.0, {}, 0),
        (0.0002, PAPER, 0),  # so much lies between the authors' own logs
        (0.0010, PAPER, 1),
        (-0.0010, PAPER, 1),
        (0.0240, {}, 0),  # ViT-B with its own mean and deviation
        (0.0300, {}, 1),
        (0.0300, {"n": 5000}, 0),  # of a subset another number is no surprise
        (0.0300, {"dataset": "ImageNet-R"}, 0),
        (0.0300, {"model": "runs/mine"}, 0),
    ],
)
def test_another_accuracy_is_told_of_beyond_what_the_protocol_moves(moved, how, lines):
    cells = [replace(cell, **{"value": cell.value + moved} | how) for cell in of_paper("ResNet50")[:1]]
    said = unexpected(cells)
    assert len(said) == lines
    assert all("ResNet50: clean accuracy" in line and "published are 80." in line for line in said)


def test_the_paper_s_own_numbers_are_no_surprise():
    assert unexpected([cell for model in tables()[1].rows for cell in of_paper(model)]) == []
