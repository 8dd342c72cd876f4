"""Evaluations from Python: a model of somebody else's gets the numbers that the command gives it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, run_command
from test_evaluate import DIGITS, ONE_THREAD, SHAPE
from torch import nn

from synclones.api import evaluate
from synclones.base.errors import InputError
from synclones.evaluate.foreign import from_callable, normalised, pixels
from synclones.evaluate.run import main
from synclones.lab.real_digits import write_real_digits
from synclones.models.folder import export_classifier
from synclones.models.network import IMAGENET_MEAN, IMAGENET_STD, Classifier, Preprocessing, create_network

SETTINGS = {"torch_threads": 1, "epsilons_255": (8.0,), "resamples": 100}


class Somebodys(nn.Module):
    """A network that no library has."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.GELU(), nn.Flatten(), nn.Linear(8 * 49, 10)
        )

    def forward(self, x):
        return self.layers(x)


class Turned(nn.Module):
    """The last class first."""

    def forward(self, x):
        return x.flip(1)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The lab's real test digits."""
    return write_real_digits(tmp_path_factory.mktemp("data") / "real-test", "test")


@pytest.fixture
def theirs():
    torch.manual_seed(0)
    return normalised(Somebodys().eval(), IMAGENET_MEAN, IMAGENET_STD)


def test_a_foreign_module_is_evaluated_in_ten_lines(digits, theirs, tmp_path, capsys):
    numbers = evaluate(theirs, digits, preprocessing=pixels(32), out=tmp_path / "out", name="theirs", **SETTINGS).cells
    for cell in numbers:
        print(cell.dataset, cell.metric, cell.settings, cell.value, cell.ci_low, cell.ci_high)
    by_name = {cell.metric: cell for cell in numbers}
    assert {"accuracy", "ece", "r_adv", "accuracy_fgsm"} <= set(by_name) and by_name["accuracy"].n == 537
    assert (tmp_path / "out" / "report.html").is_file() and "theirs" in capsys.readouterr().out
    # The value is the module's own, computed by nobody else's code.
    from synclones.evaluate.test_set import TestSet

    images = TestSet(digits)
    shown = torch.from_numpy(np.stack([images[k].pixels for k in range(537)])).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        right = theirs(shown).argmax(1).numpy() == images.labels
    assert by_name["accuracy"].value == pytest.approx(right.mean())
    # It goes on as it was: an evaluation freezes what it evaluates.
    assert all(parameter.requires_grad for parameter in theirs.parameters())


def test_python_and_the_command_measure_the_same(digits, tmp_path):
    torch.manual_seed(0)
    network = create_network("vit_tiny_patch16_224", 10, 32, SHAPE).eval()
    export_classifier(tmp_path / "m", Classifier(network, Preprocessing(size_px=32), DIGITS), SHAPE, "")
    flags = ["--epsilons-255", "8", "--resamples", "100", *ONE_THREAD]
    main(["--model", str(tmp_path / "m"), "--data", str(digits), "--out", str(tmp_path / "out"), *flags])
    model = normalised(network, IMAGENET_MEAN, IMAGENET_STD)
    ours = evaluate(model, digits, preprocessing=pixels(32), out=tmp_path / "out", name="mine", **SETTINGS).cells
    from synclones.evaluate.stored.results import read_cells

    rest = [cell for cell in read_cells(tmp_path / "out") if cell.model == "m"]
    assert len(ours) == len(rest) > 3 and {cell.model for cell in ours} == {"mine"}
    values = [{(c.metric, str(c.settings)): (c.value, c.ci_low, c.ci_high) for c in cells} for cells in (ours, rest)]
    assert values[0] == values[1]


