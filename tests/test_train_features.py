"""Features cached for a probe: the same heads as without, each image seen once, whatever was killed or damaged."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, run_command
from safetensors.torch import load_file

from synclones.base.errors import Stopped
from synclones.shards.loading.batches import BatchLoader
from synclones.shards.loading.mixture import parse_mixture
from synclones.shards.loading.parts import open_mixture
from synclones.train import loop
from synclones.train.batches import feature_files, feature_loader
from synclones.train.batches.feature_files import FeatureFiles, record
from synclones.train.caching import why_not_cached
from synclones.train.objective import load_objective
from synclones.train.objectives.probe import ProbeLearner
from synclones.train.progress import read_metrics
from synclones.train.run import main
from synclones.train.settings import TrainConfig

SETTINGS = {
    **{"architecture": "vit_tiny_patch16_224", "image_size_px": 32, "patch_size": 8, "embed_dim": 24, "depth": 1},
    **{"num_heads": 2, "batch_size": 12, "log_every": 1, "torch_threads": 1, "device": "cpu", "steps": 20},
    **{"objective": "probe", "optimizer": "sgd", "weight_decay": 0.0, "clip_norm": 1e6, "learning_rate": 1.0},
    **{"hold_out": 0.2, "warmup": 0.0, "crop_scale_min": 1.0, "checkpoint_every": 4},
}
NOTHING_CHANGES = ["--no-flip"]


def flags(data, out, *more: str, **settings) -> list[str]:
    pairs = {"data": data, "out": out, **SETTINGS, **settings}
    words = [text for name, value in pairs.items() for text in (f"--{name.replace('_', '-')}", *str(value).split())]
    return [*words, *NOTHING_CHANGES, *more]


def head(run: Path) -> torch.Tensor:
    return load_file(run / "export" / "model.safetensors")["head.weight"]


def files(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted((run / "features").glob("*/*"))}


@pytest.fixture
def small_files(monkeypatch):
    """Files of 16 rows, so that 50 images take four of them, computed eight at a time."""
    monkeypatch.setattr(feature_files, "ROWS_PER_FILE", 16)
    monkeypatch.setattr(feature_loader, "IMAGES_AT_ONCE", 8)


@pytest.fixture
def seen(monkeypatch) -> list[int]:
    """How many images went through the backbone, call by call."""
    counts: list[int] = []
    plain = ProbeLearner.features

    def features(self, pixels):
        counts.extend([len(pixels)] if pixels.device.type != "meta" else [])
        return plain(self, pixels)

    monkeypatch.setattr(ProbeLearner, "features", features)
    return counts


# ------------------------------------------------------------------ the same heads


@pytest.mark.parametrize(
    "data, more",
    [
        ("{0}", []),
        ("{0}", ["--probe-norm"]),
        ("{0},fraction=1/2 {0}:3", []),
        ("{0},balance=true,count=30", ["--micro-batch-size", "5"]),
    ],
    ids=["plain", "normalised", "mixture", "balanced"],
)
def test_the_exported_head_is_that_of_a_training_without_the_cache(dataset, tmp_path, small_files, data, more):
    data = data.format(dataset)
    main(flags(data, tmp_path / "cached", *more))
    main(flags(data, tmp_path / "plain", *more, "--probe-cache", "off"))
    assert (head(tmp_path / "cached") - head(tmp_path / "plain")).abs().max() <= 1e-6
    assert head(tmp_path / "cached").abs().max() > 0.01
    cached, plain = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("cached", "plain"))
    assert len(cached) == len(plain) > 20
    for ours, theirs in zip(cached, plain, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(ours[key] == pytest.approx(theirs[key], abs=1e-5) for key in ours)
    plans = {name: json.loads((tmp_path / name / "plan.json").read_text()) for name in ("cached", "plain")}
    assert plans["cached"].pop("features") == "cached" and plans["cached"] == plans["plain"]
    assert not (tmp_path / "plain" / "features").exists()


def test_two_processes_train_what_one_trains_and_share_the_work(dataset, tmp_path, small_files):
    script = tmp_path / "train.py"
    script.write_text(
        "import sys\n"
        "from synclones.train.batches import feature_files, feature_loader\n"
        "from synclones.train.run import main\n"
        "feature_files.ROWS_PER_FILE, feature_loader.IMAGES_AT_ONCE = 16, 8\n"
        "if __name__ == '__main__':\n"
        "    main(sys.argv[1:])\n"
    )
    main(flags(dataset, tmp_path / "one"))
    two = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script))
    done = run_command(*two, *flags(dataset, tmp_path / "two"), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "the backbone sees 50 of 50 images once" in done.stderr
    assert files(tmp_path / "two") == files(tmp_path / "one") and len(files(tmp_path / "one")) == 4
    assert (head(tmp_path / "two") - head(tmp_path / "one")).abs().max() <= 1e-6
    # Two begin what one ends: files of one are those of the other.
    shutil.copytree(tmp_path / "two", tmp_path / "mixed", ignore=shutil.ignore_patterns("0000[13]-*", "manifest.json"))
    shutil.rmtree(tmp_path / "mixed" / "checkpoints")
    main(flags(dataset, tmp_path / "mixed"))
    assert files(tmp_path / "mixed") == files(tmp_path / "one")


def test_every_image_is_decoded_and_seen_once(dataset, tmp_path, small_files, seen, monkeypatch):
    decoded, fill = [], BatchLoader.fill
    monkeypatch.setattr(
        BatchLoader, "fill", lambda self, batch, slots: decoded.extend(slots) or fill(self, batch, slots)
    )
    main(flags(dataset, tmp_path / "run", validate_every=2))
    assert len(decoded) == 50 and max(seen) <= 10
    assert sum(seen) == 50 + 10  # 20 steps of 12 images; ten held-out images are measured eleven times
    seen.clear()
    main(flags(dataset, tmp_path / "off", "--probe-cache", "off", validate_every=2))
    assert sum(seen) == 20 * 12 + 11 * 10


# ------------------------------------------------------------------ kills, signals and damage


def test_files_that_were_whole_before_a_kill_are_kept_and_the_head_is_the_same(
    dataset, tmp_path, small_files, seen, monkeypatch
):
    main(flags(dataset, tmp_path / "whole"))
    write, step = FeatureFiles.write, loop.Trainer.train_step

    def killed(self, number, rows):
        if number == 2:
            raise RuntimeError("killed")
        return write(self, number, rows)

    monkeypatch.setattr(FeatureFiles, "write", killed)
    with pytest.raises(RuntimeError, match="killed"):
        main(flags(dataset, tmp_path / "run"))
    assert len(files(tmp_path / "run")) == 2
    monkeypatch.setattr(FeatureFiles, "write", write)
    seen.clear()

    def killed_later(self, batch):
        if self.step == 9:
            raise RuntimeError("killed")
        return step(self, batch)

    monkeypatch.setattr(loop.Trainer, "train_step", killed_later)
    with pytest.raises(RuntimeError, match="killed"):
        main(flags(dataset, tmp_path / "run"))
    assert sum(seen) - 10 * len([n for n in seen if n == 10]) == 18  # of two files; measured once besides
    monkeypatch.setattr(loop.Trainer, "train_step", step)
    before = files(tmp_path / "run")
    main(flags(dataset, tmp_path / "run"))
    assert files(tmp_path / "run") == before == files(tmp_path / "whole")
    assert torch.equal(head(tmp_path / "run"), head(tmp_path / "whole"))


def test_a_signal_stops_between_files_and_keeps_them(dataset, tmp_path, small_files, monkeypatch):
    asked = iter([0, 15])
    monkeypatch.setattr(feature_loader, "stop_asked", lambda: next(asked, 0))
    with pytest.raises(Stopped):
        main(flags(dataset, tmp_path / "run"))
    assert len(files(tmp_path / "run")) == 2
    main(flags(dataset, tmp_path / "run"))
    assert len(files(tmp_path / "run")) == 4


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-9] + b"\1" + data[-8:]])
def test_a_damaged_file_is_told_of_and_made_again(dataset, tmp_path, small_files, capsys, monkeypatch, damage):
    asked = iter([0, 0, 0, 0, 15])
    monkeypatch.setattr(loop, "stop_asked", lambda: next(asked, 0))
    with pytest.raises(Stopped):
        main(flags(dataset, tmp_path / "run"))
    before = files(tmp_path / "run")
    path = tmp_path / "run" / list(before)[1]
    path.write_bytes(damage(path.read_bytes()))
    capsys.readouterr()
    main(flags(dataset, tmp_path / "run"))
    told = capsys.readouterr().err
    assert f"{path}: differs from the hash in its name; made again" in told and "sees 16 of 50 images" in told
    assert files(tmp_path / "run") == before


def test_a_damaged_image_counts_for_nothing_at_every_showing(copy_of_dataset, tmp_path, small_files):
    tar = copy_of_dataset / "train-00001.tar"  # whose first image is not held out
    data = bytearray(tar.read_bytes())
    mark, at = b"\x89PNG" if b"\x89PNG" in data else b"\xff\xd8\xff", 0
    for _ in range(3):  # one of them at least is not held out, whatever the set's hash is on this machine
        at = data.index(mark, at) + 4
        data[at : at + 300] = bytes(300)  # tables and frame: no decoder makes anything of it
    tar.write_bytes(bytes(data))
    skip = ["--on-bad-sample", "skip", "--probe-norm"]
    main(flags(copy_of_dataset, tmp_path / "cached", *skip, steps=8, hold_out=0.1))
    main(flags(copy_of_dataset, tmp_path / "plain", *skip, "--probe-cache", "off", steps=8, hold_out=0.1))
    cached, plain = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("cached", "plain"))
    skipped = [[record.get("skipped", 0) for record in records] for records in (cached, plain)]
    assert skipped[0] == skipped[1] and sum(skipped[0]) >= 1
    assert (head(tmp_path / "cached") - head(tmp_path / "plain")).abs().max() <= 1e-6


# ------------------------------------------------------------------ when, and what is said


def test_features_are_cached_where_no_showing_differs_from_another(dataset):
    common = {k: v for k, v in SETTINGS.items() if k != "hold_out"} | {"hold_out": 0.2, "flip": False}
    mixed = open_mixture(parse_mixture((str(dataset),)))

    def reason(**more) -> str:
        config = TrainConfig(data=(str(dataset),), **common | more)
        return why_not_cached(config, load_objective(config.objective), mixed)

    assert reason() == reason(jitter_probability=0.5, blur_sigma_max=3.0, decode="fast") == ""
    for changing in (
        *({"flip": True}, {"crop_scale_min": 0.5}, {"rotation_degrees": 5.0}, {"colour_jitter": 0.1}),
        *({"saturation_jitter": 0.1}, {"hue_jitter": 0.1}, {"grey_probability": 0.1}, {"blur_probability": 0.1}),
        *({"solarise_probability": 0.1}, {"erase_probability": 0.1}, {"rand_augment": "timm"}),
    ):
        (name,) = changing
        assert reason(**changing) == f"--{name.replace('_', '-')} shows images differently each time"
    assert reason(probe_cache="off") == "--probe-cache off"
    assert reason(steps=5) == "no image is shown twice" and reason(steps=6) == ""
    trained = {"objective": "supervised", "probe_cache": "auto", "hold_out": 0.0}
    assert reason(**trained) == "supervised trains the whole network"


def test_a_dry_run_counts_each_image_once_and_writes_nothing(dataset, tmp_path, capsys):
    main(flags(dataset, tmp_path / "run", "--dry-run"))
    assert "features   of 50 images once, then read from files: " in capsys.readouterr().out
    main(flags(dataset, tmp_path / "run", "--dry-run", "--rotation-degrees", "5"))
    assert "features   at every showing: --rotation-degrees shows images differently" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_rows_come_back_in_any_order_and_names_say_what_is_right(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_files, "ROWS_PER_FILE", 4)
    store = FeatureFiles(tmp_path / "f", 10)
    rows = np.zeros(10, dtype=record(3))
    rows["features"], rows["index"] = np.arange(30).reshape(10, 3), np.arange(10) + 2**40
    assert len(store) == 3 and store.whole(range(3)) == {}
    names = {
        number: store.write(number, rows[store.span(number).start : store.span(number).stop]) for number in (0, 1, 2)
    }
    assert store.whole(range(3)) == names and store.whole([1]) == {1: names[1]}
    store.open(names)
    order = np.array([9, 0, 4, 3, 9])
    assert np.array_equal(store.read(order), rows[order])
    with pytest.raises(ValueError, match="rows for file 2"):
        store.write(2, rows[:4])
