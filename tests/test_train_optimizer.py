"""Every optimizer steps as its source does, resumes bit for bit, and follows its schedules."""

import math

import pytest
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2

from synclones.models.network import create_network
from synclones.train.recovery.checkpoint import check_tensors
from synclones.train.settings import TrainConfig
from synclones.train.step.optimizer import (
    OptimizerSettings,
    expected_state,
    learning_rate,
    moments,
    new_optimizer,
    optimizer_state,
    restore_optimizer,
    set_step,
    weight_decay,
)

CPU = torch.device("cpu")
CONFIG = TrainConfig(steps=10, weight_decay=0.1, learning_rate=0.02, warmup=0.2, batch_size=8)
ALL = {
    "adamw": OptimizerSettings(weight_decay_end=0.3),
    "adam": OptimizerSettings(optimizer="adam", beta2=0.95),
    "sgd": OptimizerSettings(optimizer="sgd", nesterov=True),
    "plain": OptimizerSettings(optimizer="sgd", momentum=0.0),
    "lars": OptimizerSettings(optimizer="lars", layer_decay=0.5),
    "muon": OptimizerSettings(optimizer="muon", layer_decay=0.7),
}


def _network():
    torch.manual_seed(0)
    return create_network("vit_tiny_patch16_224", 4, 16, {"depth": 2, "patch_size": 8, "embed_dim": 12, "num_heads": 2})


def _gradients(network, step):
    images = torch.rand((4, 3, 16, 16), generator=torch.Generator().manual_seed(step))
    network.zero_grad()
    F.cross_entropy(network(images), torch.arange(4)).backward()


def _train(network, optimizer, settings, first, last):
    for step in range(first, last):
        _gradients(network, step)
        set_step(optimizer, step, 10, CONFIG, settings)
        optimizer.step()


@pytest.mark.parametrize("name", ALL)
def test_a_restored_optimizer_goes_on_bit_for_bit(name):
    settings, network = ALL[name], _network()
    optimizer = new_optimizer(network, CONFIG, CPU, settings)
    _train(network, optimizer, settings, 0, 4)
    parameters = dict(network.named_parameters())
    weights = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    kept = {key: tensor.clone() for key, tensor in optimizer_state(optimizer, parameters).items()}
    _train(network, optimizer, settings, 4, 8)

    other = _network()
    other.load_state_dict(weights)
    mine = dict(other.named_parameters())
    restored = new_optimizer(other, CONFIG, CPU, settings)
    check_tensors(kept, expected_state(mine, restored))
    restore_optimizer(restored, mine, kept)
    _train(other, restored, settings, 4, 8)
    ends = [
        {**n.state_dict(), **optimizer_state(o, dict(n.named_parameters()))}
        for n, o in ((network, optimizer), (other, restored))
    ]
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    if kept:  # what is restored matters
        fresh = _network()
        fresh.load_state_dict(weights)
        _train(fresh, new_optimizer(fresh, CONFIG, CPU, settings), settings, 4, 8)
        assert not torch.equal(fresh.head.weight, network.head.weight)


@pytest.mark.parametrize(
    "name, timms, more",
    [
        ("adamw", "adamw", {}),
        ("adam", "adam", {"betas": (0.9, 0.95)}),
        ("sgd", "sgd", {"momentum": 0.9}),
        ("lars", "lars", {"momentum": 0.9, "layer_decay": 0.5}),
    ],
)
def test_weights_are_stepped_as_timm_steps_them(name, timms, more):
    settings, ours, theirs = ALL[name], _network(), _network()
    optimizer = new_optimizer(ours, CONFIG, CPU, settings)
    oracle = create_optimizer_v2(theirs, opt=timms, lr=0.02, weight_decay=0.1, **more)
    for step in range(4):
        _gradients(ours, step)
        _gradients(theirs, step)
        for group in oracle.param_groups:
            group["lr"] = learning_rate(step, 10, CONFIG, settings) * group.get("lr_scale", 1)
            if group["weight_decay"] and name == "adamw":
                group["weight_decay"] = 0.3 - 0.2 * 0.5 * (1 + math.cos(math.pi * step / 10))
        set_step(optimizer, step, 10, CONFIG, settings)
        optimizer.step()
        oracle.step()
    for key, tensor in ours.state_dict().items():
        assert torch.allclose(tensor, theirs.state_dict()[key], atol=1e-6), key


def test_decay_is_coupled_or_not_as_the_name_says():
    shrunk = {}
    for name in ("adamw", "adam", "sgd", "muon"):
        network = _network()
        before = network.blocks[0].mlp.fc1.weight.detach().clone()
        optimizer = new_optimizer(network, CONFIG, CPU, OptimizerSettings(optimizer=name))
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        set_step(optimizer, 2, 10, CONFIG, OptimizerSettings(optimizer=name))
        optimizer.step()
        shrunk[name] = (network.blocks[0].mlp.fc1.weight / before).detach()
    # Without a gradient: weights shrink by rate x decay, but coupled Adam's move by the rate.
    for name in ("adamw", "sgd", "muon"):
        assert torch.allclose(shrunk[name], torch.tensor(1 - 0.02 * 0.1), atol=1e-5), name
    assert not torch.allclose(shrunk["adam"], shrunk["adamw"], atol=1e-2)


def test_muon_takes_hidden_matrices_and_nothing_else():
    network = _network()
    optimizer = new_optimizer(network, CONFIG, CPU, ALL["muon"])
    kept = moments(optimizer)
    matrices = {name for name, p in network.named_parameters() if kept[p] == ("momentum_buffer",)}
    blocks = {f"blocks.{i}.{n}.weight" for i in (0, 1) for n in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    assert matrices == blocks | {"patch_embed.proj.weight"}
    scales = {g["lr_scale"] for g in optimizer.param_groups}
    assert max(scales) == 1 and min(scales) == pytest.approx(0.7 ** (len(scales) - 1))


def test_schedules_begin_turn_and_end_where_they_say():
    def rates(**given):
        return [learning_rate(step, 100, CONFIG, OptimizerSettings(**given)) for step in range(101)]

    today = rates()
    assert today[:21] == [0.02 * (step + 1) / 21 for step in range(20)] + [0.02]
    assert today[60] == pytest.approx(0.01) and today[100] == pytest.approx(0)
    cold = rates(warmup_steps=10, warmup_from=0.0, min_rate=1e-5)
    assert (
        cold[0] == 0
        and cold[5] == pytest.approx(0.01)
        and cold[10] == pytest.approx(0.02)
        and cold[100] == pytest.approx(1e-5)
    )
    assert rates(warmup_samples=80, warmup_from=1e-6) == rates(warmup_steps=10, warmup_from=1e-6)
    linear = rates(schedule="linear", min_rate=0.002)
    assert (
        linear[20] == pytest.approx(0.02) and linear[60] == pytest.approx(0.011) and linear[100] == pytest.approx(0.002)
    )
    assert set(rates(schedule="constant")[20:]) == {0.02}
    steps = rates(schedule="step", step_at=(0.5, 0.9), step_factor=0.1)
    assert (steps[49], steps[50], steps[89], steps[90]) == pytest.approx((0.02, 0.002, 0.002, 0.0002))
    decays = [weight_decay(step, 100, CONFIG, OptimizerSettings(weight_decay_end=0.2)) for step in (0, 50, 100)]
    assert decays == pytest.approx([0.1, 0.15, 0.2])
    assert weight_decay(50, 100, CONFIG, OptimizerSettings()) == 0.1
