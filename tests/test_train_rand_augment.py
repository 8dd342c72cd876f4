"""RandAugment's sets are the sources' own, operation by operation, and drawn by image and showing."""

import random

import numpy as np
import pytest
from PIL import Image
from timm.data.auto_augment import _RAND_INCREASING_TRANSFORMS, AugmentOp
from torchvision.transforms import InterpolationMode
from torchvision.transforms import RandAugment as Theirs
from torchvision.transforms.autoaugment import _apply_op

from synclones.train.augmentation import rand_augment
from synclones.train.augmentation.big_vision_operations import BIG_VISION, big_vision_operation
from synclones.train.augmentation.rand_augment import (
    TIMM,
    TORCHVISION,
    RandAugment,
    timm_operation,
    torchvision_operation,
)

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


# ------------------------------------------------------------------ big_vision's definitions, written out


def blended(start: np.ndarray, end: np.ndarray, factor: float) -> np.ndarray:
    mixed = start.astype(np.float32) + np.float32(factor) * (end.astype(np.float32) - start.astype(np.float32))
    return np.clip(mixed, 0, 255).astype(np.uint8)


def moved(pixels: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    """The pixel nearest to where a matrix puts (x, y, 1); 128 outside."""
    height, width = pixels.shape[:2]
    out = np.full_like(pixels, 128)
    for y in range(height):
        for x in range(width):
            across, down = (np.floor(np.dot(row, [x, y, 1]) + 0.5) for row in matrix)
            if 0 <= across < width and 0 <= down < height:
                out[y, x] = pixels[int(down), int(across)]
    return out


def stretched(pixels: np.ndarray) -> np.ndarray:
    out = pixels.copy()
    for channel in range(3):
        low, high = np.float32(pixels[..., channel].min()), np.float32(pixels[..., channel].max())
        if high > low:
            scale = np.float32(255) / (high - low)
            out[..., channel] = np.clip(pixels[..., channel] * scale - low * scale, 0, 255).astype(np.uint8)
    return out


def equalized(pixels: np.ndarray) -> np.ndarray:
    out = pixels.copy()
    for channel in range(3):
        counts = np.bincount(pixels[..., channel].ravel(), minlength=256)
        step = (counts.sum() - counts[counts > 0][-1]) // 255
        if step:
            table = np.concatenate([[0], (np.cumsum(counts) + step // 2) // step])[:256]
            out[..., channel] = np.clip(table, 0, 255)[pixels[..., channel]]
    return out


def smoothed(pixels: np.ndarray) -> np.ndarray:
    out, weights = pixels.copy(), np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]])
    for y in range(1, len(pixels) - 1):
        for x in range(1, pixels.shape[1] - 1):
            out[y, x] = (pixels[y - 1 : y + 2, x - 1 : x + 2] * weights[..., None]).sum((0, 1)) // 13
    return out


def theirs(pixels: np.ndarray, name: str, magnitude: float, negative: bool, at: tuple[float, float]) -> np.ndarray:
    level, sign = magnitude / 10, -1 if negative else 1
    factor, height, width = level * 1.8 + 0.1, *pixels.shape[:2]
    wide = pixels.astype(int)
    angle = np.deg2rad(sign * level * 30)
    cos, sin, x, y = np.cos(angle), np.sin(angle), (width - 1) / 2, (height - 1) / 2
    shear, shift = sign * level * 0.3, sign * level * 100
    grey = (pixels / np.float32(255) @ np.float32([0.2989, 0.587, 0.114]) * np.float32(255.5)).astype(np.uint8)
    keep = 8 - int(level * 4)
    row, column, reach = int(at[0] * height), int(at[1] * width), int(level * 40)
    inside = np.zeros((height, width, 1), bool)
    inside[max(0, row - reach) : row + reach, max(0, column - reach) : column + reach] = True
    return {
        "AutoContrast": lambda: stretched(pixels),
        "Equalize": lambda: equalized(pixels),
        "Invert": lambda: 255 - pixels,
        "Rotate": lambda: moved(pixels, [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]]),
        "Posterize": lambda: wide >> keep << keep if keep > 0 else wide,
        "Solarize": lambda: np.where(wide < int(level * 256), wide, 255 - wide),
        "SolarizeAdd": lambda: np.where(wide < 128, np.clip(wide + int(level * 110), 0, 255), wide),
        "Color": lambda: blended(np.stack([grey] * 3, -1), pixels, factor),
        "Contrast": lambda: blended(np.full_like(pixels, min(height * width / 256, 255)), pixels, factor),
        "Brightness": lambda: blended(np.zeros_like(pixels), pixels, factor),
        "Sharpness": lambda: blended(smoothed(pixels), pixels, factor),
        "ShearX": lambda: moved(pixels, [[1, shear, 0], [0, 1, 0]]),
        "ShearY": lambda: moved(pixels, [[1, 0, 0], [shear, 1, 0]]),
        "TranslateX": lambda: moved(pixels, [[1, 0, shift], [0, 1, 0]]),
        "TranslateY": lambda: moved(pixels, [[1, 0, 0], [0, 1, shift]]),
        "Cutout": lambda: np.where(inside, 128, pixels),
    }[name]()


