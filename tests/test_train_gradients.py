"""Losses between images: the gradient of one large batch, whatever its division into parts and processes."""

import json
import sys
from io import BytesIO

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from conftest import QUICK, ROOT, run_command
from PIL import Image

import synclones.train.objectives.multipositive as multipositive
from synclones.base.errors import InputError
from synclones.generate.run import main as generate_main
from synclones.models.load import load_model
from synclones.prompts.run import main as prompts_main
from synclones.shards.loading.crops import Crops
from synclones.train.batches.presenting import text_numbers
from synclones.train.job import prepare
from synclones.train.loop import Trainer
from synclones.train.progress import read_metrics
from synclones.train.run import main
from synclones.train.settings import TrainConfig
from synclones.train.step.gradients import between_images, shares

SHAPE = {"architecture": "vit_tiny_patch16_224", "image_size_px": 32, "patch_size": 8, "embed_dim": 24, "depth": 1}
COMMON = SHAPE | {"num_heads": 2, "batch_size": 12, "steps": 4, "log_every": 1, "torch_threads": 1, "device": "cpu"}
TEXT = {"text_width": 16, "text_heads": 2, "text_layers": 1, "joint_dim": 8, "text_length": 12}
HEAD = {"projection_hidden": 16, "projection_dim": 8}
KINDS = {
    "clip": {"objective": "clip", **TEXT},
    "siglip": {"objective": "siglip", **TEXT},
    "multipositive": {"objective": "multipositive", "views": 2, "positives": "label", **HEAD},
}


@pytest.fixture
def without_norm(monkeypatch):
    """A projection that takes each image by itself, as statistics of a batch depend on its division."""
    plain = lambda width, hidden, outputs: torch.nn.Sequential(  # noqa: E731
        torch.nn.Linear(width, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, outputs)
    )
    monkeypatch.setattr(multipositive, "projection", plain)


def _config(dataset, out, **more) -> TrainConfig:
    return TrainConfig(data=(str(dataset),), out=out, **COMMON | more)


def _flags(dataset, out, **more) -> list[str]:
    settings = {"data": dataset, "out": out, **COMMON, **more}
    return [text for name, value in settings.items() for text in ("--" + name.replace("_", "-"), str(value))]


def _trainer(dataset, out, **more) -> Trainer:
    job = prepare(_config(dataset, out, **more), 0, 1)
    trainer = Trainer(job, Accelerator(cpu=True))
    trainer.model.train()
    return trainer


def _gradients(trainer: Trainer) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """One batch's gradients by name, and the mean of its losses."""
    batch = next(trainer.job.loader().batches(0, 1))
    present = lambda part: trainer.presenter.present(batch, part)  # noqa: E731
    own = shares(trainer.job, len(batch.labels))
    losses, counts = between_images(trainer.job, trainer.accelerator, trainer.model, present, own, trainer._reseed)
    mean = losses["loss"].sum() / counts.sum()
    return {name: p.grad.clone() for name, p in trainer.parameters.items()}, mean


def _naive(trainer: Trainer) -> torch.Tensor:
    """The same loss written out with a mask of all pairs, its gradients left in the parameters."""
    batch = next(trainer.job.loader().batches(0, 1))
    seen = trainer.presenter.present(batch, slice(0, len(batch.labels)))
    rows = trainer.job.objective.embed(seen, trainer.model, trainer.job.config)
    if "image" in rows:
        logits = rows["scale"] * rows["image"] @ rows["text"].T
        same = (seen.tokens[:, None] == seen.tokens[None]).all(-1).float()
        if trainer.job.objective.name == "siglip":
            signs = 2 * same - 1
            loss = -F.logsigmoid(signs * (logits + rows["bias"])).sum(1).mean()
        else:
            target = same / same.sum(1, keepdim=True)
            loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    else:
        features = rows["features"].flatten(0, 1)
        label = seen.labels.repeat_interleave(rows["features"].shape[1])
        logits = (features @ features.T / trainer.job.config.temperature).fill_diagonal_(-torch.inf)
        same = (label[:, None] == label[None]).float().fill_diagonal_(0)
        log = logits.log_softmax(1).masked_fill(torch.eye(len(label), dtype=bool), 0)
        loss = -((same * log).sum(1) / same.sum(1)).mean()
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_formula_written_out(dataset, tmp_path, kind):
    gradients, mean = _gradients(_trainer(dataset, tmp_path / "a", **KINDS[kind]))
    naive = _trainer(dataset, tmp_path / "b", **KINDS[kind])
    assert mean == pytest.approx(float(_naive(naive)), rel=1e-5)
    # What batch normalisation takes away has a gradient of nothing but rounding.
    rounding = 1e-6 * max(float(parameter.grad.abs().max()) for parameter in naive.parameters.values())
    for name, parameter in naive.parameters.items():
        largest = float(parameter.grad.abs().max())
        assert torch.allclose(gradients[name], parameter.grad, atol=1e-4 * largest + rounding), name


