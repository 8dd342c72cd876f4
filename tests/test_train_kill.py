"""Trainings that are killed with SIGKILL end with the weights of one that was not; the usual loop does not."""

import json
import sys
from pathlib import Path

import pytest
from conftest import NOTES, ROOT, run_command

HARNESS = Path(__file__).with_name("train_kill_harness.py")


def _killed(dataset, folder: Path, least: int, family: str) -> list[dict]:
    command = (sys.executable, str(HARNESS), str(folder), str(dataset), "20261121", str(least), family)
    done = run_command(*command, cwd=ROOT, timeout_s=1500)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module", params=[4, pytest.param(12, marks=pytest.mark.slow)], ids="{} kills".format)
def trials(dataset, tmp_path_factory, request) -> dict:
    """What came of this many kills in each world, of our trainings and of the usual ones; torch is loaded once."""
    ours, usual = _killed(dataset, tmp_path_factory.mktemp("kills"), request.param, "supervised")
    return {"least": request.param, "ours": ours, "usual": usual}


def _all_equal(result: dict, least: int, family: str) -> None:
    kills, same = result["kills"], result["same"]
    NOTES.append(f"kill -9 of trainings ({family}), by world and phase: {kills}; {len(same)} runs, all equal")
    assert sum(kills.values()) >= 2 * least
    for world in (1, 2):
        for phase in ("step", "checkpoint write", "rename", "rotation"):
            assert kills.get(f"{world}: {phase}", 0) > 0, kills
    assert all(run == {"weights": True, "metrics": True, "samples": True} for run in same), same
    assert all(result["whole"])


def test_killed_trainings_end_with_the_weights_of_an_uninterrupted_one(trials):
    _all_equal(trials["ours"], trials["least"], "supervised")


@pytest.mark.timeout(1600)
@pytest.mark.parametrize(
    ("family", "least"),
    [
        ("multipositive", 4),
        *(
            pytest.param(family, 12, marks=pytest.mark.slow)
            for family in ("averaged", "multipositive", "clip", "synclr")
        ),
    ],
)
def test_so_do_killed_trainings_of_other_objectives(dataset, tmp_path, family, least):
    (result,) = _killed(dataset, tmp_path, least, family)
    _all_equal(result, least, family)


def test_the_usual_way_fails_the_same_test(trials):
    result = trials["usual"]
    assert sum(result["kills"].values()) > 0
    assert not all(run["weights"] for run in result["same"]), "save_state and skip_first_batches resumed exactly?"
    assert not all(run["samples"] for run in result["same"])
