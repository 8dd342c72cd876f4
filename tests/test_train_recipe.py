"""What training images go through on the device is torchvision's, and how weights are stepped is timm's."""

import numpy as np
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from synclones.models.network import create_network
from synclones.train.augmentation.augment import Augmentation, jitter
from synclones.train.augmentation.augment import rotate as turn
from synclones.train.settings import TrainConfig
from synclones.train.step.optimizer import learning_rate, new_optimizer


def _numbers(n: int) -> tuple[np.ndarray, ...]:
    return np.zeros(n, np.int64), np.arange(n), np.zeros(n, np.int64)


def _augmented(augment: Augmentation, pixels: torch.Tensor, *numbers: np.ndarray) -> torch.Tensor:
    return augment.apply(pixels, augment.draws(*numbers))


def test_augmentation_is_a_function_of_the_image_and_its_showing_not_of_its_batch():
    augment = Augmentation(rotation_degrees=20, colour_jitter=0.4, seed=3)
    pixels = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    source, index, showing = _numbers(8)
    whole = _augmented(augment, pixels, source, index, showing)
    assert whole.shape == (8, 3, 32, 32) and 0 <= whole.min() and whole.max() <= 1
    some = [5, 2]
    alone = _augmented(augment, pixels[some], source[some], index[some], showing[some])
    assert torch.allclose(alone, whole[some], atol=1e-6)
    assert not torch.allclose(_augmented(augment, pixels, source, index, showing + 1), whole, atol=0.05)
    compiled = torch.compile(augment.apply, backend="aot_eager", fullgraph=True)  # one graph, as a GPU gets it
    assert torch.allclose(compiled(pixels, augment.draws(source, index, showing)), whole, atol=1e-6)


def test_without_settings_a_picture_passes_unchanged():
    pixels = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    plain = _augmented(Augmentation(), pixels, *_numbers(4))
    assert torch.equal(plain, pixels.permute(0, 3, 1, 2).float() / 255)
    assert torch.allclose(jitter(plain, torch.ones(3, 4)), plain, atol=1e-6)


def test_rotations_are_torchvision_s_but_for_the_corners():
    images, degrees = torch.rand((4, 3, 32, 32), generator=torch.Generator().manual_seed(0)), [10.0, -20.0, 45.0, 170.0]
    inner = slice(8, 24)
    for our, image, angle in zip(turn(images, torch.tensor(degrees)), images, degrees, strict=True):
        theirs = rotate(image, angle, InterpolationMode.BILINEAR)
        assert torch.allclose(our[:, inner, inner], theirs[:, inner, inner], atol=1e-4)


def test_weight_decay_spares_what_timm_spares():
    network = create_network("vit_tiny_patch16_224", 10, 32, {"depth": 1, "patch_size": 8})
    optimizer = new_optimizer(network, TrainConfig(steps=1, weight_decay=0.3), torch.device("cpu"))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay.keys() == set(names.values())
    assert {name for name, value in decay.items() if value} == {
        *("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.attn.proj.weight"),
        *("blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight", "head.weight"),
    }


def test_the_learning_rate_rises_and_falls():
    config = TrainConfig(steps=100, learning_rate=2.0, warmup=0.1)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[0] < rates[5] < rates[9] < 2.0 == max(rates) and rates[10] == 2.0
    assert all(a > b for a, b in zip(rates[10:], rates[11:], strict=False)) and rates[-1] < 0.001
