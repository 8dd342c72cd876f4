"""Two processes of one evaluation: one that does not come, stands still or dies ends the other with our line."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from test_evaluate import _model
from test_evaluate_results import LETTERS, labelled

STAND = """
import os, signal, sys
import synclones.evaluate.predict as predict
from synclones.evaluate.run import main
predict._predict_batch = lambda *a: os.kill(os.getpid(), getattr(signal, sys.argv[1]))
main(sys.argv[2:])
"""


@pytest.fixture
def flags(tmp_path):
    labelled(tmp_path / "set", 1)
    _model(tmp_path / "run" / "export", LETTERS)
    paths = ("--model", tmp_path / "run", "--data", tmp_path / "set", "--out", tmp_path / "out")
    return [*map(str, paths), "--batch-size", "2", "--torch-threads", "1", "--timeout-s", "5"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(rank, port, *command):
    launch = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    environment = os.environ | launch | {"MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("fate", ["never comes", "SIGSTOP", pytest.param("SIGKILL", marks=pytest.mark.slow)])
def test_a_process_that_is_lost_ends_the_others_with_code_4(flags, tmp_path, fate):
    port, started = free_port(), time.monotonic()
    first = start(0, port, "-m", "synclones.cli", "evaluate", *flags)
    second = None if fate == "never comes" else start(1, port, "-c", STAND, fate, *flags)
    try:
        _, stderr = first.communicate(timeout=100)
    finally:
        for process in [first, second] if second else [first]:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert first.returncode == 4 and time.monotonic() - started < 90, stderr
    assert "another process of this job was lost" in stderr.splitlines()[-1] and "Traceback" not in stderr
    assert not list((tmp_path / "out").glob("[!.]*.json"))
