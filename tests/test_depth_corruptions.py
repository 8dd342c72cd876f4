"""Fog and focus by depth against their formulas written out pixel by pixel, and the maps that they are made with."""

import io
import math
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from corruption_reference import photo
from PIL import Image

from synclones.base.errors import InputError
from synclones.base.manifest import read_manifest
from synclones.evaluate.corruptions.constants import OF_DEPTH
from synclones.evaluate.corruptions.corrupt import corrupt
from synclones.evaluate.corruptions.corrupted_set import corrupt_set
from synclones.evaluate.corruptions.corrupted_settings import CorruptConfig
from synclones.evaluate.corruptions.depth import FARTHEST, NEAREST, on_scale

APERTURES = {"near_focus": (3, 4, 5, 6, 7), "far_focus": (1.5, 2.5, 3.5, 4.5, 5.5)}
DECAYS = (4, 8, 12, 16, 20)


def one(image, name, severity, depth):
    return corrupt(image, name, severity, seed=0, key="a", depth=depth)


def depths(seed, height, width):
    return np.random.default_rng(seed).uniform(0.05, FARTHEST, (height, width)).astype(np.float32)


def exact_fog(image, depth, severity):
    mean = sum(float(value) for value in image.ravel()) / image.size
    out = np.zeros(image.shape)
    for y, x, c in np.ndindex(image.shape):
        seen = math.exp(-DECAYS[severity - 1] * float(depth[y, x]))
        out[y, x, c] = seen * image[y, x, c] + (1 - seen) * mean
    return out


def exact_blur(image, deviation):
    """Along each axis the share that each pixel has in each other; what lies beyond an edge is the pixel on it."""
    reach = int(3 * deviation)
    reach = (reach + 1 - reach % 2) // 2 if deviation >= 0.1 else 0
    weight = {k: math.exp(-k * k / (2 * deviation**2)) if reach else 1.0 for k in range(-reach, reach + 1)}
    shares = []
    for side in image.shape[:2]:
        share = np.zeros((side, side))
        for at in range(side):
            for k in weight:
                share[at, min(max(at + k, 0), side - 1)] += weight[k] / sum(weight.values())
        shares.append(share)
    return np.einsum("ij,jkc,lk->ilc", shares[0], image, shares[1])


def exact_focus(image, depth, name, severity):
    ordered = sorted(float(value) for value in depth.ravel())
    quantiles = []
    for k in range(9):
        at = k / 8 * (len(ordered) - 1)
        low = int(at)
        quantiles.append(ordered[low] + (at - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low]))
    quantiles[0] -= 1e-4
    quantiles[8] += 1e-4
    focus = quantiles[0 if name == "near_focus" else 7]
    layers = [exact_blur(image, APERTURES[name][severity - 1] * abs(q - focus) / q) for q in quantiles]
    out = np.zeros(image.shape)
    for y, x in np.ndindex(depth.shape):
        value = float(depth[y, x])
        right = next(k for k in range(9) if quantiles[k] >= value)
        gap = quantiles[right] - quantiles[right - 1]
        low, high = 1 - ((value - quantiles[right - 1]) / gap) ** 2, 1 - ((quantiles[right] - value) / gap) ** 2
        out[y, x] = (low * layers[right - 1][y, x] + high * layers[right][y, x]) / (low + high)
    return out


def assert_cut(ours, exact):
    assert (ours <= exact + 0.01).all() and (ours > exact - 1.01).all(), np.abs(ours - exact).max()


@pytest.mark.parametrize("severity", range(1, 6))
def test_fog_and_focus_are_their_formulas_with_fractions_cut_off(severity):
    image, depth = photo(severity, 32)[:7, :10], depths(severity, 7, 10)
    assert_cut(one(image, "fog_3d", severity, depth), exact_fog(image, depth, severity))
    for name in APERTURES:
        assert_cut(one(image, name, severity, depth), exact_focus(image, depth, name, severity))


def test_what_is_in_focus_stays_sharp_and_the_rest_does_not():
    image, depth = photo(0, 64), np.full((64, 64), 0.1)
    depth[:, 32:] = 0.4
    near, far = (one(image, name, 3, depth).astype(int) for name in ("near_focus", "far_focus"))
    assert (near[:, :32] == image[:, :32]).all() and (far[:, 32:] == image[:, 32:]).all()
    assert np.abs(near[:, 32:] - image[:, 32:]).mean() > 5 and np.abs(far[:, :32] - image[:, :32]).mean() > 5


@pytest.mark.parametrize("name", sorted(APERTURES))
def test_an_image_of_one_distance_is_in_focus(name):
    assert (one(photo(1, 32), name, 5, np.full((32, 32), 0.3)) == photo(1, 32)).all()


