"""`kill -9` at random points, with the number of processes changing, never changes a byte; a naive twin fails."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import NOTES, ROOT, identity, run_command

from synclones.prompts.build import build
from synclones.prompts.classes.lists import load_classes

HARNESS = Path(__file__).with_name("kill_harness.py")


@pytest.fixture(scope="module", params=[4, pytest.param(50, marks=pytest.mark.slow)], ids="{} kills".format)
def trials(prompts, tmp_path_factory, request) -> dict:
    """What came of this many kills of our writer, and of a naive one; the generator is loaded once for both."""
    folder, least = tmp_path_factory.mktemp("kills"), request.param
    command = (sys.executable, str(HARNESS), str(folder), str(prompts), "20261121", str(least))
    done = run_command(*command, cwd=ROOT, timeout_s=580)
    assert done.returncode == 0, done.stderr[-2000:]
    ours, naive = map(json.loads, done.stdout.splitlines()[-2:])
    return {"least": least, "ours": ours, "naive": naive}


def test_killed_generations_end_with_the_bytes_of_an_uninterrupted_one(trials):
    result = trials["ours"]
    NOTES.append(f"kill -9 after a new batch, by phase: {result['kills']}; {len(result['equal'])} datasets, all equal")
    assert sum(result["kills"].values()) >= trials["least"]
    for phase in ("sampling", "tar write", "rename", "sidecar"):
        assert result["kills"].get(phase, 0) >= max(1, trials["least"] // 5), (
            f"few kills hit {phase}: {result['kills']}"
        )
    assert all(result["equal"]), result["equal"]
    assert result["leftovers"] == []


def test_a_naive_writer_fails_the_same_test(trials):
    result = trials["naive"]
    assert sum(result["kills"].values()) > 0
    assert not all(result["equal"])


INTERRUPTIONS, IMAGES = 12, 5000


def _start(out: Path, table: Path, world: int) -> list[subprocess.Popen]:
    """``world`` processes as a launcher starts them, two cores' worth of workers in all."""
    command = [sys.executable, str(ROOT / "generate" / "run.py"), "--preset", "lab", "--num-inference-steps", "4"]
    command += ["--prompts", str(table), "--out", str(out), "--workers", "2" if world == 1 else "1"]
    environment = {**os.environ, "WORLD_SIZE": str(world)}
    return [
        subprocess.Popen(
            command, env={**environment, "RANK": str(rank)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for rank in range(world)
    ]


def _stored(out: Path) -> int:
    """Batches on the disk, in finished shards (five each) and in journals."""
    try:
        journals = sum(path.read_bytes().count(b"\n") for path in out.glob(".train-*.jsonl"))
    except FileNotFoundError:  # a shard was finished between the listing and the look
        return _stored(out)
    return 5 * len(list(out.glob("train-*.json"))) + journals


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a CPU without 16-bit instructions takes ten minutes
def test_five_thousand_images_interrupted_again_and_again_are_those_of_one_run(tmp_path):
    table, out, rng = tmp_path / "p.parquet", tmp_path / "cut", random.Random(20261121)
    build("clip-templates", load_classes("lab-digits"), IMAGES, 0, table)
    for process in _start(tmp_path / "whole", table, 1):
        assert process.wait() == 0
    interruptions = 0
    for number in range(40):
        before, processes = _stored(out), _start(out, table, (2, 3, 1)[number % 3])
        target = before + rng.randint(2, 9)
        while _stored(out) < target and any(process.poll() is None for process in processes):
            time.sleep(0.01)
        time.sleep(rng.random() * 0.3)
        alive = [process for process in processes if process.poll() is None]
        for process in alive:
            process.send_signal(rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
        codes = {process.wait(timeout=60) for process in processes}
        assert codes <= {0, -signal.SIGKILL, 143}, codes
        interruptions += bool(alive) and _stored(out) > before
        if interruptions == INTERRUPTIONS:
            break
    assert interruptions >= 10 and not (out / "manifest.json").exists(), interruptions
    for process in _start(out, table, 2):
        assert process.wait() == 0
    assert identity(out) == identity(tmp_path / "whole")
    NOTES.append(f"{IMAGES} lab images interrupted {interruptions} times by 2, 3, 1 processes: every byte of one run")
