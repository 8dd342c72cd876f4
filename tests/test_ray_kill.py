"""Ray's workers and the tasks of an array draw one folder at once, killed at random: the bytes of one process."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import NOTES, identity

KILLS_OF_EACH, DEADLINE_S = 3, 1500
KINDS = TASKS, WORKERS, COMMANDS = "tasks of the array", "workers of Ray", "commands that these run"
# A cluster of its own, and patience with a busy machine.
CLUSTER = {"RAY_ADDRESS": os.environ.get("RAY_ADDRESS", "local"), "RAY_worker_register_timeout_seconds": "600"}


def _command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "synclones.cli", *words]


class Task:
    """A task of an array: what a scheduler starts again when it did not end well."""

    def __init__(self, words: tuple[str, ...], log: Path):
        self._words, self._log = words, log
        self.process = self._start()

    def _start(self) -> subprocess.Popen:
        with self._log.open("ab") as log:
            return subprocess.Popen(_command(*self._words), stdout=log, stderr=log)

    def is_done(self) -> bool:
        """Whether it ended well; one that was killed is started again."""
        code = self.process.poll()
        assert code in (None, 0, -signal.SIGKILL), self._log.read_text()[-2000:]
        if code:
            self.process = self._start()
        return code == 0


def _writers(folder: Path) -> list[int]:
    """Return the processes that have a growing shard or piece of the folder open."""
    busy = []
    for entry in Path("/proc").iterdir():
        try:
            opened = [os.readlink(link) for link in (entry / "fd").iterdir()] if entry.name.isdigit() else []
        except OSError:  # it has ended
            continue
        if any(path.startswith(f"{folder}/.") and path.endswith(".part") for path in opened):
            busy.append(int(entry.name))
    return busy


def _victims(folder: Path, tasks: list[Task]) -> dict[str, list[int]]:
    """Kind of process -> pids, of those at work now: tasks of the array, Ray's workers, and the commands they run."""
    of_array, victims = {task.process.pid for task in tasks}, dict[str, list[int]]()
    for pid in _writers(folder):
        try:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            named = Path(f"/proc/{parent}/cmdline").read_bytes()
        except OSError:
            continue
        if pid in of_array:
            victims.setdefault(TASKS, []).append(pid)
        elif named.startswith(b"ray::"):
            victims.setdefault(WORKERS, []).append(parent)
            victims.setdefault(COMMANDS, []).append(pid)
    return victims


def _stored(folder: Path) -> int:
    """Batches on the disk: in the journals of what grows, and at least two in each finished shard or piece."""
    try:
        journals = [*folder.glob(".piece-*.part"), *folder.glob(".train-*.part.jsonl")]
        growing = sum(path.read_bytes().count(b"\n") for path in journals)
    except FileNotFoundError:  # something was finished between the listing and the look
        return _stored(folder)
    return 2 * len([*folder.glob("piece-*.jsonl"), *folder.glob("train-*.json")]) + growing


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # it has ended by itself
        return False
    return True


def kill_at_random(command: Sequence[str], parts: Sequence[str], folder: Path, logs: Path) -> Counter[str]:
    """Run a command by two workers of Ray and two tasks of an array, kill them at random, and wait for the end.

    Args:
        parts: flags of the one and the other task.
        folder: where shards or pieces grow.
    """
    rng, kills = random.Random(20261128), Counter[str]()
    words = ("ray", "--workers", "2", "--cpus", "1", "--retries", "100", *command)
    with (logs / "ray.log").open("wb") as log:
        ray = subprocess.Popen(_command(*words), stdout=log, stderr=log, env={**os.environ, **CLUSTER})
    tasks = list[Task]()
    target, deadline = rng.randint(2, 5), time.monotonic() + DEADLINE_S
    try:
        tasks += [Task((*command, *part.split()), logs / f"{number}.log") for number, part in enumerate(parts)]
        while [task for task in tasks if not task.is_done()] or ray.poll() is None:
            assert time.monotonic() < deadline, f"{kills}, {_stored(folder)} batches"
            time.sleep(0.1)
            if not (spared := [kind for kind in KINDS if kills[kind] < KILLS_OF_EACH]):
                continue
            victims = _victims(folder, tasks)
            # Ray is slow to start a worker again: tasks stand still meanwhile, or they would soon have done all.
            alone = ray.poll() is None and spared != [TASKS] and not victims.keys() - {TASKS}
            for pid in victims.get(TASKS, []):
                _signal(pid, signal.SIGSTOP if alone else signal.SIGCONT)
            spared = [kind for kind in spared if kind in victims]
            if spared and _stored(folder) >= target:
                kind = min(spared, key=lambda kind: (kills[kind], rng.random()))
                kills[kind] += _signal(rng.choice(victims[kind]), signal.SIGKILL)
                target = _stored(folder) + rng.randint(2, 5)
    finally:
        for process in (ray, *(task.process for task in tasks)):
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=120)
    assert ray.returncode == 0, f"{shlex.join(words)}\n{(logs / 'ray.log').read_text()[-3000:]}"
    assert min(kills[kind] for kind in KINDS) > 0 and kills.total() >= 2 * KILLS_OF_EACH, kills
    NOTES.append(f"{command[0]}: killed {dict(kills)} of two workers of Ray and two tasks: the bytes of one process")
    return kills


class Server:
    """A language model that takes its time, and whose answer follows from the question."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:
                body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
                time.sleep(self.seconds)
                words = body["messages"][0]["content"].split("shows this: ")[1].split(".")[0]
                answer = {"choices": [{"message": {"content": f"a {words} seen with seed {body['seed']}"}}]}
                handler.send_response(200)
                handler.end_headers()
                handler.wfile.write(json.dumps(answer).encode())

            def log_message(handler, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Who asked was killed."""

        self.seconds = 0.0
        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Server":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.slow
@pytest.mark.timeout(2 * DEADLINE_S)
def test_captions_of_killed_workers_of_ray_and_killed_array_tasks_are_those_of_one_process(tmp_path):
    pytest.importorskip("ray")
    from synclones.prompts.run import main

    one, shared = tmp_path / "one" / "c.parquet", tmp_path / "shared" / "c.parquet"
    with Server() as server:
        job = ["write", "--classes", "lab-digits", "--captions-per-class", "40", "--batch-size", "2"]
        job += ["--server", server.url, "--out"]
        main([*job, str(one)])
        server.seconds = 0.5
        kill_at_random(["prompts", *job, str(shared)], ["", ""], Path(f"{shared}.parts"), tmp_path)
    assert shared.read_bytes() == one.read_bytes()
    assert [path.name for path in shared.parent.iterdir()] == ["c.parquet"]


@pytest.mark.slow
@pytest.mark.timeout(2 * DEADLINE_S)
def test_images_of_killed_workers_of_ray_and_killed_array_tasks_are_those_of_one_process(tmp_path):
    pytest.importorskip("ray")
    from synclones.generate.run import main
    from synclones.prompts.build import build
    from synclones.prompts.classes.lists import load_classes

    table, shared = tmp_path / "p.parquet", tmp_path / "shared"
    build("clip-templates", load_classes("lab-digits"), 800, 0, table)
    job = ["--preset", "lab", "--num-inference-steps", "2", "--batch-size", "10", "--images-per-shard", "40"]
    job += ["--prompts", str(table), "--workers", "1", "--out"]
    main([*job, str(tmp_path / "one")])
    kill_at_random(["generate", *job, str(shared)], ["--part 1/2", "--part 2/2"], shared, tmp_path)
    assert identity(shared) == identity(tmp_path / "one")
    assert [path.name for path in shared.glob(".*")] == []
