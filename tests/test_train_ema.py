"""The moving average and the seeded stochastic depth, against timm's."""

import numpy as np
import pytest
import timm
import torch
from timm.layers import DropPath
from timm.utils import ModelEmaV3
from torch import nn

from synclones.train.network.drop_path import seed_drop_path
from synclones.train.step.ema import Ema, EmaSettings

CPU = torch.device("cpu")
VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 5}


def _network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))


@pytest.mark.parametrize("schedule", ["constant", "warmup"])
def test_the_average_is_timms(schedule):
    network = _network()
    ours = Ema(network, EmaSettings(ema_decay=0.9, ema_schedule=schedule))
    timms = ModelEmaV3(network, decay=0.9, use_warmup=schedule == "warmup", exclude_buffers=True)
    for step in range(1, 50):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
            network(torch.randn(4, 3, 8, 8))  # moves the statistics
        ours.update(network, step, 50)
        timms.update(network, step)
        for (name, mine), other in zip(ours.state_dict().items(), timms.module.state_dict().values(), strict=True):
            assert torch.allclose(mine, other, rtol=1e-6), name
    assert not torch.equal(ours.network[0].weight, network[0].weight)
    assert torch.equal(ours.network[1].running_mean, network[1].running_mean)


def test_a_teachers_decay_rises_to_one():
    settings = EmaSettings(ema_decay=0.994, ema_schedule="cosine")
    decays = [settings.decay(step, 1000) for step in range(1, 1001)]
    assert decays[0] == pytest.approx(0.994, abs=1e-12) and decays[500] == pytest.approx(0.997)
    assert decays == sorted(decays) and 0.99999 < decays[-1] < 1


def test_a_restored_average_goes_on_bit_for_bit():
    network, settings = _network(), EmaSettings(ema_decay=0.9)
    whole, stopped = Ema(network, settings), Ema(network, settings)
    for step in range(1, 6):
        for parameter in network.parameters():
            parameter.data.mul_(1.1)
        whole.update(network, step, 6)
        if step == 3:
            state = {name: tensor.clone() for name, tensor in stopped.state_dict().items()}
            stopped = Ema(_network(), settings)
            stopped.load_state_dict(state)
        stopped.update(network, step, 6)
    assert all(torch.equal(stopped.state_dict()[name], tensor) for name, tensor in whole.state_dict().items())


# ------------------------------------------------------------------ stochastic depth


def test_branches_are_dropped_at_timms_rates_and_scaled_as_timm_scales():
    network = timm.create_model("vit_tiny_patch16_224", drop_path_rate=0.4, **VIT)
    rates = [m.drop_prob for m in network.modules() if isinstance(m, DropPath)]
    names = list(network.state_dict())
    shown = seed_drop_path(network, seed=1)
    assert shown.rates == rates and len(rates) == 6 and list(network.state_dict()) == names
    n = 20_000
    shown.show(np.zeros(n, int), np.arange(n), np.zeros(n, int), device=CPU)
    for rate, factors in zip(rates, shown.kept, strict=True):
        assert factors.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])
        assert (factors == 0).float().mean() == pytest.approx(rate, abs=0.015)
        assert factors.mean() == pytest.approx(1, abs=0.02)
    assert abs(np.corrcoef(shown.kept.numpy())[4, 5]) < 0.03  # layers decide for themselves


def test_micro_batches_drop_what_the_whole_batch_drops():
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", drop_path_rate=0.5, **VIT).train()
    shown = seed_drop_path(network, seed=1)
    images = torch.randn(12, 3, 16, 16)
    source, index, showing = np.zeros(12, int), np.arange(12) * 7, np.ones(12, int)

    def outputs(part, again=0):
        shown.show(source[part], index[part], showing[part] + again, device=CPU)
        return network(images[part])

    whole = outputs(slice(None))
    parts = torch.cat([outputs(slice(0, 5)), outputs(slice(5, 12))])
    assert torch.allclose(whole, parts, atol=1e-6)
    assert not torch.allclose(whole, outputs(slice(None), again=1), atol=1e-3)
    plain = network.eval()(images)
    assert torch.equal(plain, network(images)) and not torch.allclose(plain, whole, atol=1e-3)


def test_images_that_were_not_shown_are_an_error():
    network = timm.create_model("vit_tiny_patch16_224", drop_path_rate=0.5, **VIT).train()
    shown = seed_drop_path(network, seed=1)
    with pytest.raises(RuntimeError, match="not shown"):
        network(torch.zeros(2, 3, 16, 16))
    shown.show(np.zeros(3, int), np.arange(3), np.zeros(3, int), device=CPU)
    with pytest.raises(RuntimeError, match="2 images"):
        network(torch.zeros(2, 3, 16, 16))
