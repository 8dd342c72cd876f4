"""A suite: sets in roles from a YAML file, each shown to a model once whatever is measured, in both protocols."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import NOTES, ROOT, run_command
from PIL import Image
from test_evaluate import DIGITS, ONE_THREAD, _model

import synclones.evaluate.predict as predict
from synclones.base.errors import InputError
from synclones.evaluate.run import main
from synclones.evaluate.stored.results import read_cells
from synclones.evaluate.suite import only, read_suite, suite_names

QUICK = (*ONE_THREAD, "--resamples", "100", "--epsilons-255", "8")
CORRUPTIONS = ("shot_noise", "snow")


def _images(folder: Path, names: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One set of every role, and a model."""
    root = tmp_path_factory.mktemp("world")
    data, each = root / "data", [f"{name}/{i}.png" for name in DIGITS for i in range(2)]
    _images(data / "val", each, 0)
    _images(data / "r", [name for name in each if name[0] in "357"], 1)
    for number, corruption in enumerate(CORRUPTIONS):
        for severity in (1, 2):
            _images(data / "c" / corruption / str(severity), each, 2 + 2 * number + severity)
    _images(data / "ood" / "any", [f"{i}.png" for i in range(7)], 9)
    words = ("zero", "one", "two")
    _images(data / "cue", [f"{a}/{a}1-{b}2.png" for a in words for b in words], 10)
    for seed, variant in enumerate(("original", "mixed_same", "mixed_rand"), 11):
        _images(data / "in9" / variant / "val", [f"{n}/{i}.png" for n in ("00_even", "01_odd") for i in range(4)], seed)
    sets = [
        {"name": "val", "role": "reference", "layout": "folders", "path": "val", "images": 20},
        {"name": "r", "layout": "folders", "path": "r"},
        {"name": "c", "layout": "corrupted", "path": "c", "corruptions": list(CORRUPTIONS), "severities": [1, 2]},
        {"name": "others", "layout": "outliers", "path": "ood"},
        {"name": "cue", "layout": "cueconflict", "path": "cue", "members": {w: [str(i)] for i, w in enumerate(words)}},
        {
            "name": "in9",
            "layout": "backgrounds",
            "path": "in9",
            "members": {"even": list("02468"), "odd": list("13579")},
        },
    ]
    (root / "suite.yaml").write_text(yaml.safe_dump({"title": "A world", "classes": list(DIGITS), "sets": sets}))
    _model(root / "model")
    return root


def _evaluate(world: Path, out: Path, *more: str) -> list:
    flags = ("--model", world / "model", "--suite", world / "suite.yaml", "--data-root", world / "data", "--out", out)
    main([*map(str, flags), *QUICK, *more])
    return read_cells(out)


@pytest.fixture(scope="module")
def evaluated(world, tmp_path_factory):
    return _evaluate(world, tmp_path_factory.mktemp("results") / "out"), tmp_path_factory


@pytest.fixture
def shown(monkeypatch):
    """How many images were shown to the network, by set and condition."""
    count: dict[tuple[str, str], int] = {}
    real = predict._predict_batch

    def counted(model, test_set, positions, condition):
        key = (str(test_set.folder), condition.name)
        count[key] = count.get(key, 0) + len(positions)
        return real(model, test_set, positions, condition)

    monkeypatch.setattr(predict, "_predict_batch", counted)
    return count


def test_every_axis_is_measured_and_each_image_is_shown_once(world, tmp_path, shown):
    cells = _evaluate(world, tmp_path / "out")
    clean = {folder: n for (folder, name), n in shown.items() if name == "clean"}
    assert sum(clean.values()) == len(list((world / "data").rglob("*.png")))
    assert {name for _, name in shown} == {"clean", "fgsm"} and len([k for k in shown if k[1] == "fgsm"]) == 1
    metrics = {cell.metric for cell in cells}
    assert {"accuracy", "ece", "r_adv", "auroc", "fpr95_id_positive", "r_cc", "shape_bias", "bg_gap"} <= metrics
    assert {cell.dataset for cell in cells if cell.metric == "accuracy"} == {"val", "r"}
    assert {cell.suite for cell in cells} == {"A world"} and {cell.protocol for cell in cells} == {"corrected"}
    assert "| accuracy on val | accuracy on r (3 classes) |" in (tmp_path / "out" / "table.md").read_text()
    # A second start shows nothing again, and writes the same files.
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.json") if path.stem != "manifest"}
    shown.clear()
    _evaluate(world, tmp_path / "out")
    assert not shown and all(path.read_bytes() == content for path, content in before.items())