# Of what is turned some pixels lie on the border of two: fixed-point numbers decide for PIL.
BETWEEN_TWO = {"Rotate": 0.005, "ShearX": 0.005, "ShearY": 0.005}


@pytest.mark.parametrize("name", BIG_VISION)
def test_big_visions_operations_are_big_visions(name):
    draw = np.random.default_rng(1)
    flat = np.full((9, 14, 3), 90, np.uint8)
    dark = (draw.normal(size=(21, 30, 3)) * 30 + 80).clip(0, 255).astype(np.uint8)
    changed = 0
    for pixels in (PIXELS, dark, flat):
        for magnitude in (0, 2, 5.5, 10, 14):
            for negative in (False, True):
                at = (float(draw.random()), float(draw.random()))
                ours = big_vision_operation(Image.fromarray(pixels), name, magnitude, negative=negative, at=at)
                expected = theirs(pixels, name, magnitude, negative, at)
                differs = (np.asarray(ours, int) != np.asarray(expected, int)).any(-1).mean()
                assert differs <= BETWEEN_TWO.get(name, 0), (pixels.shape, magnitude, negative)
                changed += not np.array_equal(np.asarray(ours), pixels)
    assert changed >= 8


def test_what_each_of_big_visions_magnitudes_means():
    def run(name, magnitude, pixels=PIXELS, negative=False, at=(0.5, 0.5)):
        image = Image.fromarray(pixels)
        return np.asarray(big_vision_operation(image, name, magnitude, negative=negative, at=at), int)

    wide = np.asarray(Image.fromarray(PIXELS).resize((224, 224)))
    assert (run("TranslateX", 10, wide)[:, :124] == wide[:, 100:]).all()  # 100 px, and grey
    assert (run("TranslateX", 10, wide)[:, 124:] == 128).all()
    cut = run("Cutout", 10, wide)
    assert (cut[72:152, 72:152] == 128).all() and (cut[:72] == wide[:72]).all()  # 80 px
    assert (run("Contrast", 0, wide) - (196 + 0.1 * (wide - 196.0))).__abs__().max() <= 1  # 224 x 224 / 256
    assert (run("Posterize", 10) == PIXELS // 16 * 16).all() and not run("Posterize", 2).any()
    assert (run("Solarize", 10) == PIXELS).all() and (run("Solarize", 0) == 255 - PIXELS.astype(int)).all()
    assert (run("Sharpness", 5) == PIXELS).all()  # 5 changes nothing; there is no sign
    assert (run("Sharpness", 9) == run("Sharpness", 9, negative=True)).all()


def test_big_visions_operations_are_drawn_alike_with_return_and_always_done(monkeypatch):
    drawn, signs, places = [], [], []

    def noted(image, name, magnitude, *, negative, at):
        drawn.append(name), signs.append(negative), places.append(at)
        assert magnitude == 7
        return image

    monkeypatch.setattr(rand_augment, "big_vision_operation", noted)
    augment = RandAugment(rand_augment="big_vision", rand_augment_magnitude=7, seed=3)
    for index in range(4000):
        augment.apply(PIXELS, 0, index, 0)
    assert len(drawn) == 8000
    counts = [drawn.count(name) for name in BIG_VISION]
    assert sum((count - 500) ** 2 / 500 for count in counts) < 37.7  # chi-square of 15 degrees, p = 0.001
    same = np.mean([first == second for first, second in zip(drawn[::2], drawn[1::2], strict=True)])
    assert same == pytest.approx(1 / 16, abs=0.015) and np.mean(signs) == pytest.approx(0.5, abs=0.02)
    assert np.mean(places, axis=0) == pytest.approx([0.5, 0.5], abs=0.02)
    assert abs(np.corrcoef(np.array(places).T)[0, 1]) < 0.05


@pytest.mark.parametrize("chosen", ["torchvision", "timm", "big_vision"])
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
