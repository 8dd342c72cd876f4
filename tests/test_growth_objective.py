"""An objective, and a training recipe, is one file: added to a copy of the package, it is listed and used."""

import json

from growth import copy  # noqa: F401
from test_house import ROOT

OBJECTIVE = '''"""Squared distance of the probabilities from the label's one-hot vector (Brier score)."""

import torch.nn.functional as F

COLUMNS = ("label",)


def num_outputs(num_classes):
    return num_classes


def losses(batch, model, config):
    outputs = model(batch.images).float()
    wanted = F.one_hot(batch.labels, outputs.shape[1])
    return {"loss": ((outputs.softmax(1) - wanted) ** 2).sum(1), "surest": outputs.detach().softmax(1).amax(1)}
'''

RECIPE = """# Two steps of a very small transformer, to see that a recipe is one file.
objective: brier
architecture: vit_tiny_patch16_224
image_size_px: 32
patch_size: 8
embed_dim: 24
depth: 1
num_heads: 2
batch_size: 8
steps: 2
log_every: 1
torch_threads: 1
"""


def test_an_objective_and_a_recipe_that_were_added_train_together(copy):  # noqa: F811
    copy.add("train/objectives/brier.py", OBJECTIVE)
    copy.add("train/recipes/two-steps.yaml", RECIPE)
    data = ROOT / "tests" / "earlier" / "set"
    flags = ("--data", str(data), "--out", "run")
    done = copy.command("train", "--recipe", "two-steps", *flags)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (copy.work / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all({"loss", "surest"} <= line.keys() and "accuracy" not in line for line in lines)
    assert json.loads((copy.work / "run" / "plan.json").read_text())["objective"] == "brier"
    unknown = copy.command("train", "--recipe", "two-step", "--objective", "briar", *flags)
    assert unknown.returncode == 2 and "two-steps" in unknown.stderr