def test_numbers_are_those_of_the_kept_logits(evaluated, world):
    cells, _ = evaluated
    from synclones.models.open_model import open_models

    classifier = open_models(world / "model")[0].classifier
    paths = sorted((world / "data" / "r").rglob("*.png"))
    pixels = (
        torch.from_numpy(np.stack([np.asarray(Image.open(path, formats=("PNG",))) for path in paths])).permute(
            0, 3, 1, 2
        )
        / 255
    )
    with torch.inference_mode():
        some = classifier(pixels)[:, [3, 5, 7]].argmax(1)
    right = np.mean([int(path.parent.name) == (3, 5, 7)[answer] for path, answer in zip(paths, some, strict=True)])
    cell = next(cell for cell in cells if (cell.metric, cell.dataset) == ("accuracy", "r"))
    assert cell.value == pytest.approx(right) and cell.settings["classes"] == 3 and cell.n == 6


def test_both_protocols_stand_side_by_side_and_share_what_they_have_in_common(world, tmp_path, shown):
    cells = _evaluate(world, tmp_path / "out", "--protocol", "corrected", "paper")
    paper = [cell for cell in cells if cell.protocol == "paper"]
    assert paper and all(cell.deviations for cell in paper)
    by_metric = {cell.metric: set(cell.deviations) for cell in paper}
    assert by_metric["r_cc"] >= {"D1", "D2"} and by_metric["bg_gap"] == {"D6"} and "D4" in by_metric["auroc"]
    assert not [cell for cell in paper if cell.metric == "shape_bias"], "images of the right size, ImageNet's pixels"
    # What the papers' code shows otherwise is shown a second time, and nothing else.
    twice = {folder for folder, name in shown if name == "prepared"}
    assert {Path(folder).name for folder in twice} >= {"val", "1", "2"} and str(world / "data" / "cue") not in twice
    # One deviation alone is another number than all of them, and a line of a table would mix the two.
    with pytest.raises(InputError, match="protocol paper follow all deviations, D1 were asked for"):
        _evaluate(world, tmp_path / "out", "--protocol", "paper", "--deviations", "D1")
    alone = _evaluate(world, tmp_path / "alone", "--protocol", "paper", "--deviations", "D1")
    assert {cell.metric: cell.deviations for cell in alone}["r_cc"] == ("D1",) and {c.asked for c in alone} == {("D1",)}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert len({parent["content_hash"] for parent in manifest["parents"]}) >= 10


