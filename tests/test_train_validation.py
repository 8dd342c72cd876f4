"""Measuring during a training: right numbers, weights that do not know of it, lines that repeat after a stop."""

import json
import sys

import numpy as np
import pytest
import timm
import torch
from conftest import ROOT, run_command
from PIL import Image

from synclones.base.errors import InputError, Stopped
from synclones.base.files import sha256_file
from synclones.models.folder import load_classifier
from synclones.models.load import load_model
from synclones.models.network import Classifier
from synclones.shards.sources.labelled import LabelledSource
from synclones.train import loop
from synclones.train.job import prepare
from synclones.train.measures import probe
from synclones.train.measures.knn import knn_classes
from synclones.train.measures.named_sets import held_out, named_item
from synclones.train.objective import load_objective, objective_names
from synclones.train.progress import read_metrics
from synclones.train.recovery.checkpoint import read_checkpoint
from synclones.train.run import main
from synclones.train.settings import TrainConfig
from synclones.train.validation import Validation

SHAPE = {"architecture": "vit_tiny_patch16_224", "image_size_px": 32, "patch_size": 8, "embed_dim": 24, "depth": 1}
COMMON = SHAPE | {"num_heads": 2, "batch_size": 12, "steps": 6, "log_every": 1, "torch_threads": 1, "device": "cpu"}
TEXT = {"text_width": 16, "text_heads": 2, "text_layers": 1, "joint_dim": 8, "text_length": 12}
PAIRS = {"objective": "multipositive", "positives": "label", "projection_hidden": 16, "projection_dim": 8}
VALIDATE = {"validate_every": 2}
NEAR = VALIDATE | {"knn_neighbours": 5}


def _flags(data, out, **settings) -> list[str]:
    pairs = {"data": data, "out": out, **COMMON, **settings}
    return [text for name, value in pairs.items() for text in ("--" + name.replace("_", "-"), *_words(value))]


def _words(value) -> list[str]:
    return [str(word) for word in (value if isinstance(value, (list, tuple)) else [value])]


def _weights(run) -> str:
    return sha256_file(next((run / "export").glob("*model.safetensors")))


def _measured(run) -> list[dict]:
    return [line for line in read_metrics(run / "metrics.jsonl") if "loss" not in line]


@pytest.fixture(scope="module")
def val(tmp_path_factory):
    """Images of three of the ten digits in folders of classes, of two sizes."""
    folder, draw = tmp_path_factory.mktemp("val") / "digits", np.random.default_rng(3)
    for number in range(70):
        (folder / str(number % 3)).mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 256, (40 if number % 2 else 32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / str(number % 3) / f"{number:03}.png")
    return folder


def _rows(model, source, of=lambda classifier, pixels: classifier(pixels)):
    """What a network says of each image by itself, and the labels."""
    rows, labels = [], []
    for position in range(len(source)):
        image = source.read(position)
        pixels = torch.from_numpy(model.preprocessing.fit(image.pixels)).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            rows.append(of(model, pixels)[0])
        labels.append(image.label)
    return torch.stack(rows), torch.tensor(labels)


# ------------------------------------------------------------------ what the numbers are


@pytest.mark.parametrize(
    "more", [{}, {"ema_decay": 0.5}, {"objective": "multicrop"}], ids=["plain", "average", "multicrop"]
)
def test_accuracy_and_loss_are_those_of_the_export(dataset, val, tmp_path, more):
    from synclones.shards.sources.open import open_source

    main(_flags(dataset, tmp_path / "run", validate=[f"val={val}", f"own={dataset}"], **VALIDATE, **more))
    lines = _measured(tmp_path / "run")
    assert [line["step"] for line in lines] == [2, 4, 6] and all(line["samples"] == 12 * line["step"] for line in lines)
    classifier, _ = load_classifier(tmp_path / "run")
    for name, source in (("val", LabelledSource(open_source(val))), ("own", LabelledSource(dataset))):
        logits, labels = _rows(classifier, source)
        assert lines[-1][f"accuracy/{name}"] == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
        if not more.get("objective"):  # multicrop's export has other confidences
            loss = float(torch.nn.functional.cross_entropy(logits, labels))
            assert lines[-1][f"loss/{name}"] == pytest.approx(loss, rel=1e-5)
    assert lines[0]["loss/own"] != lines[-1]["loss/own"]


