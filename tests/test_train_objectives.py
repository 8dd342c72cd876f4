"""Every objective trains, leaves behind what plain timm or open_clip loads, and goes on after a stop bit for bit."""

import json
import math
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator
from conftest import ROOT, run_command
from PIL import Image

from synclones.base.errors import InputError
from synclones.base.files import sha256_file
from synclones.models.folder import load_classifier
from synclones.models.load import load_model
from synclones.shards.run import main as shards_main
from synclones.train import loop
from synclones.train.job import check_settings, prepare
from synclones.train.objective import objective_names
from synclones.train.progress import read_metrics
from synclones.train.run import main
from synclones.train.settings import TrainConfig
from synclones.train.training_batch import Embedded

SHAPE = {"architecture": "vit_tiny_patch16_224", "image_size_px": 32, "patch_size": 8, "embed_dim": 24, "depth": 1}
COMMON = SHAPE | {"num_heads": 2, "batch_size": 12, "steps": 6, "log_every": 1, "torch_threads": 1, "device": "cpu"}
TEXT = {"text_width": 16, "text_heads": 2, "text_layers": 1, "joint_dim": 8, "text_length": 12}
LOCAL = {"local_views": 2, "local_size_px": 16, "local_scale_max": 0.4}
KINDS = {
    "supervised": {"mixup_alpha": 0.8, "cutmix_alpha": 1.0, "label_smoothing": 0.1, "drop_path": 0.1, "depth": 2},
    "clip": TEXT,
    "siglip": TEXT,
    "multipositive": {"positives": "label", "projection_hidden": 16, "projection_dim": 8, **LOCAL},
    "stablerep-plus": {"views": 2, "projection_hidden": 16, "projection_dim": 8, **TEXT},
    "multicrop": LOCAL,
    "synclr": {
        **{"positives": "label", "projection_hidden": 16, "projection_dim": 8, "ema_decay": 0.9, "drop_path": 0.1},
        **{"depth": 2, "prototypes": 16, "prototype_dim": 8, "prototype_hidden": 16, **LOCAL},
    },
    "probe": {
        "optimizer": "sgd",
        "weight_decay": 0,
        "clip_norm": 1e6,
        "learning_rate": 1,
        "hold_out": 0.2,
    },
    "distillation": {"teacher_column": "teacher", "teacher_temperature": 2, "teacher_share": 0.7},
}


def _settings(kind: str) -> dict:
    return COMMON | {"objective": kind} | KINDS[kind]


def _flags(data, out, settings: dict) -> list[str]:
    pairs = {"data": data, "out": out, **settings}
    return [text for name, value in pairs.items() for text in ("--" + name.replace("_", "-"), str(value))]


@pytest.fixture(scope="module")
def taught(dataset, tmp_path_factory):
    """The set with a teacher's logits, which are certain of every label."""
    import shutil

    folder = tmp_path_factory.mktemp("taught")
    copy = shutil.copytree(dataset, folder / "set")
    labels = np.concatenate([pq.read_table(path)["label"].to_numpy() for path in sorted(copy.glob("train-*.parquet"))])
    logits = np.where(np.arange(10)[None] == labels[:, None], 9.0, 0.0).astype(np.float32)
    table = pa.table({"index": np.arange(len(labels)), "teacher": pa.array(list(logits), pa.list_(pa.float32()))})
    pq.write_table(table, folder / "teacher.parquet")
    by = ("--by", "index", "--columns", "teacher")
    shards_main(["annotate", str(copy), "--from", str(folder / "teacher.parquet"), *by])
    return copy


def test_no_objective_is_left_out_here():
    assert set(objective_names()) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_training_of_every_objective_ends_with_the_same_weights(taught, tmp_path, monkeypatch, kind):
    settings = _settings(kind) | {"checkpoint_every": 2, "ema_decay": 0.5}
    main(_flags(taught, tmp_path / "whole", settings))
    weights = next((tmp_path / "whole" / "export").glob("*model.safetensors"))
    losses = [line["loss"] for line in read_metrics(tmp_path / "whole" / "metrics.jsonl") if "loss" in line]
    assert len(losses) == 6 and all(math.isfinite(loss) for loss in losses)
    # A step that fails after the second checkpoint, and the same command again.
    step = loop.Trainer.train_step

    def failing(trainer, batch):
        if trainer.step == 5:
            raise KeyboardInterrupt
        step(trainer, batch)

    monkeypatch.setattr(loop.Trainer, "train_step", failing)
    with pytest.raises(KeyboardInterrupt):
        main(_flags(taught, tmp_path / "cut", settings))
    monkeypatch.setattr(loop.Trainer, "train_step", step)
    main(_flags(taught, tmp_path / "cut", settings))
    assert sha256_file(tmp_path / "cut" / "export" / weights.name) == sha256_file(weights)


