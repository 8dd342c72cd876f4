"""The linear probe: as good as scikit-learn's, heads that do not know of each other, a backbone that stays as it is."""

import json

import numpy as np
import pytest
import timm
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from synclones.base.errors import InputError
from synclones.models.folder import load_classifier
from synclones.shards.sources.labelled import LabelledSource
from synclones.train.job import prepare
from synclones.train.measures.probe import (
    RATES,
    Heads,
    accuracies,
    best_head,
    folded,
    head_losses,
    train_heads,
    weighted,
)
from synclones.train.objective import Task, load_objective
from synclones.train.progress import read_metrics
from synclones.train.recovery.checkpoint import read_checkpoint
from synclones.train.recovery.folder_names import list_checkpoints
from synclones.train.run import main
from synclones.train.settings import TrainConfig, identity
from synclones.train.step.optimizer import new_optimizer, set_step
from synclones.train.training_batch import TrainingBatch

SHAPE = {"architecture": "vit_tiny_patch16_224", "image_size_px": 32, "patch_size": 8, "embed_dim": 24, "depth": 1}
COMMON = SHAPE | {"num_heads": 2, "batch_size": 12, "steps": 6, "log_every": 1, "torch_threads": 1, "device": "cpu"}
PROBE = COMMON | {
    **{"objective": "probe", "optimizer": "sgd", "weight_decay": 0.0, "clip_norm": 1e6, "learning_rate": 1.0},
    **{"hold_out": 0.2, "warmup": 0.0},
}


def _flags(data, out, **settings) -> list[str]:
    pairs = {"data": data, "out": out, **PROBE, **settings}
    words = [("--" + name.replace("_", "-"), value) for name, value in pairs.items()]
    return [text for flag, value in words for text in ([flag] if value is True else [flag, str(value)])]


# ------------------------------------------------------------------ heads on features


def test_the_best_head_is_as_good_as_scikit_learn_s_logistic_regression():
    torch.set_num_threads(1)
    digits = load_digits()
    features, labels = digits.data.astype(np.float32), digits.target
    order, right, theirs = np.random.default_rng(0).permutation(len(features)), 0, 0
    for fold in range(5):
        test = order[fold::5]
        train = np.setdiff1d(order, test)
        standard = (features - features[train].mean(0)) / (features[train].std(0) + 1e-3)
        given = torch.from_numpy(features[train]), torch.from_numpy(labels[train])
        heads = train_heads(*given, 10, epochs=20, batch_size=32, seed=fold)
        right += accuracies(heads, torch.from_numpy(features[test]), torch.from_numpy(labels[test]))[0] * len(test)
        fits = [LogisticRegression(C=c, max_iter=1000).fit(standard[train], labels[train]) for c in (0.3, 1)]
        theirs += np.array([fit.score(standard[test], labels[test]) for fit in fits]) * len(test)
    ours, peer = float(right.max()) / len(labels), theirs.max() / len(labels)
    assert peer > 0.965 and abs(ours - peer) < 0.003
    assert float(right.min()) / len(labels) < 0.9  # the lowest rate has not arrived: the rates differ


def test_ten_heads_together_are_each_what_it_is_alone():
    draw = torch.Generator().manual_seed(0)
    features, labels = torch.randn(200, 12, generator=draw), torch.randint(0, 4, (200,), generator=draw)
    together = train_heads(features, labels, 4, epochs=3, batch_size=64, seed=1)
    state = torch.get_rng_state()
    for number in (0, 6, 9):
        alone = train_heads(features, labels, 4, epochs=3, batch_size=64, rates=[RATES[number]], seed=1)
        assert torch.allclose(alone.weight[0], together.weight[number], atol=1e-6)
        assert torch.allclose(alone.bias[0], together.bias[number], atol=1e-6)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.allclose(together.weight[0], together.weight[9], atol=1e-2)


def test_a_weighted_loss_steps_every_head_at_its_own_rate():
    torch.manual_seed(0)
    heads, features, labels = Heads(2, 5, 3), torch.randn(8, 5), torch.randint(0, 3, (8,))
    plain = nn.Linear(5, 3)
    with torch.no_grad():
        plain.weight.copy_(heads.weight[1]), plain.bias.copy_(heads.bias[1])
    ours = torch.optim.SGD(heads.parameters(), lr=0.5, momentum=0.9)
    theirs = torch.optim.SGD(plain.parameters(), lr=0.5 * 0.2 * 512 / 256, momentum=0.9)
    for _ in range(3):
        ours.zero_grad(), theirs.zero_grad()
        weighted(head_losses(heads(features), labels), [0.01, 0.2], batch_size=512).mean().backward()
        torch.nn.functional.cross_entropy(plain(features), labels).backward()
        ours.step(), theirs.step()
    assert torch.allclose(heads.weight[1], plain.weight, atol=1e-6)
    assert not torch.allclose(heads.weight[0], plain.weight, atol=1e-3)