@pytest.fixture
def in_float64(monkeypatch):
    """Arithmetic whose rounding is far below what is compared, whatever kernels a processor has for small batches.

    The networks ask for float32 at least by `Tensor.float`; what is float64 stays so.
    """
    narrow = torch.Tensor.float
    keep = lambda tensor: tensor if tensor.dtype == torch.float64 else narrow(tensor)  # noqa: E731
    monkeypatch.setattr(torch.Tensor, "float", keep)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_batch_have_the_gradient_of_the_whole(dataset, tmp_path, kind, without_norm, in_float64):
    def gradients(name, **more):
        trainer = _trainer(dataset, tmp_path / name, **more, **KINDS[kind])
        trainer.model.double()
        return _gradients(trainer)

    whole, mean = gradients("a")
    assert {gradient.dtype for gradient in whole.values()} == {torch.float64}
    for size in (1, 5):
        parts, same = gradients("b", micro_batch_size=size)
        assert same == pytest.approx(float(mean), rel=1e-9)
        for name, gradient in whole.items():
            largest = float(gradient.abs().max())
            assert torch.allclose(parts[name], gradient, rtol=1e-9, atol=1e-9 * largest + 1e-12), (name, size)


def test_parts_draw_alike_in_both_passes(dataset, tmp_path):
    """Left out patches differ from part to part, and are the same when a part is embedded again."""
    more = KINDS["clip"] | {"patch_dropout": 0.5, "micro_batch_size": 4}
    trainer, seen = _trainer(dataset, tmp_path / "a", **more), []
    embed = trainer.job.objective.embed
    recorded = lambda *given: seen.append(embed(*given)) or seen[-1]  # noqa: E731
    trainer.job.objective.__class__ = type(
        "Recorded", (type(trainer.job.objective),), {"embed": property(lambda _: recorded)}
    )
    _gradients(trainer)
    first, second = seen[:3], seen[3:]
    for before, after in zip(first, second, strict=True):
        assert torch.equal(before["image"], after["image"])


@pytest.mark.parametrize("kind", ["clip", "multipositive"])
def test_two_processes_compare_as_one_does(dataset, tmp_path, kind, without_norm):
    """Shares of 3 and 4 groups, so that processes differ in size."""
    more = KINDS[kind] | ({"batch_size": 7} if kind == "clip" else {"batch_size": 7, "views": 1})
    # Batch normalisation sees the images of its own process: with one image per statistic nothing could be equal.
    script = "import sys, torch, synclones.train.objectives.multipositive as m, synclones.train.run as r\n"
    script += (
        "nn = torch.nn\nm.projection = lambda w, h, o: nn.Sequential(nn.Linear(w, h), nn.ReLU(), nn.Linear(h, o))\n"
    )
    script += "r.main(sys.argv[1:])\n"
    (tmp_path / "plain.py").write_text(script)
    command = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(tmp_path / "plain.py"))
    done = run_command(*command, *_flags(dataset, tmp_path / "two", **more), cwd=ROOT, ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr[-2000:]
    main(_flags(dataset, tmp_path / "one", **more))
    one, two = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    for ours, theirs in zip(one, two, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-3)


def test_equal_texts_have_equal_numbers_and_others_differ():
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.integers(0, 49_408, (20_000, 24)))
    tokens[1] = tokens[0]
    one_apart = tokens[2].clone()
    one_apart[5], one_apart[6] = one_apart[6].clone(), one_apart[5].clone()
    tokens[3] = one_apart
    numbers = text_numbers(tokens)
    assert numbers[0] == numbers[1] and numbers[2] != numbers[3]
    assert len(numbers.unique()) == len(tokens) - 1