LOADER = """
import json, sys, torch, timm, open_clip
for path in sys.argv[1:]:
    try:
        model = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
        print(json.dumps([path, list(model(torch.rand(2, 3, 32, 32)).shape)]))
    except Exception as error:
        model, _ = open_clip.create_model_from_pretrained(f"local-dir:{path}")
        print(json.dumps([path, list(model.encode_image(torch.rand(2, 3, 32, 32)).shape)]))
"""


def test_plain_timm_and_open_clip_load_what_every_objective_leaves(taught, tmp_path):
    for kind in KINDS:
        main(_flags(taught, tmp_path / kind, _settings(kind) | {"steps": 1}))
    exports = [str(tmp_path / kind / "export") for kind in KINDS]
    done = run_command(sys.executable, "-c", LOADER, *exports, cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr[-2000:]
    shapes = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    widths = {"clip": 8, "siglip": 8, "stablerep-plus": 8, "multipositive": 24, "synclr": 24}
    assert shapes == {str(tmp_path / kind / "export"): [2, widths.get(kind, 10)] for kind in KINDS}


# ------------------------------------------------------------------ what they minimise


def _first(data, tmp_path, **more) -> dict[str, float]:
    """The first line of metrics, before a weight has moved."""
    main(_flags(data, tmp_path / "first", COMMON | {"steps": 1} | more))
    return read_metrics(tmp_path / "first" / "metrics.jsonl")[0]


def test_a_head_of_zeros_begins_at_the_logarithm_of_the_classes(taught, tmp_path):
    assert _first(taught, tmp_path, head_bias=-1.0, label_smoothing=0.2)["loss"] == pytest.approx(math.log(10))


def test_the_sigmoid_loss_begins_where_the_formula_says():
    from synclones.train.objectives import supervised
    from synclones.train.training_batch import TrainingBatch

    logits = torch.full((2, 1000), -6.9)
    batch = TrainingBatch((torch.zeros(2, 3, 8, 8),), torch.tensor([3, 999]), torch.ones(2))
    config = TrainConfig(steps=1, loss="sigmoid", head_bias=-6.9)
    loss = supervised.losses(batch, lambda _: logits, config)["loss"]
    assert loss.tolist() == pytest.approx([7.9073] * 2, abs=1e-4)


def test_the_sigmoid_loss_of_mixed_targets_is_that_of_soft_ones():
    from synclones.train.objectives import supervised
    from synclones.train.training_batch import TrainingBatch

    logits, targets = torch.randn(4, 5), torch.rand(4, 5)
    views = (torch.zeros(4, 3, 8, 8),)
    batch = TrainingBatch(views, torch.tensor([0, 1, 2, 3]), torch.ones(4), targets=targets)
    loss = supervised.losses(batch, lambda _: logits, TrainConfig(steps=1, loss="sigmoid"))["loss"]
    p = logits.sigmoid()
    assert torch.allclose(loss, -(targets * p.log() + (1 - targets) * (1 - p).log()).sum(1), atol=1e-5)


def test_scale_and_bias_begin_where_the_papers_say(taught, tmp_path):
    assert _first(taught, tmp_path / "a", objective="clip", **TEXT)["scale"] == pytest.approx(1 / 0.07)
    siglip = _first(taught, tmp_path / "b", objective="siglip", **TEXT)
    assert siglip["scale"] == pytest.approx(10) and siglip["bias"] == pytest.approx(-10)


def test_stablerep_plus_adds_the_losses_of_images_and_of_texts(taught, tmp_path):
    settings = _settings("stablerep-plus")
    main(_flags(taught, tmp_path / "run", settings))
    for line in read_metrics(tmp_path / "run" / "metrics.jsonl"):
        assert line["loss"] == pytest.approx(line["image_loss"] + line["text_loss"], rel=1e-5)
    # The image tower of the loss is that of open_clip.
    job = prepare(TrainConfig(data=(str(taught),), out=tmp_path / "other", **settings), 0, 1)
    learner = job.objective.build(job.task).eval()
    pixels, tokens = torch.rand(3, 3, 32, 32), torch.ones(3, 12, dtype=torch.int64)
    with torch.no_grad():
        image = learner((pixels, pixels), tokens)["image"]
        theirs = learner.network["clip"].encode_image(learner.normalised(pixels), normalize=True)
    assert torch.allclose(image, theirs, atol=1e-6)


def test_a_cosine_classifier_answers_alike_after_its_export(taught, tmp_path):
    job = prepare(TrainConfig(data=(str(taught),), out=tmp_path / "run", **_settings("multicrop")), 0, 1)
    main(_flags(taught, tmp_path / "run", _settings("multicrop") | {"learning_rate": 0.02}))
    exported = load_classifier(tmp_path / "run")[0]
    learner = job.objective.build(job.task)
    learner.network.load_state_dict(exported.network.state_dict())
    learner.eval()
    pixels = torch.rand(16, 3, 32, 32)
    with torch.no_grad():
        ours, theirs = learner((pixels,))[0], exported(pixels)
    assert torch.equal(ours.argmax(1), theirs.argmax(1))
    # The same directions: logits differ by the length of the features alone.
    ratio = theirs / ours
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-3)


