"""`kill -9` at random points, with the number of processes changing, never changes a byte; a naive twin fails."""

import json
import sys
from pathlib import Path

from conftest import NOTES, ROOT, run_command

HARNESS = Path(__file__).with_name("kill_harness.py")


def _kill(tmp_path, prompts, seed: int, *naive: str) -> dict:
    done = run_command(sys.executable, str(HARNESS), str(tmp_path), str(prompts), str(seed), *naive, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_killed_generations_end_with_the_bytes_of_an_uninterrupted_one(prompts, tmp_path):
    result = _kill(tmp_path, prompts, 20261121)
    NOTES.append(f"kill -9 after a new batch, by phase: {result['kills']}; {len(result['equal'])} datasets, all equal")
    assert sum(result["kills"].values()) >= 20
    for phase in ("sampling", "tar write", "rename", "sidecar"):
        assert result["kills"].get(phase, 0) > 0, f"no kill hit {phase}: {result['kills']}"
    assert all(result["equal"]), result["equal"]
    assert result["leftovers"] == []


def test_a_naive_writer_fails_the_same_test(prompts, tmp_path):
    result = _kill(tmp_path, prompts, 20261121, "naive")
    assert sum(result["kills"].values()) > 0
    assert not all(result["equal"])
