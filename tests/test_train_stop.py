"""Signals and clocks: a stop keeps the step it comes after, and the run ends as if nothing had happened."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run_command
from test_train import TINY, trained  # noqa: F401 - a fixture

import synclones.train.launch as launch
import synclones.train.loop as loop
import synclones.train.recovery.agreement as agreement
from synclones.base.config import load
from synclones.base.errors import InputError, Stopped
from synclones.base.files import sha256_file
from synclones.train.job import prepare
from synclones.train.recovery.agreement import LAG_STEPS, Agreement
from synclones.train.recovery.checkpoint import read_checkpoint
from synclones.train.recovery.folder_names import list_checkpoints
from synclones.train.run import main
from synclones.train.settings import TrainConfig

LONG = ("--steps", "100000", "--checkpoint-every", "50000")


def _train(dataset, out, *flags: str) -> None:
    main(["--data", str(dataset), "--out", str(out), *TINY, *flags])


def _same(run: Path, reference: Path) -> bool:
    names = ("export/model.safetensors", "metrics.jsonl", "checkpoints/step-00000012/model.safetensors")
    state = json.loads((run / "checkpoints" / "step-00000012" / "state.json").read_text())
    return state["state"] == {"skipped": 0} and all(
        sha256_file(run / name) == sha256_file(reference / name) for name in names
    )


def test_stops_after_any_step_change_neither_weights_nor_metrics(dataset, trained, tmp_path, monkeypatch):  # noqa: F811
    first = 0
    for stop_after in (3, 4, 7, 8, 11):
        answers = iter([0] * (stop_after - first - 1) + [15])
        monkeypatch.setattr(loop, "stop_asked", lambda answers=answers: next(answers))
        with pytest.raises(
            Stopped, match=f"signal 15 after step {stop_after}; run the same command again to resume, or"
        ):
            _train(dataset, tmp_path / "run")
        first = list_checkpoints(tmp_path / "run" / "checkpoints")[-1][0]
        assert first == stop_after
    monkeypatch.setattr(loop, "stop_asked", lambda: 0)
    _train(dataset, tmp_path / "run")
    assert _same(tmp_path / "run", trained)


def test_checkpoints_in_time_change_neither_weights_nor_metrics(dataset, trained, tmp_path, monkeypatch):  # noqa: F811
    ticks = iter(range(10_000))
    saved, save = [], loop.save_checkpoint
    monkeypatch.setattr(loop, "save_checkpoint", lambda *given: [saved.append(given[1].step), save(*given)])
    monkeypatch.setattr(agreement.time, "monotonic", lambda: next(ticks))
    _train(dataset, tmp_path / "run", "--checkpoint-every", "5s", "--keep-checkpoints", "9")
    assert saved[-1] == 12 and len(saved) >= 3 and saved != [4, 8, 12]
    monkeypatch.setattr(loop, "save_checkpoint", save)
    for step in saved[1:]:  # back to the first, which lies between two lines of metrics
        (tmp_path / "run" / "checkpoints" / f"step-{step:08d}").rename(tmp_path / f"gone-{step}")
    (tmp_path / "run" / "manifest.json").unlink()
    _train(dataset, tmp_path / "run")
    assert _same(tmp_path / "run", trained)


@pytest.mark.parametrize("interval", ["0", "-3", "x", "1.5", "0.5s", "²", "10 parsecs", "1e9"])
def test_an_interval_is_steps_or_time(dataset, tmp_path, interval):
    with pytest.raises(InputError, match="expected steps such as 500, or a time such as 10min"):
        _train(dataset, tmp_path / "run", "--checkpoint-every", interval)


INTERVALS = {"100": (100, None), "10min": (None, 600.0), "1.5h": (None, 5400.0)}


@pytest.mark.parametrize("interval", INTERVALS)
def test_an_interval_in_a_file_is_what_it_is_as_a_flag(tmp_path, interval):
    (tmp_path / "a.yaml").write_text(f"checkpoint_every: {interval}\n")
    for flags in (["--config", str(tmp_path / "a.yaml")], ["--checkpoint-every", interval]):
        config = load(TrainConfig, [*flags, "--steps", "1"], "train")
        assert config.checkpoint_interval() == INTERVALS[interval]


def test_an_agreement_of_one_is_at_once():
    assert LAG_STEPS and Agreement(1, torch.device("cpu")).exchange(15, 1) == [15, 1]


def _wait_for_line(process: subprocess.Popen, words: str) -> None:
    while words not in process.stderr.readline():
        assert process.poll() is None


def _kept(said: str, folder: Path, number: int) -> int:
    goes_on = rf"run the same command again to resume, or `synclones train --config \S*{folder.name}/config.yaml`"
    step = re.search(rf"stopped by signal {number} after step (\d+); {goes_on}", said)
    assert step is not None, said[-2000:]
    assert read_checkpoint(list_checkpoints(folder / "checkpoints")[-1][1]).step == int(step[1])
    return int(step[1])


def test_a_stop_signal_keeps_the_step_and_the_same_command_goes_on(dataset, tmp_path):
    command = [sys.executable, str(ROOT / "train" / "run.py"), "--data", str(dataset), "--out", "run", *TINY, *LONG]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    _wait_for_line(process, "step 20/")
    process.terminate()
    _, said = process.communicate(timeout=25)
    assert process.returncode == 143 and "Traceback" not in said
    step = _kept(said, tmp_path / "run", 15)
    by_its_settings = [sys.executable, "-m", "synclones.cli", "train", "--config", "run/config.yaml"]
    resumed = subprocess.Popen(by_its_settings, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert f"resuming after step {step} of" in resumed.stderr.readline()
    resumed.kill()
    resumed.communicate()


def _ranks(parent: int) -> dict[int, int]:
    """Rank -> process, of the children of a launcher."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    environments = {int(child): Path(f"/proc/{child}/environ").read_bytes().split(b"\0") for child in children}
    ranks = {}
    for child, lines in environments.items():
        ranks |= {int(line.partition(b"=")[2]): child for line in lines if line.startswith(b"RANK=")}
    return ranks