def test_a_student_follows_its_teacher(taught, tmp_path):
    more = {
        "steps": 200,
        "batch_size": 20,
        "learning_rate": 0.01,
        "log_every": 20,
        "crop_scale_min": 1,
        "embed_dim": 48,
    }
    settings = _settings("distillation") | more | {"teacher_temperature": 1, "teacher_share": 1}
    main([*_flags(taught, tmp_path / "run", settings), "--no-flip"])
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert lines[-1]["divergence"] < 0.3 * lines[0]["divergence"] and lines[-1]["accuracy"] > 0.8


# ------------------------------------------------------------------ what is refused


def test_a_teacher_of_other_classes_is_refused_before_anything_is_written(taught, dataset, tmp_path):
    settings = _settings("distillation")
    with pytest.raises(InputError, match=r"needs a column of vectors; name one with --teacher-column"):
        main(_flags(taught, tmp_path / "run", {name: v for name, v in settings.items() if name != "teacher_column"}))
    with pytest.raises(InputError, match="no column 'nobody'"):
        main(_flags(taught, tmp_path / "run", settings | {"teacher_column": "nobody"}))
    assert not (tmp_path / "run").exists()


def test_a_training_in_which_no_image_has_a_positive_is_refused(taught, tmp_path):
    alone = {"objective": "multipositive", "projection_hidden": 16, "projection_dim": 8}
    with pytest.raises(InputError, match=r"--images-per-caption or --views of 2 or more, or --positives label"):
        main(_flags(taught, tmp_path / "run", COMMON | alone))
    with pytest.raises(InputError, match=r"--images-per-caption or --views of 2 or more$"):
        main(_flags(taught, tmp_path / "run", _settings("stablerep-plus") | {"views": 1}))


def test_of_images_without_captions_each_has_its_own_crops_as_only_positives(tmp_path):
    draw = np.random.default_rng(0)
    for number in range(20):
        (tmp_path / "data" / str(number % 2)).mkdir(parents=True, exist_ok=True)
        pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / str(number % 2) / f"{number}.png")
    settings = {"objective": "multipositive", "views": 2, "temperature": 0.5, "projection_hidden": 16}
    config = TrainConfig(data=(str(tmp_path / "data"),), out=tmp_path / "run", **COMMON | settings)
    job = prepare(config, 0, 1)
    trainer = loop.Trainer(job, Accelerator(cpu=True))
    (batch,) = job.loader().batches(0, 1)
    part = trainer.presenter.present(batch, slice(0, 12))
    assert len(set(part.caption.tolist())) == 12
    # NT-Xent (Chen et al. 2020, equation 1): each crop finds the other one of its image among all but itself.
    rows = job.objective.embed(part, trainer.learner.eval(), config)
    embedded = Embedded(rows, {}, part.labels, part.weights, part.caption, part.caption)
    losses, counts = job.objective.contrast(embedded, embedded, config)
    features = torch.cat([rows["features"][:, 0], rows["features"][:, 1]])
    logits = (features @ features.T / 0.5).fill_diagonal_(-torch.inf)
    expected = (
        torch.nn.functional.cross_entropy(logits, torch.arange(24).roll(12), reduction="none").view(2, 12).mean(0)
    )
    assert counts.all() and torch.allclose(losses["loss"], expected, atol=1e-5)


