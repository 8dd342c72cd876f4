"""The environment of a launcher is checked: garbage is one line, and no library's switch changes a result."""

import os
import subprocess
import threading

import pytest

from synclones.base import files, machine
from synclones.base.config import load
from synclones.base.errors import InputError
from synclones.lab import world
from synclones.shards import lock as locks
from synclones.train.settings import TrainConfig

MEETING = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def launched(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in (*MEETING, "LOCAL_WORLD_SIZE", *machine.FOREIGN_SWITCHES):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"])
@pytest.mark.parametrize("value", ["abc", "", "-1", "1.5", "²", "9" * 30])
def test_a_number_that_is_none_is_one_line(monkeypatch, name, value):
    launched(monkeypatch, **(MEETING | {name: value}))
    with pytest.raises(InputError, match=f"{name} in the environment"):
        machine.check_launch()


@pytest.mark.parametrize("name, value", [("WORLD_SIZE", "0"), ("LOCAL_WORLD_SIZE", "0"), ("RANK", "2")])
def test_a_number_that_cannot_be_is_one_line(monkeypatch, name, value):
    launched(monkeypatch, **(MEETING | {name: value}))
    with pytest.raises(InputError, match=f"{name} in the environment"):
        machine.check_launch()


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_a_world_without_the_way_to_meet_is_one_line(monkeypatch, name):
    launched(monkeypatch, **{key: value for key, value in MEETING.items() if key != name})
    with pytest.raises(InputError, match=f"WORLD_SIZE is 2, and not set: {name}; "):
        machine.check_launch()


@pytest.mark.parametrize(
    "name, value",
    [
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR"),
        ("ACCELERATE_USE_DEEPSPEED", "true"),
        ("ACCELERATE_USE_MEGATRON_LM", "true"),
        ("ACCELERATE_USE_FSDP", "1"),
    ],
)
def test_what_accelerate_would_take_from_the_environment_is_refused(monkeypatch, name, value):
    launched(monkeypatch, **{name: value})
    with pytest.raises(InputError, match=f"unset {name}"):
        machine.check_launch()


def test_what_accelerate_launch_itself_sets_passes(monkeypatch):
    launched(monkeypatch, **MEETING, ACCELERATE_DYNAMO_BACKEND="NO", ACCELERATE_MIXED_PRECISION="no")
    machine.check_launch()
    launched(monkeypatch)
    machine.check_launch()


def test_use_cpu_is_yes_or_no(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "maybe")
    with pytest.raises(InputError, match="expected true or false"):
        machine.choose_device("auto")


@pytest.mark.parametrize("flags", [["--data", ""], ["--data", "a", ""], ["--out", ""], ["--recipe", ""], ["--out="]])
def test_a_flag_with_nothing_as_from_an_unset_variable_is_no_default(flags):
    with pytest.raises(InputError, match="a shell variable that is not set"):
        load(TrainConfig, flags, "synclones train")


def test_a_path_that_is_not_utf8_is_named_alone():
    with pytest.raises(InputError, match=r"^caf\udce9: is not UTF-8, which manifests are; rename it$"):
        load(TrainConfig, ["--samples", "10", "--out", "caf\udce9"], "synclones train")


def test_a_default_that_cannot_be_made_ends_with_the_code_of_its_own_command(monkeypatch):
    monkeypatch.setattr(world.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], -15))
    with pytest.raises(SystemExit, match="143"):
        world._run("synclones.generate.run")


def test_a_pipe_or_a_device_as_configuration_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    for name in ("pipe.yaml", "zero.yaml"):
        with pytest.raises(InputError, match=f"{name}: no regular file"):
            load(TrainConfig, ["--config", str(tmp_path / name)], "synclones train")


# ------------------------------------------------------------------ file systems that lack something


@pytest.mark.parametrize("number", files.NO_LOCKS)
def test_without_locks_one_process_works_and_its_threads_keep_apart(tmp_path, monkeypatch, capfd, number):
    def flock(descriptor: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.fcntl, "flock", flock)
    monkeypatch.setattr(files, "_WARNED", set())
    first = locks.claim(tmp_path, "train-00000")
    assert first is not None and locks.claim(tmp_path, "train-00000") is None
    other = locks.claim(tmp_path, "train-00001")
    assert other is not None
    waited: list[object] = []
    waiter = threading.Thread(target=lambda: waited.append(locks.claim(tmp_path, "train-00000", wait=True)))
    waiter.start()
    first.release()
    waiter.join(10)
    assert waited != [None]
    files.write_atomic(tmp_path / "x", b"x")
    assert capfd.readouterr().err.count("has no locks; let only one command at a time write there") == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="no locks to keep processes apart"):
        locks.claim(tmp_path, "train-00002")


def test_without_locks_temporaries_stay_since_their_writer_may_live(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "lock", lambda *_, **__: False)
    (tmp_path / ".x.tmp-1-ab").write_bytes(b"")
    files.remove_dead_temporaries(tmp_path)
    assert (tmp_path / ".x.tmp-1-ab").exists()


def test_a_file_system_that_does_not_sync_folders_is_told_of_once(tmp_path, monkeypatch, capfd):
    sync_file = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(22, "Invalid argument")
        sync_file(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    monkeypatch.setattr(files, "_WARNED", set())
    for name in ("a", "b"):
        files.write_atomic(tmp_path / name, b"x")
    assert capfd.readouterr().err.count("does not sync folders") == 1
    assert (tmp_path / "b").read_bytes() == b"x"
