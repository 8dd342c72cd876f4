"""A grid whose two engines are killed at random points: no step is done twice, and the files are the same."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# A command that is honest about being alone: it marks that it works, takes its time, and puts its output in place.
FAKE = """
import fcntl, os, pathlib, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
text = sys.argv[sys.argv.index("--text") + 1]
needs = sys.argv[sys.argv.index("--of") + 1 :] if "--of" in sys.argv else []
needs = needs[: next((n for n, word in enumerate(needs) if word.startswith("--")), len(needs))]
log = os.open(out.parents[1] / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
if out.exists():
    os.write(log, f"again {out.name}\\n".encode())
    sys.exit(0)
busy = os.open(out.with_suffix(".busy"), os.O_RDWR | os.O_CREAT)
try:
    fcntl.flock(busy, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel knows who lives: a zombie still has its number
except BlockingIOError:
    os.write(log, f"TWICE {out.name}\\n".encode())
    sys.exit(9)
time.sleep(0.05 + (sum(text.encode()) % 5) / 20)
made = "".join(pathlib.Path(need).read_text() for need in needs) + text + "\\n"
part = out.with_suffix(f".part-{os.getpid()}")
part.write_text(made)
os.replace(part, out)
os.unlink(out.with_suffix(".busy"))
os.write(log, f"made {out.name}\\n".encode())
"""
DRIVER = """
import sys
from pathlib import Path
from synclones.ablate import steps
from synclones.ablate.execute import execute
from synclones.ablate.grid import read_grid
from synclones.ablate.plan import make_plan
from synclones.ablate.store import Store
from synclones.ablate.world import read_world
fake, grid, world, out = sys.argv[1:]
for kind in ("first", "second", "third"):
    steps.COMMANDS[f"fake {kind}"] = steps.Command(kind, ".txt", program=(sys.executable, fake))
import os
def say(line):
    (Path(out) / f"ready-{os.getpid()}").touch()
outcome = execute(make_plan(read_grid(grid), read_world(world)), Store(Path(out)), 2, say=say)
sys.exit(outcome.exit_code)
"""
GRID = """
title: Fake
axes:
  colour: {red: {word: r}, blue: {word: b}, green: {word: g}}
  form: [small, large]
seeds: 4
steps:
  base: {run: fake first, flags: {text: "{colour.word}"}}
  more: {run: fake second, flags: {text: "{form}-{seed}", of: ["{step.base}"]}}
  end: {run: fake third, flags: {text: "{colour.word}{form}{seed}", of: ["{step.base}", "{step.more}"]}}
columns: [accuracy]
"""


STEPS = 3 + 24 + 24


@pytest.fixture
def world(tmp_path):
    (tmp_path / "fake.py").write_text(FAKE)
    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / "grid.yaml").write_text(GRID)
    (tmp_path / "none.yaml").write_text("title: None\n")
    return tmp_path


def start(world: Path, out: Path) -> subprocess.Popen:
    names = [world / "driver.py", world / "fake.py", world / "grid.yaml", world / "none.yaml", out]
    return subprocess.Popen([sys.executable, *map(str, names)], start_new_session=True)


def outputs(out: Path) -> dict[str, str]:
    return {str(path.relative_to(out)): path.read_text() for path in sorted(out.rglob("*.txt"))}


def log(out: Path) -> list[list[str]]:
    return [line.split() for line in (out / "steps" / "log").read_text().splitlines()]


def test_a_grid_killed_at_random_points_by_two_engines_ends_as_one_that_was_left_alone(world):
    alone, killed = world / "alone", world / "killed"
    assert start(world, alone).wait(timeout=240) == 0
    expected = outputs(alone)
    assert len(expected) == STEPS
    # What most cells wait for begins first, so that no core is idle at the end for one of them.
    assert {path.stem for path in alone.glob("steps/first/*.txt")} <= {Path(name).stem for _, name in log(alone)[:4]}
    chance, kills = random.Random(1), 0
    engines = [start(world, killed) for _ in range(2)]
    while kills < 20 and len(outputs(killed)) < STEPS:
        at = chance.randrange(2)
        ready = killed / f"ready-{engines[at].pid}"
        while engines[at].poll() is None and not ready.exists():
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        # The engine alone, whose commands live on; or all that it began, in the middle of a command.
        if engines[at].poll() is None:
            how = os.killpg if chance.random() < 0.5 else os.kill
            how(engines[at].pid, signal.SIGKILL)
            kills += 1
        engines[at].wait()
        engines[at] = start(world, killed)
    codes = [engine.wait(timeout=240) for engine in engines]
    assert codes == [0, 0] and kills == 20, (codes, kills)
    assert outputs(killed) == expected
    words = log(killed)
    made = [name for word, name in words if word == "made"]
    assert "TWICE" not in {word for word, _ in words}
    assert sorted(set(made)) == sorted(Path(name).name for name in expected)
    assert len(made) == len(set(made))  # each made once; a command whose record was not written says `again`
    assert not list(killed.rglob("*.busy"))


def test_what_is_done_is_not_begun_again_and_a_record_names_no_path(world):
    out = world / "once"
    assert start(world, out).wait(timeout=240) == 0
    before = log(out)
    assert start(world, out).wait(timeout=240) == 0
    assert log(out) == before and len(before) == STEPS
    record = json.loads(next(out.glob("steps/third/*.step.json")).read_text())
    assert record["facts"]["run"] == "fake third" and all(str(out) not in str(v) for v in record["facts"].values())


def test_a_failed_step_takes_its_cells_along_and_no_others(world):
    (world / "fake.py").write_text(
        FAKE.replace("time.sleep(", 'if text == "b": sys.exit("synclones: error: no blue today")\ntime.sleep(')
    )
    out = world / "failing"
    assert start(world, out).wait(timeout=240) == 2
    assert len(outputs(out)) == STEPS * 2 // 3
    (failure,) = out.glob("steps/first/*.failed.json")
    assert json.loads(failure.read_text())["line"] == "no blue today"
    (world / "fake.py").write_text(FAKE)
    assert start(world, out).wait(timeout=240) == 0  # another run tries again
    assert len(outputs(out)) == STEPS and not list(out.rglob("*.failed.json"))