def test_local_crops_are_those_of_crops_that_count_on():
    stored = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 60, 3), dtype=np.uint8)).save(stored, "png")
    local = Crops(size_px=16, scale_min=0.05, scale_max=0.2, views=3, first_view=2, flip=True, seed=5)
    both = Crops(size_px=32, scale_min=0.3, views=2, flip=True, seed=5, local=local)
    large, small = np.zeros((2, 32, 32, 3), np.uint8), np.zeros((3, 16, 16, 3), np.uint8)
    both.fill(stored.getvalue(), 0, 7, 1, large, small, where="here")
    alone, again = np.zeros_like(small), np.zeros_like(large)
    local.fill(stored.getvalue(), 0, 7, 1, alone, where="here")
    Crops(size_px=32, scale_min=0.3, views=2, flip=True, seed=5).fill(stored.getvalue(), 0, 7, 1, again, where="here")
    assert np.array_equal(small, alone) and np.array_equal(large, again)
    areas = local.parameters(0, 7, 1, 80, 60)[0][:, 2:].prod(1) / 4800
    assert ((areas > 0.03) & (areas < 0.25)).all()


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """Twelve captions with two images each, and no labels."""
    folder = tmp_path_factory.mktemp("captioned")
    digits = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    captions = [f"a photo of the digit {digit}." for digit in digits]
    captions += [f"a bright photo of the digit {digit}." for digit in digits[:2]]
    (folder / "captions.txt").write_text("\n".join(captions))
    table = ("--recipe", "text-file", "--captions", str(folder / "captions.txt"), "--images-per-caption", "2")
    prompts_main(["build", *table, "--out", str(folder / "p.parquet")])
    generate_main(["--prompts", str(folder / "p.parquet"), "--out", str(folder / "set"), *QUICK])
    return folder / "set"