@pytest.mark.parametrize("name", OF_DEPTH)
def test_an_image_is_corrupted_alike_again_whatever_its_key_and_is_left_as_it_was(name):
    image, depth = photo(2, 64), depths(2, 64, 64)
    first = one(image, name, 4, depth)
    again = corrupt(np.asfortranarray(image), name, 4, seed=1, key="b", depth=depth)
    assert (first == again).all() and first.dtype == np.uint8 and (image == photo(2, 64)).all()
    assert (first != image).any() and (depth == depths(2, 64, 64)).all()
    for wrong in (depth[:32], depth * np.nan):
        with pytest.raises(InputError, match="depth: a map of shape"):
            one(image, name, 4, wrong)
    with pytest.raises(InputError, match=f"corruption {name}: needs the image's depth map"):
        one(image, name, 4, None)


def test_distances_have_any_unit_and_inverse_depth_is_read_as_the_makers_read_it():
    metres = np.array([[2, 4], [8, 20]], np.float32)
    assert np.allclose(on_scale(metres, "distance"), [[0.05, 0.1], [0.2, 0.5]])
    assert np.allclose(on_scale(metres * 1000, "distance"), on_scale(metres, "distance"))
    inverse = on_scale(np.array([[65535, 2048], [1024, 0]], np.float32), "inverse")
    assert np.allclose(inverse, [[NEAREST, 0.25], [0.5, 0.5]])
    assert on_scale(np.array([[1, 1e6]], np.float32), "distance").min() == np.float32(NEAREST)


# ------------------------------------------------------------------ sets


def write_map(path, values, suffix=".npy"):
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".npy":
        np.save(path.with_suffix(suffix), values)
    else:
        Image.fromarray(values).save(path.with_suffix(suffix))


def numbers(seed, height, width):
    return np.random.default_rng(seed).integers(500, 60_000, (height, width)).astype(np.uint16)


@pytest.fixture
def config(tmp_path):
    for number in range(4):
        name = f"{('n01', 'n02')[number % 2]}/val_{number}"
        path = tmp_path / "val" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(number, 32)).save(path)
        write_map(tmp_path / "depth" / name, numbers(number, 32, 32).astype(np.float32))
    return CorruptConfig(
        data=tmp_path / "val", out=tmp_path / "c", corruptions=OF_DEPTH, severities=(2,), depth_dir=tmp_path / "depth"
    )


def stored(out, name="n02/val_1.png", corruption="near_focus"):
    return np.asarray(Image.open(out / corruption / "2" / name, formats=["PNG"]))


def test_a_set_is_made_with_the_map_of_each_image_and_says_with_which(config):
    png = replace(config, image_format="png")
    corrupt_set(png)
    for corruption in OF_DEPTH:
        depth = on_scale(numbers(1, 32, 32).astype(np.float32), "distance")
        expected = corrupt(photo(1, 32), corruption, 2, seed=0, key="n02/val_1", depth=depth)
        assert (stored(config.out, corruption=corruption) == expected).all()
    record = read_manifest(config.out)
    assert record["generated"] is True and record["settings"]["depth"].startswith("distance ")
    # Others are added with the same maps alone.
    corrupt_set(replace(png, corruptions=("color_quant",)))
    write_map(config.depth_dir / "n01" / "val_0", numbers(9, 32, 32).astype(np.float32))
    for other in ({}, {"depth_dir": None, "corruptions": ("color_quant",)}, {"depth_kind": "inverse"}):
        with pytest.raises(InputError, match="depth.*give a new folder"):
            corrupt_set(replace(png, **other))


@pytest.mark.parametrize("kind", ["distance", "inverse"])
def test_16_bit_images_are_the_same_maps(config, tmp_path, kind):
    out = []
    for suffix, values in ((".npy", np.float64), (".png", np.uint16)):
        folder = tmp_path / suffix
        for number in range(4):
            name = f"{('n01', 'n02')[number % 2]}/val_{number}"
            write_map(folder / name, numbers(number, 32, 32).astype(values), suffix)
        out.append(tmp_path / f"out{suffix}")
        corrupt_set(replace(config, depth_dir=folder, out=out[-1], depth_kind=kind, image_format="png"))
    for corruption in OF_DEPTH:
        assert (stored(out[0], corruption=corruption) == stored(out[1], corruption=corruption)).all()


