"""RandAugment's sets are the sources' own, operation by operation, and drawn by image and showing."""

import random

import numpy as np
import pytest
from PIL import Image
from timm.data.auto_augment import _RAND_INCREASING_TRANSFORMS, AugmentOp
from torchvision.transforms import InterpolationMode
from torchvision.transforms import RandAugment as Theirs
from torchvision.transforms.autoaugment import _apply_op

from synclones.train.rand_augment import TIMM, TORCHVISION, RandAugment, timm_operation, torchvision_operation

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
PIXELS[8:24, 8:24] //= 2  # so that contrasts and histograms have something to do
IMAGE = Image.fromarray(PIXELS)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_operations_are_torchvisions(name):
    space = Theirs()._augmentation_space(31, (32, 32))
    assert tuple(space) == TORCHVISION
    magnitudes, signed = space[name]
    for magnitude in (0, 4, 9, 13, 15, 30):
        for negative in (False, True):
            value = float(magnitudes[magnitude]) if magnitudes.ndim else 0.0
            value *= -1 if signed and negative else 1
            expected = _apply_op(IMAGE, name, value, InterpolationMode.NEAREST, None)
            ours = torchvision_operation(IMAGE, name, magnitude, negative=negative)
            assert np.abs(np.asarray(ours, int) - np.asarray(expected, int)).max() <= 1, (magnitude, negative)


@pytest.mark.parametrize("name", TIMM)
def test_timms_operations_are_timms(name, monkeypatch):
    assert tuple(_RAND_INCREASING_TRANSFORMS) == TIMM
    black = {"negative": False, "fill": (0, 0, 0), "bicubic": True}
    for level in (0.0, 3.3, 9.0, 10.0):
        for negative in (False, True):
            for bicubic in (False, True):
                filters = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
                hparams = {"img_mean": (124, 116, 104), "interpolation": filters}
                monkeypatch.setattr(random, "random", lambda negative=negative: 0.9 if negative else 0.1)
                if name == "PosterizeIncreasing" and level == 10:  # Pillow 13 refuses 0 bits
                    assert not np.asarray(timm_operation(IMAGE, name, level, **black)).any()
                    continue
                expected = AugmentOp(name, prob=1.0, magnitude=level, hparams=hparams)(IMAGE)
                ours = timm_operation(IMAGE, name, level, negative=negative, fill=(124, 116, 104), bicubic=bicubic)
                assert np.array_equal(np.asarray(ours), np.asarray(expected)), (level, negative, bicubic)


@pytest.mark.parametrize("chosen", ["torchvision", "timm"])
def test_what_is_drawn_is_a_function_of_image_showing_and_view(chosen):
    augment = RandAugment(rand_augment=chosen, seed=1)
    results = {
        (index, showing, view): augment.apply(PIXELS, 0, index, showing, view).tobytes()
        for index in range(20)
        for showing in range(2)
        for view in range(2)
    }
    assert all(augment.apply(PIXELS, 0, *key).tobytes() == value for key, value in results.items())
    assert len(set(results.values())) > 40
    assert augment.apply(PIXELS, 0, 0, 0).shape == PIXELS.shape and augment.apply(PIXELS, 0, 0, 0).dtype == np.uint8
    assert RandAugment().apply(PIXELS, 0, 0, 0) is PIXELS


def test_half_of_timms_operations_are_left_out():
    augment = RandAugment(rand_augment="timm", seed=1)
    same = np.mean([np.array_equal(augment.apply(PIXELS, 0, index, 0), PIXELS) for index in range(2000)])
    assert same == pytest.approx(0.25, abs=0.06)  # and AutoContrast and the like may change nothing
