"""Runs public commands for an experiment: one after the other under headings, or side by side, each line with its name.

In: arguments of ``synclones``. Out: what the commands make. The first that fails ends the others and the experiment at
once; a heading says what comes, how long it takes and how long all of it still does.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import IO

from synclones.base.machine import cores
from synclones.base.output import say
from synclones.base.process import childs_environment, shell_code
from synclones.base.progress import Progress
from synclones.base.units import format_duration

ERROR = "synclones: error: "
REALLY_RAN = 0.25
"""A stage that took a smaller share of its time was there already, and says nothing of this machine."""
_RUNNING: set[subprocess.Popen[bytes]] = set()
"""Public commands that run now."""
_STOPPED: set[int] = set()
"""The processes of those that were told to end."""


def synclones(*arguments: object) -> None:
    """Run a public command, whose lines and bars are this one's.

    Raises:
        SystemExit: with its exit code when it fails; its own line says why.
    """
    _run("", arguments)


def side_by_side(unit: str, commands: Mapping[str, Sequence[object]]) -> None:
    """Run public commands by name, as many at once as there are cores; each of their lines begins with the name.

    Raises:
        SystemExit: with the exit code of the first that fails, as soon as it does; the others are told to end.
    """
    failed = threading.Event()
    # In a pipe the commands speak for themselves.
    bar = Progress(unit, len(commands), shares=1, shown=sys.stderr.isatty())
    with ThreadPoolExecutor(cores()) as pool, bar as progress:

        def run(name: str) -> None:
            if not failed.is_set():
                _run(name, commands[name])
                progress.add(1)

        try:
            done, _ = wait([pool.submit(run, name) for name in commands], return_when=FIRST_EXCEPTION)
            for one in done:
                one.result()
        except BaseException:
            failed.set()
            pool.shutdown(wait=False, cancel_futures=True)
            stop_commands()
            raise


def _run(name: str, arguments: Sequence[object]) -> None:
    command = [sys.executable, "-m", "synclones.cli", *map(str, arguments)]
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    out, errors = (subprocess.PIPE, subprocess.STDOUT) if name else (None, None)
    with subprocess.Popen(command, env=childs_environment() | threads, stdout=out, stderr=errors) as process:
        _RUNNING.add(process)
        if process.stdout is not None:
            _pass_on(name, process.stdout, process.pid)
        code = process.wait()
        _RUNNING.discard(process)
    if code:
        raise SystemExit(shell_code(code))


def _pass_on(name: str, lines: IO[bytes], pid: int) -> None:
    """Print a command's lines with its name; an error stays one for whoever looks for its first words."""
    for line in lines:
        text = line.decode("utf-8", "replace").rstrip("\n")
        if not text.startswith(ERROR):
            say(f"{name}: {text}")
        elif pid not in _STOPPED:  # of those that were told to end, the first one's line says why
            say(f"{ERROR}{name}: {text.removeprefix(ERROR)}")


def stop_commands() -> None:
    """Stop the commands that run; the same experiment goes on with them."""
    for process in list(_RUNNING):
        _STOPPED.add(process.pid)
        process.terminate()


@dataclass
class Headings:
    """The stages of an experiment: what each is and how long it takes where that was measured.

    Attributes:
        stages: (what it does, seconds on two cores), in order.
    """

    stages: Sequence[tuple[str, float]]
    _begun: list[float] = field(default_factory=list)

    def next(self) -> None:
        """Say what comes, and how long that and all the rest take at the speed of the stages so far."""
        number, factor = len(self._begun), self._factor()
        what, seconds = self.stages[number]
        left = sum(seconds for _, seconds in self.stages[number:])
        rest = f", {format_duration(left * factor)} to the end" if number + 1 < len(self.stages) else ""
        say(f"[{number + 1} of {len(self.stages)}] {what}: about {format_duration(seconds * factor)}{rest}")
        self._begun.append(time.monotonic())

    def _factor(self) -> float:
        """Return how much slower this machine is than the one that was measured, by the stages that really ran."""
        marks = [*self._begun, time.monotonic()]
        took = [later - earlier for earlier, later in zip(marks, marks[1:], strict=False)]
        ran = [(own, of) for own, (_, of) in zip(took, self.stages, strict=False) if own > REALLY_RAN * of]
        return sum(own for own, _ in ran) / sum(of for _, of in ran) if ran else 1.0
