"""SynCLR: losses are the formulas written out, masks and targets know no batches, the teacher is the average."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from conftest import ROOT, run_command

from synclones.base.errors import InputError
from synclones.train.augmentation.masking import hidden_patches
from synclones.train.contrast.masked_learner import MaskedLearner
from synclones.train.contrast.prototypes import PatchHead, balance, patch_losses
from synclones.train.job import prepare
from synclones.train.loop import Trainer
from synclones.train.network.learners import normalised_layers
from synclones.train.objectives import synclr
from synclones.train.progress import read_metrics
from synclones.train.run import main
from synclones.train.settings import TrainConfig
from synclones.train.shares import Shares
from synclones.train.step.ema import twin
from synclones.train.step.gradients import of_single_images, shares, taught

SETTINGS = {
    **{"objective": "synclr", "positives": "label", "temperature": 0.2, "ema_decay": 0.9, "ema_schedule": "cosine"},
    **{"architecture": "vit_tiny_patch16_224", "image_size_px": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 2},
    **{"depth": 2, "drop_path": 0.2, "local_views": 2, "local_size_px": 16, "local_scale_max": 0.4},
    **{
        "projection_norm": "layer",
        "projection_hidden": 16,
        "projection_dim": 8,
        "prototypes": 20,
        "prototype_dim": 8,
        "prototype_hidden": 16,
    },
    **{
        "batch_size": 12,
        "steps": 4,
        "log_every": 1,
        "torch_threads": 1,
        "device": "cpu",
        "target_temperature_steps": 2,
    },
}


def _flags(dataset, out, **more) -> list[str]:
    settings = {"data": dataset, "out": out, **SETTINGS, **more}
    return [text for name, value in settings.items() for text in ("--" + name.replace("_", "-"), str(value))]


def _trainer(dataset, out, **more) -> Trainer:
    """A trainer whose teacher is another network than its student."""
    trainer = Trainer(
        prepare(TrainConfig(data=(str(dataset),), out=out, **SETTINGS | more), 0, 1), Accelerator(cpu=True)
    )
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in trainer.ema.network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    trainer.model.train()
    return trainer


def _present(trainer: Trainer, left_out: tuple[int, ...] = ()):
    """The first batch, and what presents parts of it, with what the teacher said and without."""
    batch = next(trainer.job.loader().batches(0, 1))
    weights = batch.weights.clone()
    weights[list(left_out)] = 0
    batch = replace(batch, weights=weights)
    own, present = shares(trainer.job, len(weights)), lambda part: trainer.presenter.present(batch, part)
    return own, present, taught(trainer.job, trainer.accelerator, trainer.teacher, present, own, 1)


def _gradients(
    trainer: Trainer, left_out: tuple[int, ...] = ()
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    own, _, present = _present(trainer, left_out)
    losses = of_single_images(trainer.job, trainer.accelerator, trainer.model, present, own)
    return {name: p.grad.clone() for name, p in trainer.parameters.items()}, losses


# ------------------------------------------------------------------ the formulas


def _contrast(rows, columns, same, itself, temperature) -> np.ndarray:
    """Equations 1 to 3 of the paper, row by row; ``itself``: bool[rows, columns] of no candidates."""
    logits = np.where(itself, -np.inf, rows @ columns.T / temperature)
    q = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p = same & ~itself
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(p, np.log(q), 0).sum(1) / p.sum(1)


def _sinkhorn(logits: np.ndarray) -> np.ndarray:
    """The algorithm as its authors write it: a matrix whose rows and columns are normalised in turn."""
    q = np.exp(logits).T
    q /= q.sum()
    for _ in range(3):
        q = q / q.sum(1, keepdims=True) / q.shape[0]
        q = q / q.sum(0, keepdims=True) / q.shape[1]
    return (q * q.shape[1]).T


def _patch_losses(mine: dict, theirs: dict, counted: np.ndarray) -> np.ndarray:
    """iBOT's cross-entropy of each counted patch, halfway to the teacher's last temperature."""
    logits, targets = (x["patches"][counted] @ x["prototypes"].T for x in (mine, theirs))
    log_q = logits / 0.1 - np.log(np.exp(logits / 0.1).sum(1, keepdims=True))
    return -(_sinkhorn(targets / 0.055) * log_q).sum(1)


def _written_out(trainer: Trainer, left_out: tuple[int, ...] = ()) -> dict[str, float]:
    _, present, with_lesson = _present(trainer, left_out)
    batch, config = present(slice(0, 12)), trainer.job.config
    hidden = with_lesson(slice(0, 12)).lesson.patches.hidden
    with torch.no_grad():
        mine = trainer.learner(batch.views[:1], batch.views[1:], hidden)
        theirs = trainer.teacher.targets(batch.views[:1], hidden)
    mine, theirs = ({name: x.double().numpy() for name, x in said.items()} for said in (mine, theirs))
    keep = [i for i in range(12) if i not in left_out]
    label, columns = batch.labels.numpy()[keep], theirs["global"][keep, 0]
    same, itself = label[:, None] == label[None], np.eye(len(keep), dtype=bool)
    found = {"global_loss": _contrast(mine["global"][keep, 0], columns, same, itself, config.temperature)}
    found["global_loss"] = found["global_loss"][(same & ~itself).any(1)]
    of_local = [
        _contrast(mine["local"][keep, v], columns, same, np.zeros_like(itself), config.temperature) for v in (0, 1)
    ]
    found["local_loss"] = np.mean(of_local, 0)
    # Hidden patches: sixteen of a crop, half of them once it is masked.
    found["patch_loss"] = _patch_losses(mine, theirs, np.isin(hidden.numpy() // 16, keep)).reshape(-1, 8).mean(1)
    return {name: float(each.mean()) for name, each in found.items()}


@pytest.mark.parametrize("left_out", [(), (0, 7)])
def test_each_loss_is_its_formula_written_out(dataset, tmp_path, left_out):
    trainer = _trainer(dataset, tmp_path / "a")
    expected = _written_out(trainer, left_out)
    _, losses = _gradients(trainer, left_out)
    means = {name: float(each.sum()) / (12 - len(left_out)) for name, each in losses.items()}
    assert means.pop("loss") == pytest.approx(sum(expected.values()), rel=1e-5)
    assert means == pytest.approx(expected, rel=1e-5)


def test_several_crops_of_full_size_are_each_others_positives(dataset, tmp_path):
    trainer = _trainer(dataset, tmp_path / "a", views=2, positives="caption", local_views=0)
    _, present, with_lesson = _present(trainer, left_out=(3,))
    batch, hidden = present(slice(0, 12)), with_lesson(slice(0, 12)).lesson.patches.hidden
    with torch.no_grad():
        mine, theirs = trainer.learner(batch.views, (), hidden), trainer.teacher.targets(batch.views, hidden)
    mine, theirs = ({name: x.double().numpy() for name, x in outputs.items()} for outputs in (mine, theirs))
    keep = np.arange(12) != 3
    rows, columns = (x["global"][keep].reshape(22, -1) for x in (mine, theirs))
    caption = batch.caption.numpy()[keep].repeat(2)
    each = _contrast(rows, columns, caption[:, None] == caption[None], np.eye(22, dtype=bool), 0.2)
    losses = _gradients(trainer, left_out=(3,))[1]
    assert float(losses["global_loss"].sum()) / 11 == pytest.approx(each.mean(), rel=1e-5)
    # Masked crops are numbered view by view: each belongs to the image that it shows.
    image = hidden.numpy() // 16 % 12
    counted = keep[image]
    of_crops = _patch_losses(mine, theirs, counted).reshape(-1, 8).mean(1)
    of_images = np.bincount(image[counted][::8], of_crops, 12) * 11 / len(of_crops)
    assert len(of_crops) > 11 - 5 and np.allclose(losses["patch_loss"], of_images, rtol=1e-5)


def test_without_masks_there_is_no_head_of_patches(dataset, tmp_path):
    trainer = _trainer(dataset, tmp_path / "a", mask_probability=0, local_views=0)
    losses = _gradients(trainer)[1]
    assert losses.keys() == {"loss", "global_loss"} and "patches" not in trainer.learner.network


def test_targets_are_those_of_sinkhorn_and_knopp_on_any_division(monkeypatch):
    rows = F.normalize(torch.randn(50, 8, dtype=torch.float64), dim=1)
    prototypes = torch.randn(20, 8, dtype=torch.float64)
    expected = _sinkhorn((rows @ prototypes.T / 0.3).numpy())
    alone = Shares((slice(0, 50),), (50,), 0)
    for at_once in (2**26, 20 * 7, 1):
        monkeypatch.setattr("synclones.train.contrast.prototypes.LOGITS_AT_ONCE", at_once)
        factors = balance(rows, prototypes, 0.3, torch.ones(50), alone)
        targets = (rows @ prototypes.T / 0.3 + factors).softmax(1)
        assert np.allclose(targets, expected, rtol=1e-9)
    # A row without weight changes nothing for the others; without rows there is nothing to balance.
    more, weight = torch.cat([rows, rows[:5] * 3]), torch.cat([torch.ones(50), torch.zeros(5)])
    assert torch.allclose(balance(more, prototypes, 0.3, weight, alone), factors)
    assert torch.equal(balance(rows[:0], prototypes, 0.3, weight[:0], alone), torch.zeros(20, dtype=torch.float64))


def test_patch_losses_have_the_gradient_of_cross_entropy_in_any_blocks(monkeypatch):
    teacher, student = (F.normalize(torch.randn(30, 8, dtype=torch.float64), dim=1) for _ in range(2))
    theirs, mine = torch.randn(20, 8, dtype=torch.float64), torch.randn(20, 8, dtype=torch.float64)
    factors = torch.randn(20, dtype=torch.float64)
    leaves = [student.requires_grad_(), mine.requires_grad_()]
    target = (teacher @ theirs.T / 0.07 + factors).softmax(1)
    expected = F.cross_entropy(student @ mine.T / 0.1, target, reduction="none")
    wanted = torch.autograd.grad(expected.square().sum(), leaves)
    for at_once in (2**26, 20 * 7, 1):
        monkeypatch.setattr("synclones.train.contrast.prototypes.LOGITS_AT_ONCE", at_once)
        each = patch_losses(student, mine, teacher, theirs, factors, 0.07)
        assert torch.allclose(each, expected)
        for ours, other in zip(torch.autograd.grad(each.square().sum(), leaves), wanted, strict=True):
            assert torch.allclose(ours, other)


def test_prototypes_without_length_begin_at_the_logarithm_of_their_number(dataset, tmp_path):
    trainer = _trainer(dataset, tmp_path / "a", patch_loss_weight=2)
    with torch.no_grad():
        trainer.learner.network["patches"].lengths.zero_()
    losses = _gradients(trainer)[1]
    assert float(losses["patch_loss"].mean()) == pytest.approx(2 * math.log(20), rel=1e-6)


def test_at_the_papers_size_the_first_loss_of_patches_is_near_the_logarithm_of_the_prototypes():
    torch.manual_seed(0)
    student, teacher = PatchHead(768, 2048, 256, 65536), PatchHead(768, 2048, 256, 65536)
    patches = F.layer_norm(torch.randn(64, 768), (768,))
    with torch.no_grad():
        mine, theirs = student(patches), teacher(patches)
        factors = balance(*theirs, 0.04, torch.ones(64), Shares((slice(0, 64),), (64,), 0))
        first = float(patch_losses(*mine, *theirs, factors, 0.04).mean())
    # Cosines of unrelated rows in 256 dimensions deviate by 1/16, over 0.1: half of that squared more than ln 65,536.
    assert first == pytest.approx(math.log(65536) + 0.5 * 0.625**2, abs=0.02)


def test_the_teachers_temperature_rises_and_stays():
    config = TrainConfig(steps=1, target_temperature_steps=4000)
    rising = [synclr.target_temperature(config, step) for step in (0, 2000, 4000, 10**6)]
    assert rising == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert synclr.target_temperature(TrainConfig(steps=1, target_temperature_steps=0), 0) == 0.07


# ------------------------------------------------------------------ any division


@pytest.mark.parametrize("left_out", [(), (0, 7)])
def test_parts_of_a_batch_have_the_gradient_of_the_whole(dataset, tmp_path, left_out):
    whole, losses = _gradients(_trainer(dataset, tmp_path / "a"), left_out)
    for size in (1, 5):
        parts, same = _gradients(_trainer(dataset, tmp_path / "b", micro_batch_size=size), left_out)
        for name, each in losses.items():
            assert torch.allclose(same[name], each, rtol=1e-5, atol=1e-6), (name, size)
        for name, gradient in whole.items():
            assert torch.allclose(parts[name], gradient, atol=1e-5 * float(gradient.abs().max()) + 1e-8), (name, size)


def test_two_processes_with_uneven_shares_learn_as_one_does(dataset, tmp_path):
    """Three and four images; with one at a time some parts have no masked crop."""
    more = {"batch_size": 7, "micro_batch_size": 1, "clip_norm": 1000}
    command = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "synclones.train.run")
    done = run_command(*command, *_flags(dataset, tmp_path / "two", **more), cwd=ROOT, ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr[-2000:]
    main(_flags(dataset, tmp_path / "one", **more))
    one, two = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    for ours, theirs in zip(one, two, strict=True):
        for name in ("loss", "global_loss", "local_loss", "patch_loss"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-3)


def test_masks_follow_from_the_image_and_its_showing_alone():
    n = 4000
    names = np.zeros(n, int), np.arange(n) * 3, np.full(n, 2)
    chosen = {"probability": 0.5, "ratio": 0.4}
    masks = hidden_patches(names, 7, 2, 49, **chosen)
    assert set(masks.sum(2).ravel()) == {0, 19}
    assert (masks.any(2)).mean() == pytest.approx(0.5, abs=0.02)
    assert masks.mean((0, 1)) == pytest.approx(0.5 * 19 / 49, abs=0.03)  # no patch is favoured
    some = np.array([17, 5])
    assert np.array_equal(hidden_patches(tuple(x[some] for x in names), 7, 2, 49, **chosen), masks[:, some])
    assert np.array_equal(hidden_patches(names, 7, 1, 49, **chosen)[0], masks[0])
    later = hidden_patches((names[0], names[1], names[2] + 1), 7, 2, 49, **chosen)
    for other in (later, masks[::-1], hidden_patches(names, 8, 2, 49, **chosen)):
        assert (other.any(2) == masks.any(2)).mean() == pytest.approx(0.5, abs=0.03)


# ------------------------------------------------------------------ networks


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_base_patch14_reg4_dinov2", "vit_base_patch16_clip_224"])
def test_without_masks_the_network_is_timms(name):
    network = timm.create_model(name, num_classes=0, img_size=28, patch_size=7, embed_dim=12, depth=2, num_heads=2)
    config = TrainConfig(steps=1, prototypes=5, prototype_dim=4, prototype_hidden=4, projection_hidden=6)
    learner = MaskedLearner(network, _preprocessing(), config).eval()
    pixels = torch.rand(3, 3, 28, 28)
    with torch.no_grad():
        tokens = learner._tokens(pixels)
        assert torch.equal(tokens, network.forward_features(learner.normalised(pixels)))
        # A hidden patch is the token, whatever it shows.
        hidden = torch.tensor([3, 16 + 5])
        before = learner._tokens(pixels, hidden)
        pixels[0, :, :7, 21:28] = 0.2
        pixels[1, :, 7:14, 7:14] = 0.9
        assert torch.equal(learner._tokens(pixels, hidden), before)
        assert not torch.equal(learner._tokens(pixels, hidden[:1]), before)


def _preprocessing():
    from synclones.models.network import Preprocessing

    return Preprocessing(size_px=28)


def test_heads_are_those_of_moco_v3_or_of_the_released_code():
    of_kind = {"batch": ["Linear", "BatchNorm1d", "ReLU"], "layer": ["Linear", "LayerNorm", "GELU"]}
    for norm, kinds in of_kind.items():
        head = normalised_layers((768, 4096, 4096, 256), norm)
        assert [type(layer).__name__ for layer in head] == [*kinds, *kinds, *kinds[:2]]
        assert head[6].bias is None and head[7].weight is None and (head[0].bias is None) == (norm == "batch")
        assert float(head[3].weight.detach().std()) == pytest.approx(0.02, rel=0.02)
        rows, over = head(torch.randn(8, 768)), 0 if norm == "batch" else 1
        assert torch.allclose(rows.mean(over), torch.zeros(()), atol=1e-5)
        assert torch.allclose(rows.var(over, correction=0), torch.ones(()), atol=1e-2)


def test_heads_that_normalise_by_the_batch_see_all_crops_of_a_part_and_a_teacher_does_not(dataset, tmp_path):
    trainer = _trainer(dataset, tmp_path / "a", projection_norm="batch", drop_path=0)
    _, present, with_lesson = _present(trainer)
    batch, nothing = present(slice(0, 12)), torch.zeros(0, dtype=torch.int64)
    with torch.no_grad():
        trainer.teacher.network["projection"][1].running_mean.normal_()
        few = trainer.teacher.targets([batch.views[0][:3]], nothing)["global"]
        assert torch.allclose(trainer.teacher.targets(batch.views[:1], nothing)["global"][:3], few, atol=1e-6)
        together = trainer.learner(batch.views[:1], batch.views[1:], nothing)
        alone = trainer.learner(batch.views[:1], (), nothing)["global"]
    assert together["local"].shape == (12, 2, 8) and not torch.allclose(together["global"], alone, atol=1e-3)
    losses = of_single_images(trainer.job, trainer.accelerator, trainer.model, with_lesson, shares(trainer.job, 12))
    assert all(torch.isfinite(each).all() for each in losses.values())
    with pytest.raises(InputError, match="cannot be trained on 1 image .*more than 1 value per channel"):
        more = {"projection_norm": "batch", "micro_batch_size": 1, "local_views": 0}
        main(_flags(dataset, tmp_path / "run", **more))


# ------------------------------------------------------------------ the teacher


def test_a_twin_looks_through_the_average():
    learner = MaskedLearner(
        timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=16, embed_dim=12, depth=1, num_heads=2),
        _preprocessing(),
        TrainConfig(steps=1, mask_probability=0, projection_hidden=6),
    )
    other = torch.nn.ModuleDict({"any": torch.nn.Linear(2, 2)})
    same = twin(learner, other)
    assert same.network is other and learner.network is not other and not same.training and learner.training
    assert type(same) is MaskedLearner and same.mean is not learner.mean


def test_the_teacher_takes_no_gradient_and_follows_the_schedule(dataset, tmp_path):
    trainer = _trainer(dataset, tmp_path / "a")
    for number, batch in enumerate(trainer.job.loader().batches(0, 2)):
        before = {name: tensor.clone() for name, tensor in trainer.ema.state_dict().items()}
        trainer.train_step(batch)
        assert all(p.grad is None and not p.requires_grad for p in trainer.teacher.parameters())
        decay = 1 - 0.1 * (math.cos(math.pi * number / 4) + 1) / 2
        for name, parameter in trainer.learner.network.state_dict().items():
            expected = decay * before[name] + (1 - decay) * parameter
            assert torch.allclose(trainer.ema.state_dict()[name], expected, atol=1e-6), name


def test_every_parameter_of_the_student_learns(dataset, tmp_path):
    gradients, _ = _gradients(_trainer(dataset, tmp_path / "a", drop_path=0))
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients.values())


def test_what_is_exported_is_the_teachers_backbone(dataset, tmp_path):
    from synclones.train.recovery.checkpoint import newest_checkpoint

    main(_flags(dataset, tmp_path / "run"))
    teacher = newest_checkpoint(tmp_path / "run" / "checkpoints").ema
    network = timm.create_model(f"local-dir:{tmp_path / 'run' / 'export'}", pretrained=True)
    assert {f"backbone.{name}" for name in network.state_dict()} == {n for n in teacher if n.startswith("backbone.")}
    assert all(torch.equal(tensor, teacher[f"backbone.{name}"]) for name, tensor in network.state_dict().items())


def test_a_small_training_learns(dataset, tmp_path):
    more = {"steps": 80, "batch_size": 24, "learning_rate": 0.005, "log_every": 20, "drop_path": 0, "views": 2}
    more |= {"embed_dim": 48, "projection_dim": 32, "projection_hidden": 64, "temperature": 0.1}
    more |= {"crop_scale_min": 0.8, "local_scale_min": 0.4, "local_scale_max": 0.6, "positives": "caption"}
    main([*_flags(dataset, tmp_path / "run", **more), "--no-flip"])
    first, *_, last = read_metrics(tmp_path / "run" / "metrics.jsonl")
    for name in ("global_loss", "local_loss", "patch_loss"):
        assert last[name] < 0.9 * first[name], (first, last)


# ------------------------------------------------------------------ what is refused


def test_what_synclr_cannot_train_is_refused_in_one_line(dataset, tmp_path):
    def refused(match, **more):
        with pytest.raises(InputError, match=match):
            main(_flags(dataset, tmp_path / "run", **more))

    refused(r"--ema-decay: 0 was given, the teacher of synclr is the moving average of the weights", ema_decay=0)
    refused(
        r"resnet18: .* this is a ResNet; choose one such as vit_base", architecture="resnet18", drop_path=0, **NO_SHAPE
    )
    refused(r"--images-per-caption or --views of 2 or more, or --positives label", positives="caption")
    refused(r"cannot be trained on 12 images of 32 px by synclr .*should be divisible by patch size", local_size_px=12)
    refused(r"--teacher-share: the objective synclr does not read it", teacher_share=0.5)
    assert not (tmp_path / "run").exists()


NO_SHAPE = {"patch_size": 0, "embed_dim": 0, "depth": 0, "num_heads": 0}
