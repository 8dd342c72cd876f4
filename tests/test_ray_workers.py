"""`synclones ray`: what may run on it, how large workers are, what becomes of those that die."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synclones.base.errors import InputError
from synclones.base.ray_workers import HOW_TO_INSTALL, Lost, RayConfig, Size, work, workers_that_fit
from synclones.cli import _divided, dispatch

SMALL, GPUS = {"CPU": 16.0, "memory": 1e9}, {"CPU": 96.0, "GPU": 8.0}


@pytest.mark.parametrize(
    "nodes, asked, expected",
    [
        ([SMALL, SMALL], {}, Size(2, 16, 0)),  # a worker has threads of its own for a whole node
        ([SMALL, {"CPU": 10.0}], {}, Size(2, 10, 0)),
        ([SMALL, GPUS, GPUS], {}, Size(16, 12, 1)),  # and of a node with GPUs each GPU's share
        ([SMALL, GPUS], {"gpus": 0}, Size(7, 16, 0)),
        ([GPUS], {"gpus": 3}, Size(2, 48, 3)),
        ([GPUS, {"CPU": 4.0, "GPU": 8.0}], {}, Size(12, 1, 1)),
        ([{"CPU": 2.0}], {"cpus": 1}, Size(2, 1, 0)),
        ([{"CPU": 2.0}], {"cpus": 1, "workers": 50}, Size(50, 1, 0)),  # the others wait
        ([{}], {"cpus": 8, "gpus": 1, "workers": 4}, Size(4, 8, 1)),  # a cluster that grows
    ],
)
def test_workers_fill_the_nodes_or_are_as_asked(nodes, asked, expected):
    assert workers_that_fit(nodes, RayConfig(**asked)) == expected


@pytest.mark.parametrize("asked", [{"cpus": 17}, {"gpus": 1}, {"workers": 3, "gpus": 1}])
def test_workers_that_no_node_has_room_for_are_refused(asked):
    with pytest.raises(InputError, match=r"no node of the Ray cluster has \d+ cores and \d GPUs"):
        workers_that_fit([SMALL], RayConfig(**asked))


# ------------------------------------------------------------------ what may run


@pytest.mark.parametrize(
    "words, line",
    [
        ("", "no command was given; put one after the flags, as in"),
        ("--workers 2", "no command was given"),
        ("-- rm -rf /", "'rm' is no stage"),
        ("train --seed 3", "train --seed is not divided among processes by files; these are: prompts caption,"),
        ("shards verify x", "shards verify is not divided"),
        ("generate redraw x --index 1", "generate redraw is not divided"),
        ("generate --sed 3", "--sed: unknown flag of `synclones generate`"),
        ("--worker 3 generate", "--worker: unknown flag of `synclones ray`; did you mean '--workers'"),
        ("--cpus -1 generate", "--cpus: -1 was given, expected 0 to 4096"),
        ("shards anotate x", "shards anotate: no such verb; did you mean 'annotate'?"),
    ],
)
def test_what_cannot_be_divided_or_is_mistyped_is_refused_before_ray_starts(words, line):
    with pytest.raises(InputError) as caught:
        dispatch(["ray", *words.split()])
    assert line in str(caught.value)


def test_these_commands_are_divided_by_files():
    wanted = "prompts caption, prompts write, generate, shards annotate, evaluate corrupt"
    assert set(wanted.split(", ")) <= set(_divided().split(", "))


def test_without_ray_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError) as caught:
        dispatch(["ray", "generate"])
    assert str(caught.value) == HOW_TO_INSTALL and "pip install 'synclones[ray]'" in HOW_TO_INSTALL


@pytest.mark.parametrize(
    "words, shown", [("--help", "--retries"), ("generate --help", "--num-inference-steps"), ("shards help", "annotate")]
)
def test_help_is_shown_and_nothing_started(words, shown, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    try:
        dispatch(["ray", *words.split()])
    except SystemExit as end:
        assert end.code == 0
    assert shown in capsys.readouterr().out


# ------------------------------------------------------------------ one worker


def test_a_worker_is_one_of_several_processes_and_reports_its_line(tmp_path, capfd):
    """Also one that is not the first of them, which by itself would leave the line to the first."""
    code, line = work(["shards", "annotate", "nowhere", "--embed", "x", "--name", "y"], str(tmp_path), 3, Size(4, 1, 0))
    assert (code, line[:17]) == (2, "rank 3: nowhere: ")
    assert "error" not in capfd.readouterr().err, "the caller says it, once"


def test_a_worker_without_the_shared_folder_is_refused(tmp_path):
    code, line = work(["generate"], str(tmp_path / "x"), 0, Size(1, 1, 0))
    assert code == 2 and "is no folder on" in line


_WAITS = """
import sys, time, types
from synclones.base import ray_workers
import subprocess
popen = subprocess.Popen
subprocess.Popen = lambda called, **more: popen([*called[:2], "-c", sys.argv[1]], **more)
ray_workers.work(["generate"], sys.argv[2], 1, ray_workers.Size(2, 1, 0))
"""
_CHILD = """
import os, pathlib, time
from synclones.base.process import run_main
keys = "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"
def main():
    path = pathlib.Path("started")
    path.with_suffix(".tmp").write_text(" ".join([str(os.getpid()), *(os.environ[key] for key in keys)]))
    path.with_suffix(".tmp").rename(path)
    time.sleep(600)
run_main(main)
"""


def _started(folder: Path) -> list[int]:
    for _ in range(3000):
        if (folder / "started").exists():
            return [int(word) for word in (folder / "started").read_text().split()]
        time.sleep(0.02)
    raise AssertionError("the command was not started")


def test_a_command_ends_with_its_worker_and_knows_its_place(tmp_path):
    worker = subprocess.Popen([sys.executable, "-c", _WAITS, _CHILD, str(tmp_path)])
    pid, rank, world, local = _started(tmp_path)
    assert (rank, world, local) == (1, 2, len(os.sched_getaffinity(0)))
    worker.kill()
    worker.wait()
    for _ in range(1500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("the command outlived its worker")


def test_a_command_that_was_killed_is_lost_and_may_be_started_again(tmp_path, monkeypatch):
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda called, **more: popen([*called[:1], "-c", "import os; os.kill(os.getpid(), 9)"], **more),
    )
    with pytest.raises(Lost, match=r"ended with exit code 137 on "):
        work(["generate"], str(tmp_path), 0, Size(1, 1, 0))
