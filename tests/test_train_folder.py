"""The run folder: whose it is, when it is finished, and that a refused command writes nothing into it."""

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import simplejpeg
import torch
from safetensors.torch import load_file
from test_train import TINY, trained  # noqa: F401 - a fixture

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_file
from synclones.base.json_file import canonical_json
from synclones.base.manifest import read_manifest, write_manifest
from synclones.models.folder import load_classifier
from synclones.models.network import check_network
from synclones.shards.index import finish_folder
from synclones.shards.schema import Sample, ShardFiles
from synclones.shards.shard import label_range
from synclones.shards.sources.dataset import DatasetSource
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.write import ShardWriter
from synclones.train.progress import read_metrics
from synclones.train.run import main


def _train(dataset, out, *flags: str) -> None:
    main(["--data", str(dataset), "--out", str(out), *TINY, *flags])


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------ refused before anything is written

WRONG = {
    "typo": (["--architecture", "vit_tinny_patch16_224"], "did you mean"),
    "heads": (["--num-heads", "5"], "cannot be built"),
    "flags of another kind": (["--architecture", "resnet18"], "cannot be built"),
    "negative patch": (["--patch-size", "-4"], "--patch-size: -4 was given"),
    "depth": (["--depth", "10000000"], "--depth: 10000000 was given, expected 0 to 1000"),
    "width": (["--embed-dim", "-24"], "--embed-dim: -24 was given"),
    "negative heads": (["--num-heads", "-2"], "--num-heads: -2 was given"),
    "steps": (["--steps", "1" + "0" * 30], "--steps: 1"),
    "price": (["--dry-run", "--price-per-hour", "-1"], "--price-per-hour: -1"),
    "tracker": (["--track", "trackio"], "--track trackio: not installed"),
    "objective": (["--objective", "supervize"], "did you mean"),
    "compile": (["--compile"], "--compile: "),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_setting_that_cannot_be_leaves_no_run_folder(dataset, tmp_path, kind, monkeypatch):
    flags, said = WRONG[kind]
    if kind == "tracker":
        monkeypatch.setattr("synclones.train.job.find_spec", lambda name: None)
    with pytest.raises(InputError, match=said):
        _train(dataset, tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


def test_a_thousand_blocks_are_refused_as_soon_as_one(dataset, tmp_path):
    started = time.process_time()
    with pytest.raises(InputError, match="cannot be built"):
        _train(dataset, tmp_path / "run", "--depth", "1000", "--num-heads", "5")
    check_network("vit_tiny_patch16_224", 10, 32, {"patch_size": 8, "embed_dim": 24, "depth": 1000, "num_heads": 3}, 8)
    assert time.process_time() - started < 8, "without a look at a few of them: 20 s and more"


PLAIN = ("--patch-size", "0", "--embed-dim", "0", "--depth", "0", "--num-heads", "0")
NETWORKS = {
    "batch normalisation of one image": (
        "resnet10t",
        "32",
        ["--batch-size", "1"],
        "1 image of 32 px .*more than 1 value",
    ),
    "a rest of one image": ("resnet10t", "32", ["--micro-batch-size", "7"], "1 image of 32 px .*more than 1 value"),
    "two streams of other sizes": ("crossvit_tiny_240", "64", [], "cannot be trained on 8 images of 64 px"),
    "one tensor under two names": ("coat_tiny", "64", [], "cannot be stored, .* are one tensor"),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_that_could_not_be_trained_or_stored_is_refused_before_the_first_step(dataset, tmp_path, kind):
    architecture, side, flags, said = NETWORKS[kind]
    with pytest.raises(InputError, match=f"--architecture {architecture}: .*{said}"):
        _train(dataset, tmp_path / "run", *PLAIN, "--architecture", architecture, "--image-size-px", side, *flags)
    assert not (tmp_path / "run").exists()


def test_the_lab_s_data_are_not_drawn_for_a_command_that_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for flags, said in ((["--architecture", "nope"], "timm has no 'nope'"), (["--out", "/proc/x"], "/proc")):
        with pytest.raises(InputError, match=said):
            main(["--recipe", "lab", *flags])
    assert not list(tmp_path.iterdir())


PLACES = {
    "file": lambda path: path.write_text("mine"),
    "link to nothing": lambda path: path.symlink_to(path.with_name("nothing")),
    "link to itself": lambda path: path.symlink_to(path),
    "pipe": os.mkfifo,
    "model folder": lambda path: [path.mkdir(), (path / "config.json").touch(), (path / "model.safetensors").touch()],
    "results": lambda path: [path.mkdir(), write_manifest(path, "evaluate", {}, [], {}, {})],
    "a folder as config": lambda path: (path / "config.yaml").mkdir(parents=True),
    "a folder as manifest": lambda path: (path / "manifest.json").mkdir(parents=True),
    "a file as checkpoints": lambda path: [path.mkdir(), (path / "checkpoints").touch()],
    "checkpoints linked to nothing": lambda path: [path.mkdir(), (path / "checkpoints").symlink_to("nothing")],
    "linked metrics": lambda path: [path.mkdir(), (path / "metrics.jsonl").symlink_to(path.with_name("elsewhere"))],
}


@pytest.mark.parametrize("kind", PLACES)
def test_a_place_that_is_no_run_folder_is_refused_and_stays_as_it_was(dataset, tmp_path, kind):
    PLACES[kind](tmp_path / "run")
    before = sorted(map(str, tmp_path.rglob("*"))), _content(tmp_path) if kind != "pipe" else {}
    with pytest.raises(InputError, match="run"):
        _train(dataset, tmp_path / "run")
    assert before == (sorted(map(str, tmp_path.rglob("*"))), _content(tmp_path) if kind != "pipe" else {})


def test_a_dataset_is_not_taken_for_a_finished_run(copy_of_dataset, tmp_path):
    (copy_of_dataset / "plan.json").unlink()
    before = _content(copy_of_dataset)
    with pytest.raises(InputError, match=r"made by another command \(generate\)"):
        _train(copy_of_dataset, copy_of_dataset)
    assert before == _content(copy_of_dataset)


@pytest.mark.parametrize("name", ["/dev/null", "/proc/x", "/dev/null/x", b"caf\xe9"])
def test_a_place_of_the_system_or_of_no_name_is_refused(dataset, tmp_path, name):
    out = tmp_path / os.fsdecode(name) if isinstance(name, bytes) else name
    with pytest.raises(InputError, match="--out: |is not UTF-8"):
        _train(dataset, out)
    assert not list(tmp_path.iterdir())


def test_a_label_out_of_range_in_a_later_shard_leaves_no_run_folder(copy_of_dataset, tmp_path):
    manifest = json.loads((copy_of_dataset / "manifest.json").read_text())
    (copy_of_dataset / "manifest.json").write_text(json.dumps(manifest | {"classes": list("012345678")}))
    with pytest.raises(InputError, match="has label 9, expected 0 to 8"):
        _train(copy_of_dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------ finished or not


@pytest.fixture
def run(trained, tmp_path):  # noqa: F811
    """A copy of a finished run."""
    return shutil.copytree(trained, tmp_path / "run")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "export gone": lambda run: shutil.rmtree(run / "export"),
    "weights gone": lambda run: (run / "export" / "model.safetensors").unlink(),
    "weights cut": lambda run: _cut(run / "export" / "model.safetensors"),
    "one bit of the weights": lambda run: _flip(run / "export" / "model.safetensors"),
    "configuration changed": lambda run: (run / "export" / "config.json").write_text("{}"),
    "manifest empty": lambda run: (run / "manifest.json").write_text(""),
    "manifest of another plan": lambda run: write_manifest(run, "train", {}, [], {}, {}, {"plan_id": "other"}),
    "export a link": lambda run: [os.rename(run / "export", run / "e"), (run / "export").symlink_to(run / "nothing")],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_finished_run_of_which_a_part_is_damaged_is_exported_again(run, trained, dataset, kind):  # noqa: F811
    DAMAGE[kind](run)
    _train(dataset, run)
    assert sha256_file(run / "export" / "model.safetensors") == sha256_file(trained / "export" / "model.safetensors")
    assert load_classifier(run)[1] == read_manifest(run)["content_hash"]
    assert read_metrics(run / "metrics.jsonl") == read_metrics(trained / "metrics.jsonl")


def test_without_checkpoints_a_damaged_export_is_said_and_nothing_is_trained_anew(run, dataset):
    shutil.rmtree(run / "checkpoints")
    _cut(run / "export" / "model.safetensors")
    before = _content(run)
    with pytest.raises(VerificationError, match="no checkpoint is left to make it again from"):
        _train(dataset, run)
    assert _content(run) | {".run.lock": b""} == before | {".run.lock": b""}


def test_a_finished_run_is_not_written_to_by_the_same_command(run, dataset):
    before = {str(path): path.stat().st_mtime_ns for path in run.rglob("*") if not path.name.startswith(".")}
    _train(dataset, run, "--log-every", "7", "--keep-checkpoints", "9")
    assert before == {str(path): path.stat().st_mtime_ns for path in run.rglob("*") if not path.name.startswith(".")}


def test_what_killed_writers_left_in_a_run_folder_goes(run, dataset):
    (run / "manifest.json").unlink()
    (run / ".export.tmp-4711").mkdir()
    (run / ".plan.json.tmp-4711-0123abcd").touch()
    _train(dataset, run)
    assert not list(run.glob(".*.tmp*"))


@pytest.mark.parametrize("name", ["plan.json", "metrics.jsonl"])
def test_a_pipe_in_the_run_folder_is_not_waited_for(run, dataset, name):
    (run / "manifest.json").unlink()
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(VerificationError, match=name):
        _train(dataset, run)


# ------------------------------------------------------------------ metrics


def test_a_line_of_metrics_that_cannot_be_read_is_left_out_with_a_word(run, trained, dataset, capsys):  # noqa: F811
    (run / "manifest.json").unlink()
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    broken = [b"\xff" + lines[0], b"[" * 100_000 + b"\n", b'{"step": "x"}\n', *lines[1:], b'{"step": 14, "lo']
    (run / "metrics.jsonl").write_bytes(b"".join(broken))
    _train(dataset, run)
    assert (run / "metrics.jsonl").read_bytes() == b"".join(lines[1:])
    assert "metrics.jsonl: 3 damaged lines were left out" in capsys.readouterr().err


# ------------------------------------------------------------------ the size of the images


def _write_set(folder: Path, sides: list[int], plan: dict | None = None, damaged: int = -1) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    samples = []
    for index, side in enumerate(sides):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        jpg = b"\xff\xd8 no image" if index == damaged else simplejpeg.encode_jpeg(pixels)
        facts = canonical_json({"index": index})
        samples.append(Sample(index=index, jpg=jpg, json=facts, txt="x", label=index % 10))
    with ShardWriter(folder, "train-00000", "plan") as writer:
        writer.add_batch(0, samples)
        writer.finish()
    if plan is not None:
        (folder / "plan.json").write_text(json.dumps(plan))
    finish_folder(folder)
    write_manifest(folder, "own", {}, [], {}, {}, {"classes": list("0123456789"), "content_hash": ""})
    return folder


def test_images_of_any_sizes_are_trained_on_together(tmp_path, capsys):
    data = _write_set(tmp_path / "set", [8, 900, *range(20, 58)])
    _train(data, tmp_path / "run")
    assert "images are read at" not in capsys.readouterr().err
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert (plan["rules"], plan["decode"], plan["interpolation"]) == (3, "faithful", "bicubic")
    exported = json.loads((tmp_path / "run" / "export" / "config.json").read_text())
    assert exported["pretrained_cfg"]["interpolation"] == "bicubic"


@pytest.mark.parametrize(("classes", "more"), [("0123456789", ""), ("abcdefghij", " --data TEST")])
def test_the_next_command_asks_for_test_images_of_other_classes_than_the_lab_s(tmp_path, capsys, classes, more):
    data = _write_set(tmp_path / "set", [32] * 20)
    write_manifest(data, "own", {}, [], {}, {}, {"classes": list(classes), "content_hash": ""})
    _train(data, tmp_path / "run")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: ")]
    assert line == f"next: synclones evaluate --model {tmp_path / 'run'}{more}"


def test_the_mode_of_decoding_belongs_to_the_training(tmp_path):
    data = _write_set(tmp_path / "set", [64] * 20)
    _train(data, tmp_path / "run")
    with pytest.raises(InputError, match="belongs to another training: decode"):
        _train(data, tmp_path / "run", "--decode", "fast")
    _train(data, tmp_path / "fast", "--decode", "fast")
    faithful, fast = (load_file(tmp_path / name / "export" / "model.safetensors") for name in ("run", "fast"))
    assert any(not torch.equal(faithful[name], fast[name]) for name in faithful)


def test_skipping_holds_for_the_first_image_too(tmp_path):
    data = _write_set(tmp_path / "set", [32] * 120, damaged=0)
    with pytest.raises(VerificationError, match="sample 0000000000"):
        _train(data, tmp_path / "fails", "--steps", "20")
    _train(data, tmp_path / "run", "--steps", "20", "--on-bad-sample", "skip")
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["skipped"] >= 1


def test_a_missing_shard_is_told_and_what_it_takes_with_it_is_bounded(copy_of_dataset, tmp_path, capsys):
    (copy_of_dataset / "train-00001.tar").unlink()
    with pytest.raises(VerificationError, match="train-00001.tar: missing"):
        _train(copy_of_dataset, tmp_path / "run")
    with pytest.raises(VerificationError, match="images are damaged, more than skipping allows; the last: .*00001.tar"):
        _train(copy_of_dataset, tmp_path / "run", "--steps", "20", "--on-bad-sample", "skip")
    assert "train-00001.tar: missing" in (told := capsys.readouterr().err) and "going on without what is" in told


# ------------------------------------------------------------------ --data FOLDER:N


def test_a_folder_whose_name_ends_like_a_number_of_times_is_that_folder(dataset, tmp_path, capsys):
    shutil.copytree(dataset, tmp_path / "a:2")
    shutil.copytree(dataset, tmp_path / "a")
    _train(tmp_path / "a:2", tmp_path / "run")
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert [source["repeat"] for source in plan["data"]] == [1]
    assert "a:2: taken for the folder of this name, not for" in capsys.readouterr().err


@pytest.mark.parametrize("times", ["²", "٣", "9" * 400])
def test_times_are_a_plain_number(dataset, tmp_path, times):
    with pytest.raises(InputError, match="repeat: .* was given, expected how often|no such folder or file"):
        _train(f"{dataset}:{times}", tmp_path / "run")


# ------------------------------------------------------------------ shards that change while they are read


@pytest.mark.parametrize("suffix", ["tar", "parquet"])
@pytest.mark.parametrize("kind", ["gone", "pipe", "folder"])
def test_a_shard_that_is_no_file_any_more_is_damage_and_nothing_waits_for_it(copy_of_dataset, suffix, kind):
    source = LabelledSource(copy_of_dataset)
    path = copy_of_dataset / f"train-00000.{suffix}"
    path.unlink()
    {"gone": lambda path: None, "pipe": os.mkfifo, "folder": os.mkdir}[kind](path)
    with pytest.raises(VerificationError, match=f"train-00000.{suffix}: .*(missing|no regular file)"):
        source.encoded(0)


@pytest.mark.parametrize("steps", ["٣", "²", "1e30"])
def test_a_length_is_a_number_in_plain_digits(dataset, tmp_path, steps):
    with pytest.raises(InputError, match="--steps: got .* expected a count"):
        _train(dataset, tmp_path / "run", "--steps", steps)


def test_a_recipe_that_is_no_text_is_named_as_what_it_is(tmp_path):
    (tmp_path / "a.yaml").write_text("recipe: [lab]\n")
    with pytest.raises(InputError, match=r"a\.yaml:1: recipe: got a list, expected text"):
        main(["--config", str(tmp_path / "a.yaml")])


@pytest.mark.parametrize("noted", [True, False], ids=["statistics", "none"])
def test_labels_are_looked_at_with_and_without_the_parquet_files_statistics(copy_of_dataset, tmp_path, noted):
    parquet = sorted(copy_of_dataset.glob("train-*.parquet"))[-1]
    pq.write_table(pq.read_table(parquet), parquet, write_statistics=noted)
    summary = json.loads(parquet.with_suffix(".json").read_text())
    summary["parquet"] = {"bytes": parquet.stat().st_size, "sha256": hashlib.sha256(parquet.read_bytes()).hexdigest()}
    parquet.with_suffix(".json").write_text(json.dumps(summary))
    files = ShardFiles(copy_of_dataset, parquet.stem)
    assert label_range(files, summary) == ((0, 9) if noted else None)
    source = DatasetSource(copy_of_dataset)
    last = len(source.images_per_shard) - 1
    source.check_labels(last)
    manifest = json.loads((copy_of_dataset / "manifest.json").read_text())
    (copy_of_dataset / "manifest.json").write_text(json.dumps(manifest | {"classes": list("012345678")}))
    with pytest.raises(InputError, match="has label 9, expected 0 to 8"):
        DatasetSource(copy_of_dataset).check_labels(last)
    parquet.write_bytes(parquet.read_bytes()[:-1] + b"?")
    with pytest.raises(VerificationError, match="other bytes than its json states"):
        source.check_labels(last)
