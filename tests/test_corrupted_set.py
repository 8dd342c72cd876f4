"""Corrupted sets on disk: ImageNet-C's layout, the same bytes after kills and with several processes, never mixed."""

import io
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from corruption_reference import photo
from PIL import Image
from shard_helpers import write_finished

from synclones.base.errors import InputError, VerificationError
from synclones.base.manifest import read_manifest
from synclones.evaluate.corruptions import corrupted_set
from synclones.evaluate.corruptions.corrupt import corrupt
from synclones.evaluate.corruptions.corrupted_set import corrupt_set, generated_settings
from synclones.evaluate.corruptions.corrupted_settings import CorruptConfig
from synclones.evaluate.predict import TestSet
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.sources.open import open_source


def write_images(folder, size=32, suffix=".png", count=3):
    for number in range(2 * count):
        path = folder / ("n01", "n02")[number % 2] / f"val_{number:03d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(number, size)).save(path)
    return folder


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / "val")


@pytest.fixture
def config(data, tmp_path):
    return CorruptConfig(data=data, out=tmp_path / "c", corruptions=("fog", "contrast"), severities=(1, 5))


def contents(folder):
    files = (path for path in folder.rglob("*") if path.suffix in (".png", ".JPEG"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_images_of_32_px_are_stored_without_loss_in_the_layout_of_imagenet_c(config):
    corrupt_set(config)
    files = contents(config.out)
    assert len(files) == 2 * 2 * 6 and "fog/5/n02/val_003.png" in files
    stored = np.asarray(Image.open(io.BytesIO(files["fog/5/n02/val_003.png"]), formats=["PNG"]))
    assert (stored == corrupt(photo(3, 32), "fog", 5, seed=0, key="n02/val_003")).all()
    source = LabelledSource(open_source(config.out / "contrast" / "1"))
    assert source.class_ids == ("n01", "n02") and len(source) == 6
    assert not list(config.out.glob(".*"))


def test_results_call_a_set_by_its_corruption_and_as_generated(config, data):
    corrupt_set(config)
    assert TestSet(config.out / "fog" / "5").name == "fog/5 (generated)"
    assert TestSet(data).name == "val"


def test_larger_ones_are_jpegs_of_quality_85_as_released(tmp_path):
    data = write_images(tmp_path / "val", 64, count=1)
    corrupt_set(CorruptConfig(data=data, out=tmp_path / "c", corruptions=("snow",), severities=(2,)))
    stored = Image.open(tmp_path / "c/snow/2/n01/val_000.JPEG", formats=["JPEG"])
    expected = corrupt(photo(0, 64), "snow", 2, seed=0, key="n01/val_000", stored=True)
    assert (np.asarray(stored) == expected).all()


def test_photographs_are_resized_and_cut_as_imagenet_c_was_made(tmp_path):
    Image.fromarray(photo(0, 300)[:, :280]).save(write_images(tmp_path / "val", 300, count=1) / "n01" / "val_000.png")
    out = tmp_path / "c"
    corrupt_set(CorruptConfig(data=tmp_path / "val", out=out, corruptions=("pixelate",), severities=(1,), crop_px=224))
    resized = Image.fromarray(photo(0, 300)[:, :280]).resize((256, int(256 * 300 / 280)), Image.BILINEAR)
    cropped = np.asarray(resized.crop((16, 25, 240, 249)))
    stored = np.asarray(Image.open(out / "pixelate/1/n01/val_000.JPEG", formats=["JPEG"]))
    assert (stored == corrupt(cropped, "pixelate", 1, seed=0, key="n01/val_000", stored=True)).all()


def test_the_manifest_and_every_folder_below_say_generated(config, data):
    corrupt_set(config)
    record = read_manifest(config.out)
    assert record["generated"] is True and record["stage"] == "evaluate corrupt"
    assert record["settings"]["table"] == "by size" and record["settings"]["frost"] == "procedural"
    assert set(record["settings"]["versions"]) == {"numpy", "scipy", "pillow"} and record["settings"]["seed"] == 0
    assert record["cells"] == [["contrast", 1], ["contrast", 5], ["fog", 1], ["fog", 5]]
    assert generated_settings(config.out / "fog" / "1") == record["settings"] == generated_settings(config.out)
    assert generated_settings(data) is None


def test_after_a_failure_anywhere_what_is_there_stays_and_the_rest_is_the_same(config, monkeypatch):
    whole = replace(config, out=config.out.with_name("whole"))
    corrupt_set(whole)
    calls, real = [], corrupted_set.corrupt

    def failing(*args, **more):
        calls.append(1)
        if len(calls) in (5, 11, 18):
            raise OSError(28, "No space left on device")
        return real(*args, **more)

    monkeypatch.setattr(corrupted_set, "corrupt", failing)
    for stored in (4, 9, 15):
        with pytest.raises(OSError, match="No space left"):
            corrupt_set(config)
        assert len(contents(config.out)) == stored and not (config.out / "manifest.json").exists()
    corrupt_set(config)
    assert contents(config.out) == contents(whole.out) and len(calls) == 24 + 3
    corrupt_set(config)
    assert len(calls) == 24 + 3  # nothing is made twice


@pytest.mark.parametrize("left", [b"", b"\0" * 900, b"\x89PNG\r\n"])
def test_files_that_a_power_loss_cut_are_made_again(config, left):
    corrupt_set(config)
    before, path = contents(config.out), config.out / "fog" / "1" / "n01" / "val_002.png"
    path.write_bytes(left)
    corrupt_set(config)
    assert contents(config.out) == before


def test_several_processes_write_what_one_writes(config):
    alone = replace(config, out=config.out.with_name("alone"))
    corrupt_set(alone)
    command = [sys.executable, "-m", "synclones", "evaluate", "corrupt", "--data", str(config.data), "--out"]
    command += [str(config.out), "--corruptions", *config.corruptions, "--severities", "1", "5"]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in processes]
    assert all(code == 0 and "24 files, generated" in text for text, code in ends), ends
    assert contents(config.out) == contents(alone.out)
    assert read_manifest(config.out)["content_hash"] == read_manifest(alone.out)["content_hash"]


def test_corruptions_may_be_added_and_other_settings_are_refused(config):
    corrupt_set(config)
    before = contents(config.out)
    corrupt_set(replace(config, corruptions=("pixelate",), severities=(3,)))
    assert before.items() < contents(config.out).items() and ["pixelate", 3] in read_manifest(config.out)["cells"]
    for other in ({"seed": 1}, {"table": 64}, {"image_format": "jpeg"}, {"crop_px": 28, "table": 32}):
        with pytest.raises(InputError, match="asked.*give a new folder, or the same settings"):
            corrupt_set(replace(config, **other))


def test_our_sets_are_named_by_their_keys(tmp_path):
    data, out = write_finished(tmp_path / "set"), tmp_path / "c"
    corrupt_set(CorruptConfig(data=data, out=out, corruptions=("contrast",), severities=(1,), table=32))
    source = LabelledSource(open_source(data))
    files = contents(out)
    assert len(files) == len(source) == 21
    assert f"contrast/1/{source.class_ids[source.label(0)]}/{source.index(0):010d}.png" in files


def test_names_that_clash_give_way_to_numbers(tmp_path):
    data = write_images(tmp_path / "val")
    Image.fromarray(photo(9, 32)).save(data / "n01" / "val_000.jpg")
    out = tmp_path / "c"
    corrupt_set(CorruptConfig(data=data, out=out, corruptions=("contrast",), severities=(1,)))
    assert len(contents(out)) == 7 and "contrast/1/n01/0000000000.png" in contents(out)


def test_frost_textures_are_shrunk_for_small_images_and_named_by_hash(tmp_path, data):
    textures = tmp_path / "frost"
    textures.mkdir()
    Image.fromarray(np.full((200, 200, 3), 100, np.uint8)).save(textures / "a.png")
    out = tmp_path / "c"
    config = CorruptConfig(data=data, out=out, corruptions=("frost",), severities=(1,), frost_dir=textures)
    corrupt_set(config)
    stored = np.asarray(Image.open(out / "frost/1/n01/val_000.png", formats=["PNG"]))
    assert (stored == np.minimum(photo(0, 32) + 20.0, 255).astype(np.uint8)).all()
    assert read_manifest(out)["settings"]["frost"].startswith("textures ")
    Image.fromarray(np.zeros((150, 200, 3), np.uint8)).save(textures / "b.png")
    with pytest.raises(InputError, match="b.png is 200x150 px, expected at least 160x160"):
        corrupt_set(replace(config, out=tmp_path / "d"))
    with pytest.raises(InputError, match="no PNG, JPEG or WebP image in it"):
        corrupt_set(replace(config, out=tmp_path / "d", frost_dir=data))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"corruptions": ("fgo",)}, "did you mean 'fog'"),
        ({"data": "none"}, "no such folder or file"),
        ({"out": "val/c"}, "lies in --data"),
        ({"out": "val/n01/val_000.png"}, "is a file"),
        ({"out": "val"}, "lies in --data"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(config, tmp_path, changes, message):
    changes = {key: tmp_path / value if key in ("data", "out") else value for key, value in changes.items()}
    with pytest.raises(InputError, match=message):
        corrupt_set(replace(config, **changes))
    assert not config.out.exists()


@pytest.mark.parametrize(
    "changes", [{"severities": (0,)}, {"severities": (1, 1)}, {"corruptions": ()}, {"crop_px": -1}]
)
def test_settings_out_of_range_are_refused(changes, config):
    with pytest.raises(InputError, match="expected"):
        replace(config, **changes)


def test_other_sizes_and_others_folders_are_refused(tmp_path):
    data = write_images(tmp_path / "val", 40, count=1)
    config = CorruptConfig(data=data, out=tmp_path / "c")
    with pytest.raises(InputError, match="40 x 40 px: constants exist for squares"):
        corrupt_set(config)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match=r"holds files and no corrupted.json"):
        corrupt_set(replace(config, table=32))
    (tmp_path / "c" / "corrupted.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        corrupt_set(replace(config, table=32))


def test_a_damaged_image_ends_it_with_its_name(config):
    (config.data / "n01" / "val_002.png").write_bytes(b"no image")
    with pytest.raises((InputError, VerificationError), match="val_002"):
        corrupt_set(config)


def test_a_dry_run_writes_nothing(config, capsys):
    corrupt_set(replace(config, dry_run=True))
    assert "24 files as png, generated" in capsys.readouterr().out and not config.out.exists()


def test_the_settings_are_plain_json(config):
    corrupt_set(config)
    assert json.loads((config.out / "corrupted.json").read_text())["generated"] is True