def test_a_batch_holds_the_images_of_each_caption_together(captioned, tmp_path):
    more = {"objective": "multipositive", "images_per_caption": 2, "batch_size": 6, **HEAD}
    job = prepare(_config(captioned, tmp_path / "run", **more), 0, 1)
    batch = next(job.loader().batches(0, 1))
    caption = batch.extras.caption.view(-1, 2)
    assert (caption[:, 0] == caption[:, 1]).all() and len(caption[:, 0].unique()) == 3
    index = batch.index.reshape(-1, 2)
    assert (index[:, 0] // 2 == index[:, 1] // 2).all() and (index[:, 0] != index[:, 1]).all()
    main(_flags(captioned, tmp_path / "run", **more))
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["loss"] > 0
    with pytest.raises(InputError, match="--batch-size: 7 is not a multiple of 2 images per group"):
        main(_flags(captioned, tmp_path / "other", **more | {"batch_size": 7}))


def test_processes_know_which_images_of_a_batch_are_theirs(captioned, tmp_path):
    more = {"objective": "multipositive", "images_per_caption": 2, "batch_size": 6, **HEAD}
    first = 0
    for rank in range(2):
        job = prepare(_config(captioned, tmp_path / "run", **more), rank, 2)
        batch = next(job.loader().batches(0, 1))
        own = shares(job, len(batch.labels))
        assert own.first == batch.first == first and own.counts[rank] == len(batch.labels)
        first += len(batch.labels)
    assert first == 6 and own.counts == (2, 4)


def test_crops_of_an_image_share_its_stochastic_depth(dataset, tmp_path):
    more = KINDS["multipositive"] | {"depth": 2, "drop_path": 0.5, "micro_batch_size": 6}
    trainer = _trainer(dataset, tmp_path / "run", **more)
    _gradients(trainer)
    drop = next(m for m in trainer.learner.modules() if type(m).__name__ == "SeededDropPath" and m.layer == 1)
    branch = drop(torch.ones(12, 3))  # two crops of the six images of the last part
    assert torch.equal(branch[:6], branch[6:]) and 0 < int((branch[:, 0] == 0).sum()) < 12
    with pytest.raises(RuntimeError, match="stochastic depth of 18 images"):
        drop(torch.ones(18, 3))


def test_settings_that_an_objective_does_not_read_are_refused(dataset, tmp_path):
    with pytest.raises(InputError, match=r"--temperature: the objective supervised does not read it; leave it out"):
        main(_flags(dataset, tmp_path / "run", temperature=0.2))
    with pytest.raises(InputError, match=r"--label-smoothing: the objective clip does not read it.*--text-length"):
        main(_flags(dataset, tmp_path / "run", **KINDS["clip"], label_smoothing=0.1))
    with pytest.raises(InputError, match=r"holds no caption with 2 images; .*lower --images-per-caption"):
        more = {"objective": "multipositive", "images_per_caption": 2, **HEAD}
        main(_flags(dataset, tmp_path / "run", **more))
    assert not (tmp_path / "run").exists()


def test_plans_say_what_the_objective_reads_and_nothing_else(dataset, tmp_path):
    job = prepare(_config(dataset, tmp_path / "run", **KINDS["clip"]), 0, 1)
    assert job.plan["text_width"] == 16 and job.plan["objective"] == "clip"
    assert len(job.plan["tokenizer"]["vocabulary_sha256"]) == 64
    assert "temperature" not in job.plan and "mixup_alpha" not in job.plan and "ema_decay" not in job.plan
    averaged = prepare(_config(dataset, tmp_path / "run", ema_decay=0.9), 0, 1)
    assert averaged.plan["ema_decay"] == 0.9 and "objective" not in averaged.plan


def test_the_average_is_what_is_exported_and_resumed(dataset, tmp_path):
    from synclones.models.folder import load_classifier
    from synclones.train.recovery.checkpoint import newest_checkpoint

    main(_flags(dataset, tmp_path / "run", ema_decay=0.5, checkpoint_every=2))
    checkpoint = newest_checkpoint(tmp_path / "run" / "checkpoints")
    exported = load_classifier(tmp_path / "run")[0].network.state_dict()
    assert all(torch.equal(exported[name], tensor) for name, tensor in checkpoint.ema.items())
    assert not all(torch.equal(exported[name], tensor) for name, tensor in checkpoint.model.items())
    assert "average" in (tmp_path / "run" / "export" / "README.md").read_text()


def test_images_without_labels_train_what_needs_none(captioned, tmp_path):
    main(_flags(captioned, tmp_path / "run", **KINDS["clip"]))
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["classes"] == []
    with pytest.raises(InputError, match="no labels"):
        main(_flags(captioned, tmp_path / "other"))
    with pytest.raises(InputError, match="no labels"):
        main(_flags(captioned, tmp_path / "other", **KINDS["multipositive"]))


def test_a_trained_clip_classifies_by_the_names_it_was_given(dataset, tmp_path):
    classes = ROOT / "prompts" / "classes" / "lab_digits.csv"
    main(_flags(dataset, tmp_path / "run", **KINDS["clip"], zero_shot_classes=classes))
    classifier, _ = load_model(tmp_path / "run")
    assert classifier.class_ids == tuple("0123456789")
    assert classifier(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    (tmp_path / "bad.csv").write_text("class_id,name\n0,zero\n1,\n")
    with pytest.raises(InputError, match="bad.csv:3: has no class_id or no name"):
        main(_flags(dataset, tmp_path / "other", **KINDS["clip"], zero_shot_classes=tmp_path / "bad.csv"))
    with pytest.raises(InputError, match="none.csv: no such file"):
        main(_flags(dataset, tmp_path / "other", **KINDS["clip"], zero_shot_classes=tmp_path / "none.csv"))
    assert not (tmp_path / "other").exists()