def test_some_sets_can_be_chosen_and_missing_ones_are_named_together(world, tmp_path):
    cells = _evaluate(world, tmp_path / "some", "--sets", "shape", "r")
    assert {cell.dataset for cell in cells} == {"val", "r", "cue"}
    table = (tmp_path / "some" / "table.md").read_text()
    assert "## val\n" in table and "## r (3 classes)\n" in table, "three are easier than ten"
    data = shutil.copytree(world / "data", tmp_path / "data")
    shutil.rmtree(data / "r")
    shutil.rmtree(data / "in9")
    flags = ("--model", world / "model", "--suite", world / "suite.yaml", "--data-root", data)
    with pytest.raises(InputError, match=r"lacks r \(.*/r\), in9 .*doctor --suite \S+/suite\.yaml --data-root"):
        main([*map(str, flags), "--out", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()


def test_a_set_that_is_half_unpacked_is_not_measured_among_fewer_classes(world, tmp_path, capsys):
    data = shutil.copytree(world / "data", tmp_path / "data")
    for cell in (data / "c").glob("*/*"):
        shutil.rmtree(cell / "7")  # of every corruption alike, so that its parts still hold the same images
    flags = (
        "--model",
        world / "model",
        "--suite",
        world / "suite.yaml",
        "--data-root",
        data,
        "--out",
        tmp_path / "out",
    )
    with pytest.raises(InputError, match="c/shot_noise/1: holds images of 9 classes, expected 10, and answers would"):
        main([*map(str, flags), *QUICK])
    assert not (tmp_path / "out").exists()
    # Fewer images of all classes are another set, which is said.
    data = shutil.copytree(world / "data", tmp_path / "fewer")
    (data / "val" / "3" / "1.png").unlink()
    main([*map(str, flags[:4]), "--data-root", str(data), "--out", str(tmp_path / "out"), *QUICK, "--sets", "r"])
    assert "val: 19 images, the suite states 20; numbers are of these; look with" in capsys.readouterr().err


def test_the_reference_is_no_set_of_outliers(world, tmp_path):
    suite = yaml.safe_load((world / "suite.yaml").read_text())
    next(each for each in suite["sets"] if each["name"] == "others")["path"] = "val"
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(suite))
    flags = ("--model", world / "model", "--suite", tmp_path / "wrong.yaml", "--data-root", world / "data")
    with pytest.raises(InputError, match="others: is the reference itself, whose images show the classes"):
        main([*map(str, flags), "--out", str(tmp_path / "out")])


def test_built_in_suites_can_be_read():
    assert {"lab", "synthetic-clones"} <= set(suite_names())
    for name in suite_names():
        suite = read_suite(name)
        assert suite.members and sum(member.role == "reference" for member in suite.members) == 1
        assert all(member.licence and member.url for member in suite.members) or name == "lab"
    roles = {member.role for member in only(read_suite("synthetic-clones"), ("context",)).members}
    assert roles == {"reference", "context"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("sets: 3\n", "sets: expected a list"),
        ("title: x\nlayouts: []\nsets: []\n", r"suite.yaml:2: layouts: a suite has no such key"),
        ("sets:\n- {name: a, path: b}\n", r"suite.yaml:2: sets: layout is missing"),
        ("sets:\n- {name: a, path: b, layout: nothing}\n", "'nothing': expected one of backgrounds, corrupted"),
        ("sets:\n- {name: a, path: b, layout: corrupted}\n", "has none with role reference"),
        ("sets:\n- {name: a, path: b, layout: folders, role: judge}\n", "'judge': expected one of reference, shifted"),
        (
            "sets:\n- {name: a, path: b, layout: corrupted, depth: 3}\n",
            r"suite.yaml:2: depth: a set of layout corrupted",
        ),
        ("sets:\n- {name: a, path: b, layout: corrupted, severities: 3}\n", r"suite.yaml:2: severities: 3 was given"),
        ("sets:\n- {name: a, path: b, layout: folders, images: -3}\n", "images: -3: expected how many"),
        ("classes: []\nsets: []\n", "classes: expected imagenet-1k"),
        (
            "sets:\n- {name: a, path: b, layout: folders, role: reference}\n- {name: a, path: c, layout: folders}\n",
            "two sets are called 'a'",
        ),
    ],
)
def test_a_file_that_is_no_suite_is_refused_by_its_line(tmp_path, text, match):
    (tmp_path / "suite.yaml").write_text(text)
    with pytest.raises(InputError, match=match):
        read_suite(str(tmp_path / "suite.yaml"))


def test_what_cannot_go_together_is_refused(world, tmp_path):
    suite = ("--suite", str(world / "suite.yaml"))
    for flags, match in [
        ((*suite, "--data", "x"), "has sets of its own"),
        (("--data-root", "x"), "give --suite, too"),
        ((*suite,), "give it by --data-root"),
        (("--suite", "synthetic-clone"), "did you mean 'synthetic-clones'"),
        ((*suite, "--data-root", str(world / "nothing")), "nothing: no such folder"),
        (("--deviations", "D1"), "followed by --protocol paper alone"),
        ((*suite, "--data-root", str(world / "data"), "--sets", "shapes"), "did you mean 'shape'"),
        ((*suite, "--protocol", "paper", "--deviations", "D8"), "'D8' was given, expected some of D1"),
    ]:
        with pytest.raises(InputError, match=match):
            main([*flags, "--model", str(world / "model"), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_called_as_the_lab_s_suite_is_not_the_lab_s(world, tmp_path):
    own = shutil.copy(world / "suite.yaml", tmp_path / "lab.yaml")
    with pytest.raises(InputError, match="give it by --data-root"):
        main(["--suite", str(own), "--model", str(world / "model"), "--out", str(tmp_path / "out")])


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_kills_at_random_points_leave_no_trace_and_cost_a_batch_each(world, tmp_path):
    """20 kills in each world, every batch kept at once: what is lost is the batch in work, and no file differs."""
    flags = ("--model", world / "model", "--suite", world / "suite.yaml", "--data-root", world / "data", *QUICK)
    harness = Path(__file__).with_name("evaluate_kill_harness.py")
    command = (sys.executable, harness, tmp_path, "20261128", "20", *flags, "--batch-size", "2", "--timeout-s", "300")
    done = run_command(*map(str, command), cwd=ROOT, timeout_s=1400)
    assert done.returncode == 0, done.stderr[-2000:]
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    NOTES.extend(f"kill -9 of evaluations of a suite: {result}" for result in results)
    assert [result["world"] for result in results] == [1, 2, 3]
    for result in results:
        assert sum(result["kills"].values()) >= 20 and len(result["kills"]) == 3
        assert sum(item["again"] for item in result["evaluations"]) <= 20 * result["world"]
        for item in result["evaluations"]:
            assert item["same"] and item["kept twice"] == 0 and item["predicted"] == 84
