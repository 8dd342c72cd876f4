"""Evaluation: the same numbers for any number of processes, results that are never overwritten, mistakes named."""

import json
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT, run_command, synclones
from shard_helpers import write_folder

import synclones.evaluate.predict as predict
from synclones.base.errors import InputError, VerificationError
from synclones.base.manifest import trace, write_manifest
from synclones.evaluate.answers.predictions import (
    CLEAN,
    EvaluatedModel,
    ModelPredictions,
    Predictions,
    SetPredictions,
    SuiteSet,
)
from synclones.evaluate.axes.adversarial import fgsm_condition
from synclones.evaluate.compare import compare
from synclones.evaluate.measure import cells_of, measure
from synclones.evaluate.reports.tables import markdown
from synclones.evaluate.run import main
from synclones.evaluate.settings import EvaluateConfig
from synclones.evaluate.stored.results import cell_files, read_cells
from synclones.lab.real_digits import write_real_digits
from synclones.models.folder import export_classifier, load_classifier
from synclones.models.network import Classifier, Preprocessing, create_network
from synclones.shards.read import ShardFolder
from synclones.shards.sources.labelled import LabelledImage
from synclones.shards.verify import verify

SHAPE = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
DIGITS = tuple("0123456789")
ONE_THREAD = ("--torch-threads", "1")


