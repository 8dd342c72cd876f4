"""An axis of robustness is one file: added to a copy of the package, its number is measured, shown and explained."""

import json
import shutil

from growth import copy, example  # noqa: F401
from safetensors.torch import load_file, save_file
from test_house import ROOT

AXIS = example("evaluate/axes/sureness.py")


def test_an_axis_that_was_added_is_measured_compared_shown_and_explained(copy):  # noqa: F811
    copy.add("evaluate/axes/sureness.py", AXIS)
    assert "How sure the model is of dim images." in copy.command("evaluate", "explain", "sureness").stdout
    earlier = ROOT / "tests" / "earlier"
    other = copy.work / "other"
    shutil.copytree(earlier / "run", other)
    weights = other / "export" / "model.safetensors"
    save_file({name: -tensor for name, tensor in load_file(weights).items()}, weights)
    (other / "manifest.json").unlink()  # it names the weights that were there
    flags = ("--model", str(earlier / "run"), str(other), "--data", str(earlier / "set"), "--out", "results")
    done = copy.command("evaluate", *flags, "--torch-threads", "1")
    assert done.returncode == 0, done.stderr
    cells = [json.loads(line) for line in (copy.work / "results" / "results.jsonl").read_text().splitlines()]
    own = [cell for cell in cells if cell["metric"] == "sureness"]
    assert len(own) == 2 and all(0.1 <= cell["ci_low"] <= cell["value"] <= cell["ci_high"] <= 1 for cell in own)
    assert "| ECE | sureness at 0.5 | R_adv 1/255 |" in (copy.work / "results" / "table.md").read_text()
    report = (copy.work / "results" / "report.html").read_text()
    assert "How sure the model is of dim images." in report
    assert report.count("<th>sureness at 0.5\N{NO-BREAK SPACE}↑</th>") == 1, "a column of the results"
    assert report.count("<figcaption>sureness at 0.5") == 2, "a figure of the models and one of the differences"
