"""A format of checkpoints is one file: added to a copy of the package, its files are recognised and built."""

from growth import copy, example  # noqa: F401

FORMAT = example("models/formats/colours.py")
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
