"""Trainings that are killed with SIGKILL end with the weights of one that was not; the usual loop does not."""

import json
import sys
from pathlib import Path

from conftest import NOTES, ROOT, run_command

HARNESS = Path(__file__).with_name("train_kill_harness.py")


def _kill(tmp_path, dataset, *way: str) -> dict:
    command = (sys.executable, str(HARNESS), str(tmp_path), str(dataset), "20261121", *way)
    done = run_command(*command, cwd=ROOT, timeout_s=500)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_killed_trainings_end_with_the_weights_of_an_uninterrupted_one(dataset, tmp_path):
    result = _kill(tmp_path, dataset)
    NOTES.append(f"kill -9 of trainings, by world and phase: {result['kills']}; {len(result['same'])} runs, all equal")
    assert sum(result["kills"].values()) >= 20
    for world in (1, 2):
        for phase in ("step", "checkpoint write", "rename", "rotation"):
            assert result["kills"].get(f"{world}: {phase}", 0) > 0, result["kills"]
    assert all(run == {"weights": True, "metrics": True, "samples": True} for run in result["same"]), result["same"]
    assert all(result["whole"])


def test_the_usual_way_fails_the_same_test(dataset, tmp_path):
    result = _kill(tmp_path, dataset, "accelerate")
    assert sum(result["kills"].values()) > 0
    assert not all(run["weights"] for run in result["same"]), "save_state and skip_first_batches resumed exactly?"
    assert not all(run["samples"] for run in result["same"])
