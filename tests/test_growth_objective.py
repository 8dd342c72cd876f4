"""An objective, and a training recipe, is one file: added to a copy of the package, it is listed and used."""

import json

from growth import copy, example  # noqa: F401
from test_house import ROOT

OBJECTIVE = example("train/objectives/brier.py")

RECIPE = example("train/recipes/two-steps.yaml")


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
