"""Checkpoints: which are kept, which are believed, and that no half of one is ever seen."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from test_train import TINY, trained  # noqa: F401 - a fixture

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import remove_leftovers, replaced_file, replaced_folder, sha256_file
from synclones.train.recovery.checkpoint import Checkpoint, newest_checkpoint, read_checkpoint, save_checkpoint
from synclones.train.recovery.folder_names import list_checkpoints
from synclones.train.run import main


def _checkpoint(step: int) -> Checkpoint:
    tensors = {"a": torch.full((3,), float(step)), "b": torch.arange(4.0)}
    return Checkpoint(step, "plan", tensors, {f"exp_avg/{k}": v for k, v in tensors.items()}, {"skipped": 0})


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _steps(folder: Path) -> list[int]:
    return [step for step, _ in list_checkpoints(folder)]


def _resum(folder: Path) -> None:
    """Make the sums right again, whatever the files hold."""
    names = ("model.safetensors", "optimizer.safetensors", "state.json")
    (folder / "SHA256SUMS").write_text("".join(f"{sha256_file(folder / name)}  {name}\n" for name in names))


# ------------------------------------------------------------------ which are kept


def test_a_damaged_newer_checkpoint_never_makes_a_good_one_go(tmp_path):
    for step in (100, 200):
        save_checkpoint(tmp_path, _checkpoint(step), keep=2)
    _flip(tmp_path / "step-00000200" / "model.safetensors")
    (tmp_path / "step-99999999").mkdir()
    assert newest_checkpoint(tmp_path).step == 100
    for step in (125, 150, 175):
        save_checkpoint(tmp_path, _checkpoint(step), keep=1)
        assert _steps(tmp_path) == [step] and newest_checkpoint(tmp_path).step == step


def test_what_is_kept_beside_the_newest_verifies(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, _checkpoint(step), keep=3)
    _flip(tmp_path / "step-00000003" / "optimizer.safetensors")
    save_checkpoint(tmp_path, _checkpoint(4), keep=2)
    assert _steps(tmp_path) == [2, 4]


def test_a_removal_that_is_killed_leaves_no_half_under_the_name_of_a_whole(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, _checkpoint(1), keep=1)
    remove = shutil.rmtree

    def half(path, **more):
        next(Path(path).iterdir()).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", half)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, _checkpoint(2), keep=1)
    monkeypatch.setattr(shutil, "rmtree", remove)
    assert all(read_checkpoint(path) for _, path in list_checkpoints(tmp_path)) and _steps(tmp_path) == [2]
    save_checkpoint(tmp_path, _checkpoint(3), keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003"]


def test_an_old_checkpoint_that_is_a_link_goes_and_what_it_points_to_stays(tmp_path):
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, _checkpoint(1), keep=1)
    os.rename(folder / "step-00000001", tmp_path / "elsewhere")
    (folder / "step-00000001").symlink_to(tmp_path / "elsewhere")
    save_checkpoint(folder, _checkpoint(2), keep=1)
    assert _steps(folder) == [2] and (tmp_path / "elsewhere" / "state.json").exists()


def test_leftovers_of_killed_writers_go_and_nothing_else(tmp_path):
    for name in (".export.tmp", ".export.tmp-4711", ".step-00000001.removed"):
        (tmp_path / name / "inner").mkdir(parents=True)
    (tmp_path / ".plan.json.tmp-4711-0123abcd").touch()
    (tmp_path / ".kept.tmp").symlink_to(tmp_path / "export")
    kept = {".run.lock", ".notes", "a.tmp", "export"}
    for name in kept:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_folder_takes_the_place_of_a_link_or_of_a_planted_name_and_writes_through_neither(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for name in ("export", ".export.tmp", ".export.removed"):
        (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with replaced_folder(tmp_path / "export") as folder:
        (folder / "a").write_text("a")
    assert (tmp_path / "export" / "a").read_text() == "a" and not (tmp_path / "export").is_symlink()
    assert not any((tmp_path / "elsewhere").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"export", "elsewhere"}


def test_a_full_disk_under_a_library_is_said_with_the_folder_that_was_written(tmp_path):
    words = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(OSError, match=r"\[Errno 28\] .*: '.*/export'"), replaced_folder(tmp_path / "export"):
        raise SafetensorError(words)
    with pytest.raises(OSError, match=r"\[Errno 28\] .*: '.*/a.json'"), replaced_file(tmp_path / "a.json"):
        raise SafetensorError(words)
    with pytest.raises(SafetensorError, match="header"), replaced_folder(tmp_path / "export"):
        raise SafetensorError("header too small")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ which are believed

STATES = {
    "empty": {},
    "list": [1],
    "text": "x",
    "step_text": {"step": "2"},
    "step_negative": {"step": -5},
    "step_of_another": {"step": 1},
    "step_beyond": {"step": 10**9},
    "no_state": {"state": {}},
    "state_list": {"state": []},
    "skipped_text": {"state": {"skipped": "many"}},
    "plan_number": {"plan_id": 7},
}


@pytest.mark.parametrize("kind", STATES)
def test_a_state_that_no_training_has_is_passed_over_though_its_hash_is_right(tmp_path, kind):
    for step in (1, 2):
        save_checkpoint(tmp_path, _checkpoint(step), keep=2)
    folder, wrong = tmp_path / "step-00000002", STATES[kind]
    whole = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(whole | wrong if isinstance(wrong, dict) and wrong else wrong))
    _resum(folder)
    with pytest.raises(VerificationError, match=r"step-00000002/state\.json: damaged"):
        read_checkpoint(folder)
    assert newest_checkpoint(tmp_path).step == 1


@pytest.mark.parametrize("text", ["[" * 100_000, "{nonsense", "\udcff"])
def test_a_state_that_is_no_json_is_passed_over(tmp_path, text):
    for step in (1, 2):
        save_checkpoint(tmp_path, _checkpoint(step), keep=2)
    folder = tmp_path / "step-00000002"
    (folder / "state.json").write_text(text, errors="surrogateescape")
    _resum(folder)
    assert newest_checkpoint(tmp_path).step == 1


@pytest.mark.parametrize("data", [b"", b"garbage", b"\xff" * 64])
def test_tensors_that_are_none_are_passed_over_though_their_hash_is_right(tmp_path, data):
    for step in (1, 2):
        save_checkpoint(tmp_path, _checkpoint(step), keep=2)
    folder = tmp_path / "step-00000002"
    (folder / "model.safetensors").write_bytes(data)
    _resum(folder)
    assert newest_checkpoint(tmp_path).step == 1


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "SHA256SUMS"])
@pytest.mark.parametrize("kind", ["pipe", "zeros", "folder"])
def test_nothing_waits_for_what_is_no_file(tmp_path, name, kind):
    for step in (1, 2):
        save_checkpoint(tmp_path, _checkpoint(step), keep=2)
    path = tmp_path / "step-00000002" / name
    path.unlink()
    {"pipe": os.mkfifo, "zeros": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](path)
    assert newest_checkpoint(tmp_path).step == 1


@pytest.fixture
def stopped(trained, tmp_path):  # noqa: F811
    """A run of which the manifest and the export are gone."""
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "manifest.json").unlink()
    shutil.rmtree(run / "export")
    return run


def _change(checkpoint: Path, name: str, change) -> None:
    tensors = getattr(read_checkpoint(checkpoint), name)
    save_file(change(tensors), checkpoint / f"{name}.safetensors")
    _resum(checkpoint)


CHANGES = {
    "int8 weights": ("model", lambda t: {k: v.to(torch.int8) for k, v in t.items()}),
    "half weights": ("model", lambda t: {k: v.half() for k, v in t.items()}),
    "a name more": ("model", lambda t: t | {"extra": torch.zeros(1)}),
    "a name less": ("model", lambda t: {k: v for k, v in list(t.items())[1:]}),
    "moments of another shape": ("optimizer", lambda t: t | {"exp_avg/head.bias": torch.zeros(11)}),
    "moments of another type": ("optimizer", lambda t: t | {"exp_avg/head.bias": torch.zeros(10).double()}),
    "a moment less": ("optimizer", lambda t: {k: v for k, v in t.items() if k != "step/head.bias"}),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_tensors_that_do_not_fit_the_network_are_refused(stopped, dataset, kind):
    name, change = CHANGES[kind]
    _change(stopped / "checkpoints" / "step-00000012", name, change)
    with pytest.raises(InputError, match=r"step-00000012: a checkpoint of another model \(.* is "):
        main(["--data", str(dataset), "--out", str(stopped), *TINY])
    assert not (stopped / "export").exists()


def test_a_step_beyond_the_end_is_not_exported(stopped, dataset):
    newest = read_checkpoint(stopped / "checkpoints" / "step-00000012")
    beyond = Checkpoint(10**9, newest.plan_id, newest.model, newest.optimizer, newest.state)
    save_checkpoint(stopped / "checkpoints", beyond, keep=9)
    with pytest.raises(VerificationError, match="this training has 12 steps; remove it to go on from another"):
        main(["--data", str(dataset), "--out", str(stopped), *TINY])
    assert not (stopped / "export").exists()