def _two(dataset, tmp_path, *flags: str) -> subprocess.Popen:
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(ROOT / "train" / "run.py"))
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    command = [*launcher, "--data", str(dataset), "--out", "run", *TINY, *LONG, *flags]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment)
    _wait_for_line(process, "step 20/")
    return process


def test_a_signal_to_one_of_two_processes_stops_both_after_the_same_step(dataset, tmp_path):
    process = _two(dataset, tmp_path)
    os.kill(_ranks(process.pid)[1], signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and _kept(said, tmp_path / "run", 15) > 20


def test_a_lost_process_ends_the_other_with_our_line(dataset, tmp_path):
    process = _two(dataset, tmp_path)
    ranks = _ranks(process.pid)
    os.kill(ranks[1], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert "synclones: error: another process of this job was lost" in said, said[-3000:]
    assert re.search(r"exitcode\s*: 4|exitcode: 4", said) or "SIGKILL" in said
    time.sleep(0.5)
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks.values())


# ------------------------------------------------------------------ what the environment and the disk do


def test_accelerate_s_own_settings_do_not_come_from_the_environment(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with pytest.raises(InputError, match="ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4 in the environment"):
        _train(dataset, tmp_path / "run")
    job = prepare(TrainConfig(data=(str(dataset),), out=tmp_path / "run", steps=1, batch_size=8, device="cpu"), 0, 1)
    assert launch.start_accelerator(job).gradient_accumulation_steps == 1


def test_a_full_disk_at_the_export_is_the_machine_s_and_leaves_nothing_half(dataset, trained, tmp_path):  # noqa: F811
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "manifest.json").unlink()
    shutil.rmtree(run / "export")
    command = " ".join([sys.executable, str(ROOT / "train" / "run.py"), "--data", str(dataset), "--out", "run", *TINY])
    done = run_command("bash", "-c", f"ulimit -f 20; exec {command}", cwd=tmp_path)
    assert done.returncode == 4, done.stderr[-2000:]
    assert "synclones: error: run/" in done.stderr and "Traceback" not in done.stderr
    assert not (run / "export").exists() and not list(run.glob(".export*"))
    _train(dataset, run)
    assert _same(run, trained)