def test_neighbours_are_those_of_the_export_s_features(dataset, val, tmp_path):
    main(_flags(dataset, tmp_path / "run", validate=f"val={val}", **PAIRS, **NEAR))
    network = timm.create_model(f"local-dir:{tmp_path / 'run' / 'export'}", pretrained=True).eval()
    job = prepare(
        TrainConfig(data=(str(dataset),), out=tmp_path / "x", validate=(f"val={val}",), **COMMON | PAIRS), 0, 1
    )
    model = Classifier(network, job.preprocessing, ())
    bank, bank_labels = _rows(model, LabelledSource(dataset))
    rows, labels = _rows(model, job.measured.images[0].sources[0])
    voted = knn_classes(rows, bank, bank_labels, 10, 5, 0.07)
    assert _measured(tmp_path / "run")[-1] == {
        "step": 6, "samples": 72, "knn/val": pytest.approx(float((voted == labels).double().mean()))
    }  # fmt: skip


def test_a_probe_is_trained_on_the_features_of_that_step(dataset, tmp_path):
    asked = {"validate": f"own={dataset}", "validate_probe": 300, "steps": 2, **PAIRS, **NEAR}
    main(_flags(dataset, tmp_path / "run", **asked))
    network = timm.create_model(f"local-dir:{tmp_path / 'run' / 'export'}", pretrained=True).eval()
    preprocessing = prepare(TrainConfig(data=(str(dataset),), out=tmp_path / "x", **COMMON | PAIRS), 0, 1).preprocessing
    rows, labels = _rows(Classifier(network, preprocessing, ()), LabelledSource(dataset))
    apart = probe.apart(60, 0.1, 0)
    heads = probe.train_heads(rows[~apart], labels[~apart], 10, epochs=300)
    best = probe.best_head(*probe.accuracies(heads, rows[apart], labels[apart]))
    share = float(probe.accuracies(heads, rows, labels)[0][best])
    # The features that the run saw were computed in batches: an image at the border may change sides.
    assert apart.sum() == 6 and share > 0.3
    assert _measured(tmp_path / "run")[-1]["probe/own"] == pytest.approx(share, abs=0.02)


def test_zero_shot_accuracy_is_that_of_the_export(dataset, val, tmp_path):
    names = tmp_path / "names.csv"
    names.write_text("class_id,name\n" + "".join(f"{digit},{digit} drawn\n" for digit in range(10)))
    (tmp_path / "sentences").write_text("a {}\nthe {}\n")
    texts = {"zero_shot_classes": names, "zero_shot_templates": tmp_path / "sentences"}
    main(_flags(dataset, tmp_path / "run", objective="clip", validate=f"own={dataset}", **VALIDATE, **TEXT, **texts))
    logits, labels = _rows(load_model(tmp_path / "run")[0], LabelledSource(dataset))
    accuracy = float((logits.argmax(1) == labels).double().mean())
    assert _measured(tmp_path / "run")[-1]["accuracy/own"] == pytest.approx(accuracy)


def test_every_objective_says_what_it_is_measured_by(dataset, tmp_path):
    for name in objective_names():
        objective = load_objective(name)
        config = TrainConfig(out=tmp_path, **COMMON)
        if "caption" in objective.columns:
            with pytest.raises(InputError, match="--zero-shot-classes"):
                objective.check_measurable(config)
        elif "label" not in objective.columns:
            from synclones.train.job import _preprocessing
            from synclones.train.objective import Task

            network = objective.build(Task(config, (), _preprocessing(config))).network
            assert network["backbone"](torch.zeros(2, 3, 32, 32)).shape == (2, 24)


# ------------------------------------------------------------------ what it leaves alone


@pytest.mark.parametrize("more", [{"ema_decay": 0.5, "drop_path": 0.2, "depth": 2}, PAIRS], ids=["supervised", "pairs"])
def test_weights_do_not_know_of_it(dataset, val, tmp_path, more):
    main(_flags(dataset, tmp_path / "plain", **more))
    asked = NEAR | {"validate_probe": 2} if more is PAIRS else VALIDATE
    main(_flags(dataset, tmp_path / "measured", validate=[f"val={val}", f"own={dataset}"], **asked, **more))
    assert _weights(tmp_path / "plain") == _weights(tmp_path / "measured")
    plain, measured = (json.loads((tmp_path / name / "plan.json").read_text()) for name in ("plain", "measured"))
    assert plain == measured
    others = [line for line in read_metrics(tmp_path / "measured" / "metrics.jsonl") if "loss" in line]
    assert others == read_metrics(tmp_path / "plain" / "metrics.jsonl")