def test_maps_are_resized_and_cut_with_their_images(tmp_path):
    image, values = photo(0, 90)[:, :60], depths(0, 45, 30)
    (tmp_path / "val" / "n01").mkdir(parents=True)
    Image.fromarray(image).save(tmp_path / "val" / "n01" / "a.png")
    write_map(tmp_path / "depth" / "n01" / "a", values)
    common = {"data": tmp_path / "val", "corruptions": ("fog_3d",), "severities": (2,), "image_format": "png"}
    config = CorruptConfig(out=tmp_path / "c", depth_dir=tmp_path / "depth", crop_px=32, **common)
    corrupt_set(config)
    box = (2, 12, 34, 44)  # of 37 x 55 px
    crop = np.asarray(Image.fromarray(image).resize((37, 55), Image.BILINEAR).crop(box))
    depth = np.asarray(Image.fromarray(values).resize((37, 55), Image.BILINEAR).crop(box))
    expected = one(crop, "fog_3d", 2, on_scale(depth, "distance"))
    assert (stored(config.out, "n01/a.png", "fog_3d") == expected).all()
    corrupt_set(replace(config, out=tmp_path / "d", crop_px=0))
    depth = np.asarray(Image.fromarray(values).resize((60, 90), Image.BILINEAR))
    expected = one(image, "fog_3d", 2, on_scale(depth, "distance"))
    assert (stored(tmp_path / "d", "n01/a.png", "fog_3d") == expected).all()


def png_8_bit():
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "values, message",
    [
        (np.full((32, 16), 1.0), "16x32, its image 32x32 px: other aspect ratios"),
        (np.full((32, 32, 1), 1.0), r"expected float\[height, width\]"),
        (np.full((32, 32), np.nan), "not finite and more than 0"),
        (np.full((32, 32), 1e300), "not finite and more than 0"),
        (np.zeros((32, 32)), "not finite and more than 0"),
        (np.full((32, 32), 5), "it holds int64, expected floating numbers"),
        (b"\x80\x04", "cannot be read"),
        (png_8_bit(), "mode L, expected 16-bit grey"),
    ],
)
def test_what_is_no_map_of_distances_is_refused_by_name_before_anything_is_written(config, values, message):
    path = config.depth_dir / "n01" / "val_0.npy"
    if isinstance(values, bytes):
        path.unlink()
        path.with_suffix(".png" if values.startswith(b"\x89PNG") else ".npy").write_bytes(values)
    else:
        np.save(path, values)
    with pytest.raises(InputError, match=message) as refusal:
        corrupt_set(config)
    assert "val_0" in str(refusal.value) and not config.out.exists()


def test_missing_maps_are_counted_and_the_first_is_named(config):
    for name in ("n01/val_2", "n02/val_1"):
        (config.depth_dir / f"{name}.npy").unlink()
    with pytest.raises(InputError, match=r"2 of 4 images have no depth map, the first is n01/val_2.npy \(or .png\)"):
        corrupt_set(config)
    with pytest.raises(InputError, match="near_focus: needs a depth map of each image; give their folder"):
        corrupt_set(replace(config, depth_dir=None))
    assert not config.out.exists()


def test_two_maps_of_one_image_are_refused(config):
    write_map(config.depth_dir / "n01" / "val_0", numbers(0, 32, 32), ".png")
    with pytest.raises(InputError, match=r"val_0.npy and val_0.png are maps of one image"):
        corrupt_set(config)


@pytest.mark.slow
def test_killed_between_any_files_a_set_by_depth_ends_with_the_bytes_of_one_left_alone(config, tmp_path):
    for number in range(2, 60):
        name = f"{('n01', 'n02')[number % 2]}/val_{number}"
        Image.fromarray(photo(number, 32)).save(config.data / f"{name}.png")
        write_map(config.depth_dir / name, numbers(number, 32, 32).astype(np.float32))
    whole = replace(config, out=tmp_path / "whole", corruptions=OF_DEPTH)
    corrupt_set(whole)
    flags = ("--data", config.data, "--out", config.out, "--depth-dir", config.depth_dir, "--corruptions", *OF_DEPTH)
    command = [sys.executable, "-m", "synclones", "evaluate", "corrupt", *map(str, flags)]
    command += ["--severities", *map(str, whole.severities), "--image-format", whole.image_format]

    def files(folder):
        return {p.relative_to(folder): p for p in folder.rglob("*") if p.suffix in (".png", ".JPEG")}

    every, random, left = len(files(whole.out)), np.random.default_rng(0), 0
    for _ in range(8):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        aim = left + int(random.integers(1, every // 8))
        while len(files(config.out)) < aim and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        process.wait()
        assert left < len(files(config.out)) < every and not (config.out / "manifest.json").exists()
        left = len(files(config.out))
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    made, expected = files(config.out), files(whole.out)
    assert {name: path.read_bytes() for name, path in made.items()} == {n: p.read_bytes() for n, p in expected.items()}
    assert read_manifest(config.out)["content_hash"] == read_manifest(whole.out)["content_hash"]
