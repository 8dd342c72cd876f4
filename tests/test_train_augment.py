"""What is done to colours on the device is torchvision's and timm's, and a function of image, showing and view."""

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as V
from timm.data.random_erasing import RandomErasing

from synclones.models.network import IMAGENET_MEAN, IMAGENET_STD
from synclones.train.augmentation import augment as a
from synclones.train.augmentation.augment import Augmentation, blur, erased_box, noise, turn_hue

EVERYTHING = Augmentation(
    rotation_degrees=5,
    colour_jitter=0.4,
    saturation_jitter=0.2,
    hue_jitter=0.1,
    jitter_probability=0.8,
    grey_probability=0.2,
    blur_probability=0.5,
    solarise_probability=0.2,
    erase_probability=0.5,
    seed=3,
)


def _numbers(n):
    return np.zeros(n, np.int64), np.arange(n), np.zeros(n, np.int64)


def _images(n=6, side=24):
    return torch.rand((n, 3, side, side), generator=torch.Generator().manual_seed(0))


def test_hues_blurs_and_solarisation_are_torchvisions():
    images, turns = _images(), torch.tensor([-0.5, -0.1, 0.0, 0.07, 0.3, 0.5])
    images[0, :, :4] = 0.5  # grey has no hue
    for image, turned, turn in zip(images, turn_hue(images, turns), turns.tolist(), strict=True):
        assert torch.allclose(turned, V.adjust_hue(image, turn), atol=1e-5)
    sigmas = torch.tensor([0.1, 0.5, 1.0, 1.3, 1.7, 2.0])
    for image, blurred, sigma in zip(images, blur(images, sigmas, 6), sigmas.tolist(), strict=True):
        assert torch.allclose(blurred, V.gaussian_blur(image, [13, 13], [sigma, sigma]), atol=1e-5)
    pixels = (images * 255).byte().permute(0, 2, 3, 1)
    on = Augmentation(solarise_probability=1.0)
    expected = V.solarize(pixels.permute(0, 3, 1, 2), 128) / 255
    assert torch.allclose(on.apply(pixels, on.draws(*_numbers(6))), expected, atol=1e-6)


@pytest.mark.parametrize("name, row", [("grey", a.GREYED), ("blur", a.BLURRED), ("solarise", a.SOLARISED)])
def test_each_happens_as_often_as_it_says(name, row):
    n = 4000
    pixels = torch.randint(0, 256, (1, 8, 8, 3), dtype=torch.uint8).expand(n, -1, -1, -1)
    augment = Augmentation(**{f"{name}_probability": 0.3})
    changed = augment.apply(pixels, augment.draws(*_numbers(n))) != Augmentation().apply(pixels, torch.zeros(4, n))
    assert changed.flatten(1).any(1).float().mean() == pytest.approx(0.3, abs=0.03)


def test_a_jitter_with_probability_leaves_the_others_as_they_are():
    n = 4000
    pixels = torch.randint(0, 256, (1, 8, 8, 3), dtype=torch.uint8).expand(n, -1, -1, -1)
    sometimes, always = (Augmentation(colour_jitter=0.4, jitter_probability=p) for p in (0.8, 1.0))
    draws = sometimes.draws(*_numbers(n))
    plain, some, every = (x.apply(pixels, draws) for x in (Augmentation(), sometimes, always))
    same = (some == plain).flatten(1).all(1)
    assert same.float().mean() == pytest.approx(0.2, abs=0.03)
    assert torch.equal(some[~same], every[~same])


def test_erased_boxes_and_noise_are_timms():
    n, side = 3000, 24
    augment = Augmentation(erase_probability=0.6)
    draws = augment.draws(*_numbers(n))
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = torch.zeros((n, side, side, 3), dtype=torch.uint8)
    ours = (augment.apply(pixels, draws) - mean) / std
    plain = (torch.zeros(3, side, side) - mean) / std
    theirs = RandomErasing(0.6, mode="pixel", device="cpu")(plain.repeat(n, 1, 1, 1))
    shares = [((x - plain).abs().amax(1) > 1e-5).float().mean((1, 2)) for x in (ours, theirs)]
    assert (shares[0] > 0).float().mean() == pytest.approx(0.6, abs=0.03)
    for quantile in (0.5, 0.7, 0.9):
        assert shares[0].quantile(quantile) == pytest.approx(shares[1].quantile(quantile).item(), abs=0.02)
    heights, widths = (erased_box(draws, side)[i].float().mean().item() for i in (2, 3))
    assert heights == pytest.approx(widths, rel=0.05)
    values = noise(draws[a.ERASE_NOISE], 3 * side * side)
    assert values.mean() == pytest.approx(0, abs=0.005) and values.std() == pytest.approx(1, abs=0.005)
    assert (values.abs() > 1.96).float().mean() == pytest.approx(0.05, abs=0.002)
    assert values[0, :-1] @ values[0, 1:] / len(values[0]) == pytest.approx(0, abs=0.08)
    const = Augmentation(erase_probability=1.0, erase_mode="const")
    erased = (const.apply(pixels, const.draws(*_numbers(n))) - mean) / std
    areas = torch.stack(erased_box(draws, side)[2:]).float().prod(0)
    assert torch.equal((erased.abs() < 1e-6).all(1).float().sum((1, 2)), areas)


def test_everything_is_a_function_of_the_image_its_showing_and_the_view():
    pixels = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    source, index, showing = _numbers(8)
    whole = EVERYTHING.apply(pixels, EVERYTHING.draws(source, index, showing))
    some = [5, 2]
    alone = EVERYTHING.apply(pixels[some], EVERYTHING.draws(source[some], index[some], showing[some]))
    assert torch.allclose(alone, whole[some], atol=1e-5)
    second = EVERYTHING.apply(pixels, EVERYTHING.draws(source, index, showing, view=1))
    assert not torch.allclose(second, whole, atol=0.05)
    compiled = torch.compile(EVERYTHING.apply, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(pixels, EVERYTHING.draws(source, index, showing)), whole, atol=1e-5)


def test_the_draws_of_earlier_trainings_stay():
    today = Augmentation(rotation_degrees=5, colour_jitter=0.4, seed=3).draws(*_numbers(5))
    assert today.shape == (4, 5) and torch.equal(EVERYTHING.draws(*_numbers(5))[:4], today)
    assert today[:, 1].tolist() == [0.8034228086471558, -0.15428835153579712, 0.8600106239318848, 0.11923901736736298]