def test_a_transformer_with_mlps_of_its_own_width_is_exported_and_no_clip(dataset, tmp_path):
    main(_flags(dataset, tmp_path / "run", COMMON | {"mlp_ratio": 1.0, "steps": 1}))
    model = load_classifier(tmp_path / "run")[0]
    assert model.network.blocks[0].mlp.fc1.out_features == 24
    assert json.loads((tmp_path / "run" / "export" / "config.json").read_text())["model_args"]["mlp_ratio"] == 1.0
    main(_flags(dataset, tmp_path / "on", COMMON | {"weights": tmp_path / "run", "mlp_ratio": 1.0, "steps": 1}))
    with pytest.raises(InputError, match="--mlp-ratio: clip builds towers with MLPs of four times their width"):
        main(_flags(dataset, tmp_path / "clip", _settings("clip") | {"mlp_ratio": 1.0}))


def test_images_without_captions_are_refused_before_anything_is_written(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(8):
            pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    with pytest.raises(InputError, match="its first image has no caption; .* --caption-column"):
        main(_flags(tmp_path / "images", tmp_path / "run", _settings("clip")))
    assert not (tmp_path / "run").exists()


def test_what_a_network_cannot_do_is_refused_and_not_passed_over(taught, tmp_path):
    with pytest.raises(InputError, match="--drop-path: the objective clip does not read it"):
        main(_flags(taught, tmp_path / "run", _settings("clip") | {"drop_path": 0.1}))
    with pytest.raises(InputError, match="--warmup-steps, --warmup-samples: both were given"):
        main(_flags(taught, tmp_path / "run", COMMON | {"warmup_steps": 2, "warmup_samples": 20}))
    for kind in ("clip", "siglip", "stablerep-plus"):
        with pytest.raises(InputError, match="crops nothing beyond the square"):
            main(_flags(taught, tmp_path / "run", _settings(kind) | {"crop_fraction": 0.875}))
    assert not (tmp_path / "run").exists()
    main(_flags(taught, tmp_path / "run", _settings("multipositive") | {"steps": 1}))
    with pytest.raises(InputError, match="a backbone, which has no classes"):
        load_classifier(tmp_path / "run")


def test_a_model_of_open_clip_is_named_by_its_architecture():
    named = {"architecture": "ViT-B-32", "image_size_px": 224, "objective": "clip", "steps": 1}
    check_settings(TrainConfig(**named), 1)
    with pytest.raises(InputError, match="has a shape of its own; leave out text_width"):
        check_settings(TrainConfig(**named, text_width=256), 1)


def test_settings_of_several_numbers_resume(taught, tmp_path):
    settings = COMMON | {"schedule": "step", "steps": 4, "checkpoint_every": 2}
    flags = [*_flags(taught, tmp_path / "run", settings), "--step-at", "0.3", "0.7"]
    main(flags)
    (tmp_path / "run" / "manifest.json").unlink()
    main(flags)
    assert (tmp_path / "run" / "manifest.json").exists()


def test_a_finished_clip_takes_the_classes_that_are_named_later(taught, tmp_path, capsys):
    settings = _settings("clip") | {"steps": 1}
    main(_flags(taught, tmp_path / "run", settings))
    classes = ROOT / "prompts" / "classes" / "lab_digits.csv"
    main(_flags(taught, tmp_path / "run", settings | {"zero_shot_classes": classes}))
    assert "complete, 1 step; " in (said := capsys.readouterr().err) and "classifies by 10 classes now" in said
    assert load_model(tmp_path / "run")[0].class_ids == tuple("0123456789")
    main(_flags(taught, tmp_path / "run", settings | {"zero_shot_classes": classes}))
    assert "nothing to do" in capsys.readouterr().err


def test_equal_texts_belong_together_whatever_their_captions_are_numbered(taught, tmp_path):
    """Captions of a class list are numbered row by row; their texts are ten."""
    job = prepare(TrainConfig(data=(str(taught),), out=tmp_path / "run", **_settings("stablerep-plus")), 0, 1)
    trainer = loop.Trainer(job, Accelerator(cpu=True))
    batch = next(job.loader().batches(0, 1))
    seen = trainer.presenter.present(batch, slice(0, 12))
    assert len(seen.caption.unique()) == 12
    assert len(seen.text.unique()) == len({tuple(row) for row in seen.tokens.tolist()})