def test_a_folded_layer_does_what_normalisation_and_layer_do():
    torch.manual_seed(0)
    norm, layer = nn.BatchNorm1d(6, affine=False, eps=1e-6), nn.Linear(6, 3)
    norm(3 + 2 * torch.randn(50, 6))
    rows = torch.randn(9, 6)
    weight, bias = folded(layer.weight.detach(), layer.bias.detach(), norm)
    with torch.no_grad():
        assert torch.allclose(rows @ weight.T + bias, layer(norm.eval()(rows)), atol=1e-5)


# ------------------------------------------------------------------ the objective


def test_the_backbone_is_in_evaluation_and_without_gradients_whatever_the_mode():
    config = TrainConfig(
        **{**PROBE, "architecture": "resnet10t", "patch_size": 0, "embed_dim": 0, "depth": 0, "num_heads": 0}
    )
    objective = load_objective("probe")
    from synclones.train.job import _preprocessing

    learner = objective.build(Task(config, tuple("0123456789"), _preprocessing(config))).train()
    before = {name: tensor.clone() for name, tensor in learner.backbone.state_dict().items()}
    assert any("running_mean" in name for name in before)
    batch = TrainingBatch((torch.rand(4, 3, 32, 32),), torch.arange(4), torch.ones(4))
    objective.losses(batch, learner, config)["loss"].sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.backbone.state_dict().items())
    assert [name for name, p in learner.network.named_parameters() if p.grad is not None] == [
        "heads.weight",
        "heads.bias",
    ]
    assert learner.network["heads"].training and not learner.backbone.training


@pytest.mark.parametrize("norm", [True, False], ids=["normalised", "plain"])
def test_the_head_that_is_best_on_held_out_images_is_exported_as_a_plain_classifier(dataset, tmp_path, norm):
    settings = {"validate_every": 3, "steps": 20} | ({"probe_norm": True} if norm else {})
    main(_flags(dataset, tmp_path / "run", **settings))
    network = timm.create_model(f"local-dir:{tmp_path / 'run' / 'export'}", pretrained=True).eval()
    job = prepare(TrainConfig(data=(str(dataset),), out=tmp_path / "run", **PROBE | settings), 0, 1)
    # The last checkpoint's heads, one by one, on the held-out images.
    learner = job.objective.build(job.task)
    stored = read_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1][1]).model
    learner.network.load_state_dict(stored)
    learner.eval()
    images = job.measured.images[0]
    pixels, labels = zip(*(images.read(at, job.preprocessing) for at in range(len(images))), strict=True)
    pixels = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        logits = learner(pixels)
        exported = network(learner.normalised(pixels))
    shares = (logits.argmax(-1) == torch.tensor(labels)).double().mean(1)
    losses = head_losses(logits, torch.tensor(labels)).mean(1)
    best = best_head(shares, losses)
    assert shares[best] == shares.max() and losses[best] == losses[shares == shares.max()].min()
    assert torch.allclose(exported, logits[best], atol=1e-5)
    line = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "accuracy/held-out" in line][-1]
    assert line["step"] == 20 and line["accuracy/held-out"] == pytest.approx(float(shares[best]))
    sentence = f"rate {RATES[best]:g} of 10 rates, accuracy {float(shares[best]):.4f} on 10 images (held-out)"
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["chosen"] == sentence
    assert f"rate {RATES[best]:g} of 10 rates" in (tmp_path / "run" / "export" / "README.md").read_text()
    assert load_classifier(tmp_path / "run")[0].class_ids == tuple("0123456789")


def test_the_papers_choice_names_a_set_and_belongs_to_the_training(dataset, tmp_path):
    chosen = {"hold_out": 0.0, "validate": f"val={dataset}", "probe_select": "val", "steps": 2}
    main(_flags(dataset, tmp_path / "run", **chosen))
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert plan["probe_select"] == "val" and plan["chosen_on"] == [LabelledSource(dataset).content_hash(), "60"]
    with pytest.raises(InputError, match="belongs to another training"):
        main(_flags(dataset, tmp_path / "run", **chosen | {"validate": f"val={dataset},count=20"}))


