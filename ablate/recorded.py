"""Runs public commands, each as a process of its own and once: a record beside its folder says that it ended well.

In: `Step`s in order. Out: what the commands write, and ``NAME.step.json`` for each that ended with 0. A command that
was stopped is begun again and goes on by itself; one that has its record is not.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from synclones.base.differences import differences
from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.json_file import canonical_json, pretty_json, read_json
from synclones.base.process import childs_environment, shell_code

PROGRAM = (sys.executable, "-m", "synclones.cli")
OUT = "{out}"
"""Stands for the folder of everything in a command: it may be moved."""


@dataclass(frozen=True)
class Step:
    """One public command.

    Attributes:
        name: of its record, a path below the folder of everything without ``.step.json``.
        command: its words, without ``synclones``; `OUT` stands for that folder.
    """

    name: str
    command: tuple[str, ...]

    def words(self, out: Path) -> list[str]:
        """Return the words as they are run."""
        return [word.replace(OUT, str(out)) for word in self.command]


def named_by_command(prefix: str, command: tuple[str, ...]) -> Step:
    """Return a step whose record's name holds a hash of its command: of one folder that several commands add to."""
    return Step(f"{prefix}-{sha256_bytes(canonical_json(list(command)))[:8]}", command)


def is_done(out: Path, step: Step) -> bool:
    """Return whether a step ended well.

    Raises:
        InputError: another command made what has its name.
        VerificationError: its record is damaged.
    """
    path = out / f"{step.name}.step.json"
    try:
        record = read_json(path)
    except FileNotFoundError:
        return False
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("command"), list):
        raise VerificationError(f"{path}: damaged; remove it, and run the same command again")
    if record["command"] != list(step.command):
        before, now = ({str(k): word for k, word in enumerate(words)} for words in (record["command"], step.command))
        raise InputError(
            f"{out}: {step.name} was made by another command: {differences(before, now)}; give a new --out"
        )
    return True


class Running:
    """The commands of this process that run now; one that fails stops the others."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock, self._processes = threading.Lock(), set[subprocess.Popen[bytes]]()
        self._stopped = False

    def run_all(self, out: Path, chains: Sequence[Sequence[Step]], at_once: int) -> None:
        """Run the steps of each chain one after the other, and so many chains at once.

        Raises:
            InputError, VerificationError: as `is_done`.
            SystemExit: with the exit code of a command that fails; its own line says why.
        """
        with ThreadPoolExecutor(at_once) as pool:
            try:
                running = [pool.submit(self._run_chain, out, chain) for chain in chains]
                for ended in as_completed(running):
                    ended.result()
            except BaseException:  # what fails in one chain is not waited for until the others are done
                pool.shutdown(wait=False, cancel_futures=True)
                self._stop()
                raise

    def _run_chain(self, out: Path, chain: Sequence[Step]) -> None:
        for step in chain:
            self._run(out, step)

    def _run(self, out: Path, step: Step) -> None:
        if is_done(out, step):
            return
        words, started = step.words(out), time.monotonic()
        (out / step.name).parent.mkdir(parents=True, exist_ok=True)
        print(f"{step.name}: synclones {' '.join(words)}", file=sys.stderr, flush=True)
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        with self._lock:
            if self._stopped:
                raise SystemExit(1)
            process = subprocess.Popen([*PROGRAM, *words], env=childs_environment() | threads, stdout=sys.stderr)
            self._processes.add(process)
        try:
            code = process.wait()
        finally:
            self._processes.discard(process)
        if code:
            raise SystemExit(shell_code(code))
        record = {"command": list(step.command), "seconds": round(time.monotonic() - started, 1)}
        write_atomic(out / f"{step.name}.step.json", pretty_json(record))

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in list(self._processes):
                process.terminate()


def seconds_of(out: Path, steps: Sequence[Step]) -> float:
    """Return what finished steps took in their last start, in seconds."""
    records = [read_json(out / f"{step.name}.step.json") for step in steps if is_done(out, step)]
    return float(sum(record.get("seconds", 0.0) for record in records))
