"""Processes of one training: a killed one is started again by its launcher, one that stays behind ends the others."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from test_evaluate_ranks import free_port
from test_train import TINY

from synclones.base.files import sha256_file
from synclones.train.recovery.checkpoint import read_checkpoint
from synclones.train.recovery.folder_names import list_checkpoints

# The training with something that befalls its second process when it would take its sixth step.
BEFALLEN = """
import os, signal, subprocess, sys
import synclones.train.loop as loop
from synclones.base.process import run_main
from synclones.train.run import main

fate, step = sys.argv[1], loop.Trainer.train_step

def befallen(self, batch):
    if self.job.rank == 1 and batch.step == 5 and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") < "1":
        if fate.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, fate))
        elif fate == "exit":
            os._exit(0)
        elif fate == "raise":
            raise RuntimeError("of its own")
        elif fate == "cut":  # the cable of this node, which hears nothing of it
            subprocess.run(["ip", "link", "set", os.environ["GLOO_SOCKET_IFNAME"], "down"], check=True)
        elif fate == "one step less":
            return
    step(self, batch)

loop.Trainer.train_step = befallen
run_main(lambda: main(sys.argv[2:]))
"""
LINE = "another process of this job was lost or cannot be reached"


@pytest.fixture
def script(tmp_path) -> Path:
    path = tmp_path / "befallen.py"
    path.write_text(BEFALLEN)
    return path


def flags(dataset, out: Path, *more: str) -> list[str]:
    return ["--data", str(dataset), "--out", str(out), *TINY, *more]


def _launched(*launcher: str) -> tuple[list[str], dict[str, str]]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *launcher]
    return torchrun, os.environ | {"ACCELERATE_USE_CPU": "true"}


def _run(command: list[str], environment: dict[str, str], timeout_s: float = 300) -> subprocess.CompletedProcess:
    return subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=timeout_s)


def ended_as(run: Path, reference: Path) -> None:
    for name in ("export/model.safetensors", "metrics.jsonl"):
        assert sha256_file(run / name) == sha256_file(reference / name), name


@pytest.fixture(scope="module")
def in_two(dataset, tmp_path_factory) -> Path:
    """A run of two processes that nothing befell."""
    out = tmp_path_factory.mktemp("two") / "run"
    torchrun, environment = _launched()
    done = _run([*torchrun, str(ROOT / "train" / "run.py"), *flags(dataset, out)], environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def test_a_launcher_that_may_restart_brings_a_killed_process_back(dataset, in_two, script, tmp_path):
    torchrun, environment = _launched("--max-restarts", "2")
    done = _run([*torchrun, str(script), "SIGKILL", *flags(dataset, tmp_path / "run")], environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resuming after step " in done.stderr and "Traceback" not in done.stderr
    ended_as(tmp_path / "run", in_two)


def test_each_process_has_the_threads_that_were_asked_for_whatever_starts_it(dataset, in_two, tmp_path, monkeypatch):
    # Where OMP_NUM_THREADS is not set, as torchrun sets it, Accelerate gives a process all cores, whose sums differ.
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    port = free_port()
    job = [str(ROOT / "train" / "run.py"), *flags(dataset, tmp_path / "run")]
    for process in [_start(rank, port, *job) for rank in range(2)]:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said[-2000:]
    ended_as(tmp_path / "run", in_two)


def test_two_processes_with_unequal_shares_see_every_image_once(dataset, tmp_path):
    # Seven images a step: four and three.
    torchrun, environment = _launched()
    job = flags(dataset, tmp_path / "run", "--batch-size", "7", "--steps", "4")
    done = _run([*torchrun, str(ROOT / "train" / "run.py"), *job], environment)
    assert done.returncode == 0, done.stderr[-2000:]
    alone = [sys.executable, str(ROOT / "train" / "run.py"), *flags(dataset, tmp_path / "one")]
    assert _run([*alone, "--batch-size", "7", "--steps", "4"], environment).returncode == 0
    of_two, of_one = (
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("run", "one")
    )
    assert [line["step"] for line in of_two] == [line["step"] for line in of_one]
    assert [line["loss"] for line in of_two] == pytest.approx([line["loss"] for line in of_one], abs=1e-4)


def _start(rank: int, port: int, *command: str) -> subprocess.Popen:
    launch = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    environment = os.environ | launch | {"MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "fate", ["SIGSTOP", "one step less", *(pytest.param(fate, marks=pytest.mark.slow) for fate in ("exit", "raise"))]
)
def test_a_process_that_does_not_come_along_ends_the_others_in_time(dataset, script, tmp_path, fate):
    port = free_port()
    job = flags(dataset, tmp_path / "run", "--timeout-s", "5", "--checkpoint-every", "2")
    processes = [_start(rank, port, str(script), fate, *job) for rank in range(2)]
    try:
        while "step 4/" not in (line := processes[0].stderr.readline()):
            assert line, "ended before its fourth step"
        started = time.monotonic()
        _, said = processes[0].communicate(timeout=90)
        took = time.monotonic() - started
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    assert processes[0].returncode == 4 and took < 30, (took, said[-2000:])
    assert LINE in said.splitlines()[-1] and said.count("synclones: error") == 1 and "Traceback" not in said
    assert read_checkpoint(list_checkpoints(tmp_path / "run" / "checkpoints")[-1][1]).step >= 2