def test_a_killed_training_and_a_stopped_one_repeat_their_lines(dataset, val, tmp_path, monkeypatch):
    asked = {"validate": f"val={val}", "checkpoint_every": 3, **VALIDATE}
    main(_flags(dataset, tmp_path / "whole", **asked))
    lines = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    step = loop.Trainer.train_step

    def fail(self, batch):
        if self.step == 5:
            raise RuntimeError("killed")
        return step(self, batch)

    monkeypatch.setattr(loop.Trainer, "train_step", fail)
    with pytest.raises(RuntimeError):
        main(_flags(dataset, tmp_path / "killed", **asked))
    monkeypatch.setattr(loop.Trainer, "train_step", step)
    # A signal after step 4, at which a measurement is due: it waits until the training goes on.
    steps = iter([0, 0, 0, 15])
    monkeypatch.setattr(loop, "stop_asked", lambda: next(steps, 0))
    with pytest.raises(Stopped):
        main(_flags(dataset, tmp_path / "stopped", **asked))
    assert read_metrics(tmp_path / "stopped" / "metrics.jsonl")[-1] == lines[4]
    for name in ("killed", "stopped"):
        main(_flags(dataset, tmp_path / name, **asked))
        assert read_metrics(tmp_path / name / "metrics.jsonl") == lines


