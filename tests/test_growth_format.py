"""A format of checkpoints is one file: added to a copy of the package, its files are recognised and built."""

from growth import copy  # noqa: F401

FORMAT = '''"""Averages of colours, published by nobody."""

import torch
from torch import nn

from synclones.models.checkpoint_format import CLASSES, CheckpointFormat, Variant
from synclones.models.network import Preprocessing


class Averages(nn.Module):
    def __init__(self, tensors):
        super().__init__()
        self.weight = nn.Parameter(tensors["colours.weight"])

    def forward(self, images):
        return images.mean((2, 3)) @ self.weight.T


FORMAT = CheckpointFormat(
    title="Colours",
    source="nobody/colours",
    preprocessing=Preprocessing(size_px=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    variants=(
        Variant(
            name="RGB",
            table={"colours.weight": (CLASSES, 3)},
            build=lambda tensors, classes: Averages(tensors),
            containers=("colour_model", "model"),
        ),
    ),
)
'''
USE = """
import torch
from synclones.models.open_model import open_models
weight = torch.arange(3000.0).reshape(1000, 3)
torch.save({"model": {"module.colours.weight": weight}, "epoch": 1}, "colours.pth")
(model,) = open_models("colours.pth")
print(model.format, "|", model.notes[0], "|", *model.classifier(torch.ones(1, 3, 8, 8))[0, :2].tolist())
"""


def test_a_format_that_was_added_is_recognised_and_built(copy):  # noqa: F811
    copy.add("models/formats/colours.py", FORMAT)
    read, note, logits = copy.python(USE).strip().split(" | ")
    assert read == "Colours, RGB" and logits == "3.0 12.0"
    assert note == "colours.pth: read as Colours, RGB of nobody/colours; left out: epoch (entry)"
