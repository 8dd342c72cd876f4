"""Trainings that are killed with SIGKILL end with the weights of one that was not; the usual loop does not."""

import json
import sys
from pathlib import Path

import pytest
from conftest import NOTES, ROOT, run_command

HARNESS = Path(__file__).with_name("train_kill_harness.py")


@pytest.fixture(scope="module", params=[5, pytest.param(12, marks=pytest.mark.slow)], ids="{} kills".format)
def trials(dataset, tmp_path_factory, request) -> dict:
    """What came of this many kills in each world, of our trainings and of the usual ones; torch is loaded once."""
    folder, least = tmp_path_factory.mktemp("kills"), request.param
    command = (sys.executable, str(HARNESS), str(folder), str(dataset), "20261121", str(least))
    done = run_command(*command, cwd=ROOT, timeout_s=580)
    assert done.returncode == 0, done.stderr[-2000:]
    ours, usual = map(json.loads, done.stdout.splitlines()[-2:])
    return {"least": least, "ours": ours, "usual": usual}


def test_killed_trainings_end_with_the_weights_of_an_uninterrupted_one(trials):
    result = trials["ours"]
    NOTES.append(f"kill -9 of trainings, by world and phase: {result['kills']}; {len(result['same'])} runs, all equal")
    assert sum(result["kills"].values()) >= 2 * trials["least"]
    for world in (1, 2):
        for phase in ("step", "checkpoint write", "rename", "rotation"):
            assert result["kills"].get(f"{world}: {phase}", 0) > 0, result["kills"]
    assert all(run == {"weights": True, "metrics": True, "samples": True} for run in result["same"]), result["same"]
    assert all(result["whole"])


def test_the_usual_way_fails_the_same_test(trials):
    result = trials["usual"]
    assert sum(result["kills"].values()) > 0
    assert not all(run["weights"] for run in result["same"]), "save_state and skip_first_batches resumed exactly?"
    assert not all(run["samples"] for run in result["same"])