def test_the_same_classes_in_another_order_are_matched_by_id(digits, theirs, tmp_path):
    def measured(model, class_ids, name):
        given = {"preprocessing": pixels(32), "out": tmp_path / name, "name": "m", "class_ids": class_ids}
        cells = evaluate(model, digits, **given, **SETTINGS).cells
        return {(cell.metric, str(cell.settings)): cell.value for cell in cells}

    turned = nn.Sequential(theirs, nn.Unflatten(1, (10, 1)), Turned(), nn.Flatten()).eval()
    as_stored, other = measured(theirs, DIGITS, "stored"), measured(turned, DIGITS[::-1], "turned")
    assert {"accuracy", "ece", "accuracy_fgsm"} <= {metric for metric, _ in other}
    assert other == pytest.approx(as_stored, abs=1e-6)
    assert (tmp_path / "turned" / "report.html").is_file()


def test_a_second_evaluation_asks_the_model_nothing(digits, theirs, tmp_path):
    asked = []

    def function(x):
        asked.append(len(x))
        return theirs(x)

    settings = SETTINGS | {"attacks": (), "preprocessing": pixels(32), "out": tmp_path / "out"}
    first = evaluate(function, digits, identity="v1", **settings)
    assert sum(asked) > 537
    asked.clear()
    assert evaluate(function, digits, identity="v1", **settings) == first
    assert sum(asked) < 10  # that it is a classifier is looked at each time
    evaluate(function, digits, identity="v2", **settings)
    assert sum(asked) > 537


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": lambda x: x.mean((2, 3)) @ torch.ones(3, 10)}, "a function without identity"),
        ({"identity": "a", "model": lambda x: torch.zeros(len(x), 10)}, "gives no gradient at its pixels"),
        ({"class_ids": DIGITS[:4]}, r"gives torch.float32 \[2, 10\]"),
        ({"preprocessing": None}, "preprocessing is missing"),
        ({"protocol": ("paper",)}, "changes the normalisation"),
        ({"suite": "imagenet", "data": None, "data_root": "."}, "--suite imagenet: expected one of"),
        ({"suite": "lab"}, "--suite: has sets of its own"),
        ({"data": None}, "where do images lie"),
        ({"attack": "fgsm"}, "evaluate\\(\\): key 'attack' is unknown; did you mean 'attacks'"),
        ({"resamples": "many"}, "evaluate\\(\\): resamples: got 'many', expected a whole number"),
        ({"model": "runs/x"}, "preprocessing: is about a network of your own"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_is_written(digits, theirs, tmp_path, change, message):
    given = {"model": theirs, "preprocessing": pixels(32), "data": digits} | SETTINGS | change
    with pytest.raises(InputError, match=message):
        evaluate(out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_without_attacks_a_model_needs_no_gradient(digits, tmp_path):
    def function(x):
        return torch.from_numpy(x.numpy().mean((1, 2)) @ np.ones((32, 10), np.float32))

    model = from_callable(function, pixels(32), DIGITS, "of NumPy", identity="v1")
    numbers = evaluate(model, digits, out=tmp_path / "out", attacks=(), **SETTINGS).cells
    assert {cell.metric for cell in numbers} >= {"accuracy", "ece"} and {cell.model for cell in numbers} == {"of NumPy"}


def test_the_example_of_the_page_runs(digits, tmp_path):
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    example = page.partition("## A model from Python")[2].split("```")[1].removeprefix("python\n")
    assert example.count("\n") <= 11
    module = Path(__file__).read_text(encoding="utf-8").partition("class Somebodys")[2].partition("\n\n\n@")[0]
    (tmp_path / "my_code.py").write_text("from torch import nn\n\n\nclass MyNetwork" + module + "\n")
    # The suite of the example takes half a minute to draw: one folder stands for it.
    of_one_folder = f"data={str(digits)!r}"
    assert 'suite="lab", data_root="data/lab-robust"' in example
    text = example.replace('suite="lab", data_root="data/lab-robust"', of_one_folder)
    done = run_command(sys.executable, "-c", text, cwd=tmp_path, PYTHONPATH=str(tmp_path), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "accuracy" in done.stdout and (tmp_path / "results" / "mine" / "report.html").is_file()