def _model(folder, classes=DIGITS, seed=0, poison=False):
    torch.manual_seed(seed)
    network = create_network("vit_tiny_patch16_224", len(classes), 32, SHAPE)
    if poison:
        torch.nn.init.constant_(network.head.bias, float("nan"))
    export_classifier(folder, Classifier(network, Preprocessing(size_px=32), classes), SHAPE, "test {weights_sha256}")
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The lab's real test digits."""
    return write_real_digits(tmp_path_factory.mktemp("data") / "real-test", "test")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two untrained classifiers."""
    folder = tmp_path_factory.mktemp("models")
    return [_model(folder / "first"), _model(folder / "second", seed=1)]


@pytest.fixture(scope="module")
def evaluated(digits, models, tmp_path_factory):
    out = tmp_path_factory.mktemp("results") / "both"
    main(["--model", *map(str, models), "--data", str(digits), "--out", str(out), *ONE_THREAD])
    return out


def _files(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "manifest.json"}


def test_pgd_is_measured_where_it_is_asked_for_and_the_rest_stays_what_it_was(evaluated, models, digits, tmp_path):
    flags = ["--attacks", "fgsm", "pgd", "--epsilons-255", "8", "--pgd-steps", "3", *ONE_THREAD]
    main(["--model", str(models[0]), "--data", str(digits), "--out", str(tmp_path / "r"), *flags])
    cells = {cell.metric: cell for cell in read_cells(tmp_path / "r")}
    assert max(cells["accuracy_pgd"].value, cells["accuracy_fgsm"].value) <= cells["accuracy"].value
    assert cells["accuracy_pgd"].settings == {
        **{"attack": "pgd", "epsilon_255": 8.0, "steps": 3, "step_255": 2.0},
    }
    before = {cell.key: cell.value for cell in read_cells(evaluated)}
    assert cells["accuracy"].value == before[cells["accuracy"].key]
    assert "accuracy under PGD-3 8/255" in (tmp_path / "r" / "table.md").read_text()


def _words(cell):
    """What the name of its file says of a number: metric, attack, strength."""
    of_attack = [str(cell.settings[name]) for name in ("attack", "epsilon_255") if name in cell.settings]
    return "-".join([cell.metric, *of_attack])


def test_every_number_is_a_file_with_its_interval_and_its_parents(evaluated, models, digits):
    cells = read_cells(evaluated)
    assert len(cells) == 2 * 6 and {cell.metric for cell in cells} == {"accuracy", "ece", "accuracy_fgsm", "r_adv"}
    for cell in cells:
        assert (evaluated / f"real-test.{cell.model}.{_words(cell)}.{cell.key}.json").exists() and cell.n == 537
        assert cell.value is None or cell.ci_low <= cell.value <= cell.ci_high
        assert cell.weights_sha256 in {load_classifier(model)[1] for model in models}
        assert cell.dataset_sha256 == ShardFolder(digits).content_hash()
    story = trace(evaluated)
    assert story.splitlines()[0].startswith("evaluate") and "real digits" in story


def test_the_numbers_are_those_of_a_plain_computation(evaluated, models, digits):
    classifier, digest = load_classifier(models[0])
    samples = list(ShardFolder(digits).sequential())
    pixels = torch.from_numpy(np.stack([predict.TestSet(digits)[i].pixels for i in range(len(samples))]))
    pixels, labels = pixels.permute(0, 3, 1, 2).float() / 255, torch.tensor([sample.label for sample in samples])
    with torch.no_grad():
        accuracy = float((classifier(pixels).argmax(1) == labels).float().mean())
    cell = next(c for c in read_cells(evaluated) if c.metric == "accuracy" and c.weights_sha256 == digest)
    assert cell.value == pytest.approx(accuracy, abs=1e-6)


def test_the_report_is_whole_and_the_same_each_time(evaluated, digits, models, tmp_path):
    page = (evaluated / "report.html").read_text()
    for text in ("Results, in percent", "inside the noise", "most confident mistakes", "<svg", "data:image/jpeg"):
        assert text in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page), "the report must load nothing from elsewhere"
    again = tmp_path / "again"
    main(["--model", *map(str, models), "--data", str(digits), "--out", str(again), *ONE_THREAD])
    assert _files(again) == _files(evaluated)


def test_three_processes_write_the_bytes_of_one(evaluated, digits, models, tmp_path):
    launch = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "3",
        str(ROOT / "evaluate" / "run.py"),
    )
    flags = ("--model", *map(str, models), "--data", str(digits), "--out", "out", *ONE_THREAD)
    done = run_command(*launch, *flags, cwd=tmp_path, ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr[-2000:]
    theirs, ours = _files(tmp_path / "out"), _files(evaluated)
    assert theirs.keys() == ours.keys()
    assert [name for name in ours if theirs[name] != ours[name]] == []


@pytest.mark.parametrize("n", [1, 2, 5, 64, 65, 130])
def test_each_image_counts_once_whatever_the_world(n, models, monkeypatch, tmp_path):
    """Without processes: the parts of each rank, put together as the gathering does."""

    class Small(predict.TestSet):
        def __init__(self):
            self.folder, self.class_ids, self.content_hash, self.name = tmp_path, DIGITS, f"{n}", "small"
            self.decision, self.members = "classes", {}

        def __len__(self):
            return n

        def __getitem__(self, position):
            pixels = np.random.default_rng(position).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            return LabelledImage(pixels, position % 10, position)

    model = EvaluatedModel("m", *load_classifier(models[0]))
    alone = predict.predict(model, Small(), CLEAN, 16, tmp_path / "1", 0, 1)
    for world in (2, 3):
        parts = []
        monkeypatch.setattr(predict, "gather_object", lambda mine, parts=parts: parts.extend(mine) or 1 / 0)
        for rank in range(1, world):
            with pytest.raises(ZeroDivisionError):  # this rank has said what it has; the first one puts it together
                predict.predict(model, Small(), CLEAN, 16, tmp_path / f"{world}-{rank}", rank, world)
        monkeypatch.setattr(predict, "gather_object", lambda mine, parts=parts: mine + parts)
        found = predict.predict(model, Small(), CLEAN, 16, tmp_path / f"{world}-0", 0, world)
        assert found.index.tolist() == list(range(n)) == alone.index.tolist()
        assert np.array_equal(found.logits, alone.logits)


def test_logits_are_computed_once(evaluated, digits, models, monkeypatch, tmp_path):
    out = shutil.copytree(evaluated, tmp_path / "out")
    monkeypatch.setattr(predict, "_predict_batch", lambda *a: pytest.fail("a forward pass"))
    main(["--model", str(models[0]), "--data", str(digits), "--out", str(out)])
    (next((out / "logits").iterdir())).write_bytes(b"no")
    with pytest.raises(VerificationError, match=r"safetensors: damaged; delete it"):
        main(["--model", *map(str, models), "--data", str(digits), "--out", str(out)])


def test_a_result_is_never_overwritten(evaluated, digits, models, tmp_path):
    out = shutil.copytree(evaluated, tmp_path / "out")
    cell = read_cells(out)[0]
    path = cell_files(out)[cell.key]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"value": 0.123}))
    with pytest.raises(VerificationError, match=r"never overwritten \(value 0.123 before"):
        main(["--model", *map(str, models), "--data", str(digits), "--out", str(out)])


def test_a_model_added_later_joins_the_tables(evaluated, digits, models, tmp_path):
    out = shutil.copytree(evaluated, tmp_path / "out")
    third = _model(tmp_path / "third", seed=2)
    main(["--model", str(third), "--data", str(digits), "--out", str(out), *ONE_THREAD])
    table = (out / "table.md").read_text()
    assert all(f"| {name} |" in table for name in ("first", "second", "third"))
    assert len((out / "results.jsonl").read_text().splitlines()) == 18
    story = trace(out)
    assert all(str(model) in story for model in (*models, third)), "results of earlier runs keep their parents"
    assert "unhashed" not in story.splitlines()[0] and "18 results" in story


def test_results_of_other_settings_are_not_mixed_into_a_folder(evaluated, digits, models, tmp_path):
    out = shutil.copytree(evaluated, tmp_path / "out")
    flags = ("--model", models[0], "--data", digits, "--out", out)
    _refused(*flags, "--seed", 1, match="its results are of seed 0, 1 was given")
    _refused(*flags, "--ece-bins", 10, match="its results are of bins 20, 10 was given")
    _refused(*flags, "--resamples", 100, match="its results are of resamples 2000, 100 was given")
    assert _files(out) == _files(evaluated)


def test_survival_of_all_or_none_is_not_called_certain(models, digits):
    model = EvaluatedModel("m", *load_classifier(models[0]))
    labels = np.arange(40) % 10
    right, wrong = (np.eye(10, dtype=np.float32)[(labels + shift) % 10] for shift in (0, 1))
    clean, broken = (Predictions(logits, labels, labels) for logits in (right, wrong))
    config = EvaluateConfig(epsilons_255=(1.0,))
    attack = fgsm_condition(1.0)
    of = SuiteSet(role="reference", name="digits", test_set=predict.TestSet(digits))
    none, every = (
        ModelPredictions(
            model,
            (
                SetPredictions(
                    of=of, by_condition={CLEAN: clean, attack: attacked}, logits_keys={CLEAN: "a", attack: "b"}
                ),
            ),
        )
        for attacked in (broken, clean)
    )
    numbers = measure([none, every, none], config)
    for measured, value in zip(numbers, (0.0, 1.0), strict=False):
        cell = next(cell for cell in cells_of(none, measured, config) if cell.metric == "r_adv")
        assert (cell.value, cell.interval) == (value, "wilson") and cell.ci_high - cell.ci_low > 0.05
    compared = compare(dict(zip(("none", "every", "again"), numbers, strict=True)))
    differences = [item.difference for item in compared if item.metric.startswith("R_adv")]
    assert differences[0] is differences[2] is None, "a difference that no resample varies"
    assert differences[1].value == 0 and differences[1].inside_noise


def test_results_and_dry_runs_are_json_and_nothing_else(evaluated, digits, models, tmp_path, capsys):
    out = shutil.copytree(evaluated, tmp_path / "out")
    flags = ["--model", *map(str, models), "--data", str(digits), "--out", str(out), "--json"]
    main([*flags, "--dry-run"])
    value = json.loads(capsys.readouterr().out)
    assert value["sets"][0]["images"] == 537 and len(value["models"]) == 2 and value["passes"] > 2 * 537
    main(flags)
    value = json.loads(capsys.readouterr().out)
    assert value["report"] == str(out / "report.html") and not (out / "config.yaml").exists()
    accuracy = [one for one in value["results"] if one["metric"] == "accuracy" and "first" in one["model"]]
    assert len(accuracy) == 1 and 0 <= accuracy[0]["ci_low"] <= accuracy[0]["value"] <= accuracy[0]["ci_high"] <= 1


def test_images_are_resampled_once_for_all_numbers_of_all_models(evaluated, digits, models, monkeypatch, tmp_path):
    import synclones.evaluate.measure as module

    calls = []
    resample = module.resampled_sums
    monkeypatch.setattr(module, "resampled_sums", lambda terms, *a: calls.append(terms.shape) or resample(terms, *a))
    out = shutil.copytree(evaluated, tmp_path / "out")
    main(["--model", *map(str, models), "--data", str(digits), "--out", str(out)])
    # Accuracies under attack have intervals without resamples, and are compared by R_adv.
    assert calls == [(537, 2 * (1 + 20 + 2 * 2))] and _files(out) == _files(evaluated)


def test_a_metric_is_explained_by_name_or_title(capsys):
    for word in ("ece", "ECE", "r_adv", "R_adv", "accuracy under attack"):
        main(["explain", word])
    text = capsys.readouterr().out
    for words in ("Expected calibration error", "Guo et al. 2017", "deviation", "Goodfellow et al. 2015", "unit"):
        assert words in text
    metrics = "accuracy, ece, ece_adaptive, ece_classwise, nll, brier, r_adv, accuracy_fgsm, r_adv_pgd"
    _refused("explain", "fpr", match=f"'fpr' is no metric; expected one of {metrics}")
    _refused("explain", match="metric: required by `synclones evaluate explain`")


def test_explaining_a_metric_loads_no_network(tmp_path):
    code = (
        "import sys; from synclones.evaluate.run import main; main(['explain', 'R_adv']); "
        "print(sorted({'torch', 'timm', 'accelerate'} & set(sys.modules)))"
    )
    done = run_command(sys.executable, "-c", code, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stderr


def test_results_of_another_version_s_metrics_are_tabled_under_their_bare_names(evaluated):
    cells = read_cells(evaluated)
    foreign = [replace(cell, metric="auroc", settings={"kind": "far"}) for cell in cells if cell.metric == "accuracy"]
    older = [replace(cell, metric="r_adv", settings={}) for cell in cells if cell.metric == "accuracy"]
    header = markdown([*foreign, *older, *cells]).splitlines()[0]
    assert header.startswith("| model | accuracy | ECE | r_adv | R_adv 1/255 |") and header.endswith("8/255 | auroc |")


def test_the_lab_s_real_sets_are_whole_and_share_no_digit(digits, tmp_path):
    train = write_real_digits(tmp_path / "train", "classifier-train")
    assert verify(digits).num_samples == 537 and verify(train).num_samples == 540
    seen = {sample.jpg for sample in ShardFolder(train).sequential()}
    assert not any(sample.jpg in seen for sample in ShardFolder(digits).sequential())
    again = write_real_digits(tmp_path / "again", "classifier-train")
    assert ShardFolder(again).content_hash() == ShardFolder(train).content_hash()


# ------------------------------------------------------------------ bad input


def _refused(*flags, match: str, error: type = InputError) -> None:
    with pytest.raises(error, match=match):
        main([*map(str, flags)])


def test_what_is_not_a_model_or_not_a_test_set_is_refused(digits, models, tmp_path):
    out = ("--out", tmp_path / "out")
    _refused("--model", tmp_path / "none", "--data", digits, *out, match="no such model folder")
    _refused("--model", digits, "--data", digits, *out, match="not a model folder, config.json is missing")
    broken = shutil.copytree(models[0], tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\0" * 100)
    _refused("--model", broken, "--data", digits, *out, match="do not make a model")
    for text in ("[]", "[" * 200_000):
        (broken / "config.json").write_text(text)
        _refused("--model", broken, "--data", digits, *out, match="not the config of a timm model")
    _refused("--model", models[0], "--data", tmp_path, *out, match="no set of images; the first of 3 files")
    _refused("--model", models[0], models[0], "--data", digits, *out, match="appears twice")
    copy = shutil.copytree(models[0], tmp_path / "copy")
    _refused("--model", models[0], copy, "--data", digits, *out, match="first and copy hold the same weights")
    (tmp_path / "file").touch()
    _refused("--model", models[0], "--data", digits, "--out", tmp_path / "file", match="file is a file; give a folder")
    _refused("--model", models[0], "--data", digits, "--out", digits, match="belongs to `synclones real digits`")
    _refused("--model", models[0], "--data", digits, "--epsilons-255", "0", *out, match="more than 0")
    assert not (tmp_path / "out").exists()


def test_unlabelled_empty_and_foreign_sets_are_refused(models, digits, tmp_path):
    folder = write_folder(tmp_path / "set")
    flags = ("--model", models[0], "--data", folder, "--out", tmp_path / "out")
    write_manifest(folder, "test", {}, [], {}, {}, {"classes": []})
    _refused(*flags, match="the images have no labels")
    write_manifest(folder, "test", {}, [], {}, {}, {"classes": ["a", "b", "c"]})
    _refused(*flags, match="has 10 classes, .* has 3; number 0 is '0' and 'a'")
    for path in folder.glob("train-*.json"):
        summary = json.loads(path.read_text())
        path.write_text(json.dumps(summary | {"ok": 0, "failed": summary["planned"]}))
    _refused(*flags, match="holds no image")


def test_logits_that_are_not_finite_name_the_sample(digits, tmp_path):
    model = _model(tmp_path / "nan", poison=True)
    with pytest.raises(
        VerificationError, match="nan: logits of 537 of 537 images are not finite, first at sample 00000"
    ):
        main(["--model", str(model), "--data", str(digits), "--out", str(tmp_path / "out")])
    assert not list((tmp_path / "out").glob("[!.]*.json"))


def test_a_training_that_is_not_finished_is_no_model_yet(digits, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    done = synclones("evaluate", "--model", "run", "--data", str(digits), cwd=tmp_path)
    assert done.returncode == 2 and "the training is not finished" in done.stderr and "Traceback" not in done.stderr


def test_a_dry_run_writes_nothing(digits, models, tmp_path, capsys):
    main(["--model", str(models[0]), "--data", str(digits), "--out", str(tmp_path / "out"), "--dry-run"])
    assert "537 images" in capsys.readouterr().out and not (tmp_path / "out").exists()
