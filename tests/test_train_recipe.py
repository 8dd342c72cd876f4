"""What training images go through, held to torchvision's definitions, and how weights are stepped, held to timm's."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import resized_crop, rotate

from synclones.models.network import create_network
from synclones.train.augment import NUM_DRAWS, Augmentation, jitter
from synclones.train.augment import rotate as turn
from synclones.train.crops import resample
from synclones.train.optimizer import learning_rate, new_optimizer
from synclones.train.settings import TrainConfig


def _numbers(n: int) -> tuple[np.ndarray, ...]:
    return np.zeros(n, np.int64), np.arange(n), np.zeros(n, np.int64)


def test_augmentation_is_a_function_of_the_image_and_its_showing_not_of_its_batch():
    augment = Augmentation(size_px=24, crop_scale_min=0.3, flip=True, rotation_degrees=20, colour_jitter=0.4, seed=3)
    pixels = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    source, index, showing = _numbers(8)
    whole = augment(pixels, source, index, showing)
    assert whole.shape == (8, 3, 24, 24) and 0 <= whole.min() and whole.max() <= 1
    some = [5, 2]
    assert torch.allclose(augment(pixels[some], source[some], index[some], showing[some]), whole[some], atol=1e-6)
    assert not torch.allclose(augment(pixels, source, index, showing + 1), whole, atol=0.05)


def test_without_settings_a_picture_passes_unchanged():
    pixels = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    plain = Augmentation(size_px=32)(pixels, *_numbers(4))
    assert torch.equal(plain, pixels.permute(0, 3, 1, 2).float() / 255)
    assert torch.allclose(jitter(plain, torch.ones(3, 4)), plain, atol=1e-6)


def test_flips_mirror_half_of_the_pictures_and_nothing_else():
    pixels = torch.randint(0, 256, (400, 8, 8, 3), dtype=torch.uint8)
    images = Augmentation(size_px=8, flip=True)(pixels, *_numbers(400))
    plain = pixels.permute(0, 3, 1, 2).float() / 255
    same = (images - plain).abs().amax((1, 2, 3)) < 1e-4
    mirrored = (images - plain.flip(3)).abs().amax((1, 2, 3)) < 1e-4
    assert (same | mirrored).all() and 160 < same.sum() < 240


def _boxes(n: int, size: tuple[int, int], scale_min: float) -> np.ndarray:
    draws = np.random.default_rng(0).random((NUM_DRAWS, n))
    return Augmentation(size_px=8, crop_scale_min=scale_min).boxes(draws, size)


@pytest.mark.parametrize("scale_min", [0.05, 0.08, 0.75])
@pytest.mark.parametrize("size", [(32, 32), (256, 256), (96, 200)])
def test_crops_are_distributed_as_torchvision_s(size, scale_min):
    torch.manual_seed(0)
    image, limits = torch.empty(3, *size), ([scale_min, 1.0], [3 / 4, 4 / 3])
    theirs = np.array([RandomResizedCrop.get_params(image, *limits) for _ in range(20_000)])[:, [1, 0, 3, 2]]
    ours = _boxes(20_000, size, scale_min)
    assert (ours[:, :2] >= 0).all() and (ours[:, :2] + ours[:, 2:] <= size[::-1]).all() and (ours[:, 2:] > 0).all()

    def quantities(boxes):
        left, top, width, height = boxes.T
        return [width * height / (size[0] * size[1]), np.log(width / height), left + width / 2, top + height / 2]

    for one, other in zip(quantities(ours), quantities(theirs), strict=True):
        error = np.hypot(one.std(), other.std()) / np.sqrt(20_000)
        assert abs(one.mean() - other.mean()) <= 4.5 * error
        assert one.std() == pytest.approx(other.std(), rel=0.03)


def test_a_box_that_never_fits_is_torchvision_s_of_last_resort():
    image = torch.empty(3, 10, 400)
    limits = ([0.9, 1.0], [3 / 4, 4 / 3])
    top, left, height, width = RandomResizedCrop.get_params(image, *limits)
    assert (_boxes(5, (10, 400), 0.9) == [left, top, width, height]).all()


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (256, 256, 64), (60, 40, 96)])
def test_crops_are_resized_as_torchvision_does_it_with_antialiasing(height, width, size):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((12, 3, height, width), generator=generator)
    boxes, mirrored = _boxes(12, (height, width), 0.08), np.arange(12) % 2 == 0
    ours = resample(images, boxes, mirrored, size)
    for image, (x, y, w, h), flipped, our in zip(images, boxes.tolist(), mirrored, ours, strict=True):
        theirs = resized_crop(image, y, x, h, w, [size, size], antialias=True)
        assert torch.allclose(our, theirs.flip(-1) if flipped else theirs, atol=1e-4)


def test_rotations_are_torchvision_s_but_for_the_corners():
    images, degrees = torch.rand((4, 3, 32, 32), generator=torch.Generator().manual_seed(0)), [10.0, -20.0, 45.0, 170.0]
    inner = slice(8, 24)
    for our, image, angle in zip(turn(images, np.array(degrees)), images, degrees, strict=True):
        theirs = rotate(image, angle, InterpolationMode.BILINEAR)
        assert torch.allclose(our[:, inner, inner], theirs[:, inner, inner], atol=1e-4)


def test_a_shrunk_image_has_no_grain_of_its_own():
    stripes = torch.zeros(1, 256, 256, 3, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    shrunk = Augmentation(size_px=60)(stripes, *_numbers(1))
    assert (shrunk[:, :, :, 1:-1] - 0.5).abs().max() < 0.05


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