def test_settings_that_would_not_train_each_head_at_its_rate_are_refused(dataset, tmp_path):
    for settings, match in (
        ({"clip_norm": 1}, "--clip-norm: 1.0 was given, expected 1000000.0"),
        ({"optimizer": "adamw"}, "--optimizer: adamw was given, expected sgd"),
        ({"hold_out": 0}, "the head is chosen on images that are not trained on"),
        ({"probe_select": "val"}, "'val' is none of the sets"),
    ):
        with pytest.raises(InputError, match=match):
            main(_flags(dataset, tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------ LARS, for a single head

LARS = {"optimizer": "lars", "probe_rates": 0.4}


def _mae_step(parameter, momentum, rate):
    """One step of LARS as MAE has it: matrices adapt, with or without decay, biases do not."""
    step = parameter.grad.clone()
    if parameter.ndim > 1:
        step *= 0.001 * parameter.detach().norm() / step.norm()
    momentum.mul_(0.9).add_(step)
    parameter.data.add_(momentum, alpha=-rate)


def test_a_single_head_under_lars_steps_as_mae_s():
    config = TrainConfig(**PROBE | {"optimizer": "lars", "probe_rates": (0.4,), "learning_rate": 2.0, "batch_size": 64})
    objective = load_objective("probe")
    torch.manual_seed(0)
    heads, features, labels = Heads(1, 6, 3), torch.randn(64, 6), torch.randint(0, 3, (64,))
    plain = nn.Linear(6, 3)
    with torch.no_grad():
        plain.weight.copy_(heads.weight[0]), plain.bias.copy_(heads.bias[0])
    network = nn.ModuleDict({"heads": heads})
    optimizer = new_optimizer(network, config, torch.device("cpu"), config, objective.rate_factor(config))
    momenta = [torch.zeros_like(parameter) for parameter in plain.parameters()]
    for step in range(4):
        losses = objective.losses(TrainingBatch((features,), labels, torch.ones(64)), heads, config)
        losses["loss"].mean().backward()
        torch.nn.functional.cross_entropy(plain(features), labels).backward()
        set_step(optimizer, step, 6, config, config)
        rate = 2.0 * 0.4 * 64 / 256 * 0.5 * (1 + np.cos(np.pi * step / 6))
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([rate, rate])
        optimizer.step(), optimizer.zero_grad()
        for parameter, momentum in zip(plain.parameters(), momenta, strict=True):
            _mae_step(parameter, momentum, rate)
            parameter.grad = None
    assert torch.allclose(heads.weight[0], plain.weight, atol=1e-7) and torch.allclose(
        heads.bias[0], plain.bias, atol=1e-7
    )
    first = Heads(1, 6, 3)
    assert (heads.bias[0] - first.bias[0]).abs().max() > 0.01  # it moved


def test_a_plan_says_what_lars_adapts_so_that_older_trainings_are_not_gone_on_with():
    config = TrainConfig(data=("x",), steps=1, optimizer="lars")
    assert identity(config, [], "fp32")["lars_adapts"] == "all matrices"
    assert "lars_adapts" not in identity(TrainConfig(data=("x",), steps=1), [], "fp32")


def test_lars_trains_one_head_without_a_choice_and_no_two(dataset, tmp_path):
    main(_flags(dataset, tmp_path / "run", **LARS, hold_out=0, probe_norm=True, batch_size=24))
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert lines[0]["learning_rate"] == pytest.approx(0.4 * 24 / 256)
    assert "chosen" not in json.loads((tmp_path / "run" / "manifest.json").read_text())
    network = timm.create_model(f"local-dir:{tmp_path / 'run' / 'export'}", pretrained=True)
    assert network.get_classifier().weight.shape == (10, 24)
    for settings, match in (
        ({"optimizer": "lars"}, "--optimizer lars: steps by the norm of all heads together, and 10 rates were given"),
        ({**LARS, "weight_decay": 0.1}, "--weight-decay: 0.1 was given, expected 0.0"),
        ({**LARS, "validate": f"val={dataset}", "probe_select": "val"}, "there is one rate, and nothing to choose"),
        ({"optimizer": "muon", "probe_rates": 0.4}, "--optimizer: muon was given, expected sgd"),
    ):
        with pytest.raises(InputError, match=match):
            main(_flags(dataset, tmp_path / "refused", **settings))
    assert not (tmp_path / "refused").exists()