def test_two_processes_measure_what_one_measures(dataset, val, tmp_path):
    sets = [f"val={val}", f"few={val},count=20"]  # of the second set one process has no batch
    asked = {
        "learning_rate": 0,
        "validate": sets,
        "steps": 2,
        "validate_probe": 3,
        **VALIDATE,
        **PAIRS,
    }  # the same weights
    main(_flags(dataset, tmp_path / "one", **asked))
    command = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "synclones.train.run")
    done = run_command(*command, *_flags(dataset, tmp_path / "two", **asked), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert _measured(tmp_path / "two") == _measured(tmp_path / "one") != []


# ------------------------------------------------------------------ what is held out


def test_a_share_of_each_class_is_held_out_nested_and_by_seed(val):
    from synclones.shards.sources.open import open_source

    source = LabelledSource(open_source(val))  # 24, 23 and 23 images
    labels, index = source.all_labels_and_indices()
    few, more, other = (held_out(source, share, seed) for share, seed in ((0.1, 0), (0.5, 0), (0.5, 1)))
    assert np.bincount(labels[few]).tolist() == [2, 2, 2] and np.bincount(labels[more]).tolist() == [12, 12, 12]
    assert set(few) < set(more) != set(other) and len(set(index)) == 70
    shown = source.leaving_out(more)
    groups = [int(position) for group in range(sum(shown.groups_per_shard)) for position in shown.group(group)]
    assert sorted([*groups, *more]) == list(range(70)) and shown.ungrouped == 0
    assert shown.group_labels().tolist() == labels[groups].tolist()


def test_held_out_images_are_measured_and_never_shown(dataset, tmp_path):
    main(_flags(dataset, tmp_path / "run", hold_out=0.2, validate_every=3))
    lines = _measured(tmp_path / "run")
    assert [set(line) - {"step", "samples"} for line in lines] == [{"accuracy/held-out", "loss/held-out"}] * 2
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["hold_out"] == 0.2
    config = TrainConfig(data=(str(dataset),), out=tmp_path / "x", hold_out=0.2, **COMMON)
    job = prepare(config, 0, 1)
    apart = set(job.measured.images[0].position.tolist())
    assert len(apart) == 10 and job.mixed.images_per_epoch == 50  # the set has 60 images of 10 classes
    assert job.measured.lines() == ["measured on held-out: 10 images of 10 of 10 classes"]
    batches = [batch for rank in (0, 1) for batch in prepare(config, rank, 2).loader().batches(0, 10)]
    seen = {int(index) for batch in batches for index in batch.index}
    index = job.mixed.parts[0].source.all_labels_and_indices()[1]
    assert seen == set(index.tolist()) - {int(index[position]) for position in apart}
    logits, labels = _rows(load_classifier(tmp_path / "run")[0], LabelledSource(dataset))
    right = (logits.argmax(1) == labels)[sorted(apart)].double().mean()
    assert lines[-1]["accuracy/held-out"] == pytest.approx(float(right))


# ------------------------------------------------------------------ which step is exported


@pytest.mark.parametrize("more", [{}, {"ema_decay": 0.5}], ids=["plain", "average"])
def test_the_best_step_on_held_out_images_is_exported_whatever_was_killed(dataset, tmp_path, monkeypatch, more):
    accuracies = {2: 0.3, 4: 0.9, 6: 0.5}
    monkeypatch.setattr(Validation, "selecting", lambda self, values: accuracies[current[0].step])
    current, init = [], loop.Trainer.__init__

    def begin(self, *args):
        init(self, *args)
        current[:] = [self]

    monkeypatch.setattr(loop.Trainer, "__init__", begin)
    asked = {"validate_every": 2, "hold_out": 0.2, "select": "best", "checkpoint_every": 3, **more}
    main(_flags(dataset, tmp_path / "whole", **asked))
    kept = read_checkpoint(tmp_path / "whole" / "best" / "step-00000004")
    tensors = kept.ema if more else kept.model
    exported = load_classifier(tmp_path / "whole")[0].network.state_dict()
    assert all(torch.equal(exported[name], tensor) for name, tensor in tensors.items())
    last = read_checkpoint(tmp_path / "whole" / "checkpoints" / "step-00000006")
    assert not all(torch.equal((last.ema if more else last.model)[name], exported[name]) for name in exported)
    sentence = "step 4 of 6, accuracy 0.9000 on held-out"
    assert json.loads((tmp_path / "whole" / "manifest.json").read_text())["chosen"] == sentence
    assert sentence in (tmp_path / "whole" / "export" / "README.md").read_text()

    # Killed between the best checkpoint and the next one, then at the end of all: the same weights.
    for number, (name, calls) in enumerate((("save", 2), ("take_best", 0))):
        run, method = tmp_path / f"killed{number}", getattr(loop.Trainer, name)
        monkeypatch.setattr(loop.Trainer, name, _failing_after(calls, method))
        with pytest.raises(RuntimeError):
            main(_flags(dataset, run, **asked))
        monkeypatch.setattr(loop.Trainer, name, method)
        main(_flags(dataset, run, **asked))
        assert _weights(run) == _weights(tmp_path / "whole")
        assert read_metrics(run / "metrics.jsonl") == read_metrics(tmp_path / "whole" / "metrics.jsonl")


def _failing_after(calls, method):
    left = iter(range(calls))

    def failing(self, *args):
        if next(left, None) is None:
            raise RuntimeError("killed")
        return method(self, *args)

    return failing


# ------------------------------------------------------------------ what is refused


def _refused(*flags, match):
    with pytest.raises(InputError, match=match):
        main([*flags])


def test_settings_that_measure_nothing_and_sets_that_do_not_fit_are_refused_before_a_step(dataset, val, tmp_path):
    out = tmp_path / "run"
    _refused(*_flags(dataset, out, knn_neighbours=5), match="--knn-neighbours: nothing is measured")
    _refused(*_flags(dataset, out, validate=f"held-out={val}"), match="is what --hold-out measures")
    _refused(*_flags(dataset, out, validate=[f"a={val}", f"a={dataset}"]), match="two sets are called 'a'")
    _refused(*_flags(dataset, out, validate=f"a={val}:2"), match="every image is measured once")
    _refused(*_flags(dataset, out, validate=f"a={val},count=900"), match="900 images are asked for, it has 70")
    _refused(*_flags(dataset, out, validate=str(val), select="best"), match="give --hold-out")
    _refused(*_flags(dataset, out, objective="clip", validate=str(val), **TEXT), match="--zero-shot-classes")
    _refused(*_flags(dataset, out, validate=str(val), knn_bank=val), match="--knn-bank: is of features; supervised is")
    _refused(*_flags(dataset, out, validate=str(val), **PAIRS | {"knn_neighbours": 61}), match="the bank has 60 images")
    other = tmp_path / "other" / "dog"
    other.mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(other / "1.png")
    _refused(*_flags(dataset, out, validate=f"a={other.parent}"), match="has the class 'dog', which is none of the 10")
    assert not out.exists()


def test_names_and_amounts_of_sets(val):
    assert named_item(f"val={val},count=10", "--validate")[0] == "val"
    assert named_item(str(val), "--validate")[0] == "digits"
    assert named_item("a/b,split=test", "--validate")[0] == "b"
