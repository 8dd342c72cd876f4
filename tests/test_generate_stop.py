"""A stop reaches every process, whoever it was sent to: nothing goes on drawing, the rerun ends with the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import QUICK, ROOT, identity, synclones

PLAIN = [sys.executable]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
LIMIT_S = 25  # torchrun kills what is left after 30


def _drawing(out: Path) -> list[int]:
    """Processes of this machine that were told to draw into ``out``."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(out).encode() in words:
            found.append(int(place.parent.name))
    return found


def _begin(launcher: list[str], prompts: Path, out: Path, *more: str) -> subprocess.Popen:
    command = [
        *launcher,
        str(ROOT / "generate" / "run.py"),
        "--prompts",
        str(prompts),
        "--out",
        str(out),
        *QUICK,
        *more,
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def _wait_until(condition, process: subprocess.Popen, limit_s: float = 90) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None or condition(), process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.02)


LAUNCHERS = {"python": PLAIN, "accelerate": ACCELERATE, "torchrun": TORCHRUN}
QUICKLY = {("python", signal.SIGINT), ("accelerate", signal.SIGTERM), ("torchrun", signal.SIGKILL)}


@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        pytest.param(
            launcher, number, marks=[] if (name, number) in QUICKLY else pytest.mark.slow, id=f"{name}-{number}"
        )
        for name, launcher in LAUNCHERS.items()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
    ],
)
def test_a_signal_to_the_launcher_alone_stops_everything(launcher, number, prompts, dataset, tmp_path):
    out = tmp_path / "x"
    process = _begin(launcher, prompts, out, "--num-inference-steps", "400")
    try:
        _wait_until(lambda: list(out.glob("log/*.jsonl")), process)
        assert len(_drawing(out)) >= 1
        os.kill(process.pid, number)
        started = time.monotonic()
        while _drawing(out) and time.monotonic() - started < LIMIT_S:
            time.sleep(0.05)
        assert _drawing(out) == [], "an orphan goes on drawing"
        process.communicate(timeout=LIMIT_S)
        assert process.returncode != 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert not list(out.glob("train-*.json"))


def test_a_stopped_set_is_finished_by_the_same_command(prompts, dataset, tmp_path):
    out = tmp_path / "x"
    process = _begin(PLAIN, prompts, out, "--workers", "1")
    try:
        _wait_until(lambda: list(out.glob(".train-*.part")) or list(out.glob("train-*.json")), process)
        process.terminate()
        process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
    assert process.returncode in (0, 143)  # 0: it had drawn everything meanwhile
    flags = ("generate", "--prompts", str(prompts), "--out", str(out), *QUICK)
    assert synclones(*flags, cwd=tmp_path).returncode == 0
    assert identity(out) == identity(dataset)


LAB = "import sys; from synclones.lab.world import _run; _run('synclones.generate.run')"


def test_a_generation_that_a_killed_training_began_ends_with_it(tmp_path):
    """`train` without data draws the lab's as a process of its own, which must not outlive it."""
    process = subprocess.Popen(
        [sys.executable, "-c", LAB], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    _wait_until(lambda: list(tmp_path.glob("data/lab/log/*.jsonl")), process)
    (child,) = children.read_text().split()
    process.kill()
    end = time.monotonic() + LIMIT_S
    while Path(f"/proc/{child}").exists() and "Z" not in _state(child):
        assert time.monotonic() < end, "an orphan goes on drawing"
        time.sleep(0.05)
    process.communicate()


def _state(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_an_orphan_would_be_seen(tmp_path):
    """The must-fail twin: a launcher that forgets its child."""
    out = tmp_path / "x"
    forget = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', sys.argv[1]],"
        " start_new_session=True)"
    )
    subprocess.run([sys.executable, "-c", forget, str(out)], check=True)
    # Its parent goes on as soon as the new program has memory of its own, a moment before that shows what it is.
    end = time.monotonic() + LIMIT_S
    while not (orphans := _drawing(out)) and time.monotonic() < end:
        time.sleep(0.01)
    assert len(orphans) == 1
    os.kill(orphans[0], signal.SIGKILL)
