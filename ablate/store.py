"""The store of a plan: which steps are done, who works on one, and why one failed.

In: the folder that ``--out`` names. Out: `Store`; beside each output lies ``ADDRESS.step.json``, written after the
command has ended well, which alone makes a step done. A claim is held by the engine and by the command that it began,
so that nobody begins the step again while that command lives, whatever became of the engine.
"""

import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from synclones.ablate.steps import Step
from synclones.base.errors import VerificationError
from synclones.base.files import lock, write_atomic
from synclones.base.json_file import pretty_json, read_json
from synclones.base.manifest import versions
from synclones.shards.lock import Claim, claim

RECORD, FAILURE, GROWING, LOG = ".step.json", ".failed.json", ".growing.json", ".log"
MAX_LINE = 500


class Held:
    """What is held for a step while its command runs: its claim, and a place among the readers of what it needs."""

    def __init__(self, claimed: Claim, readers: list[int]):
        self.descriptors = (claimed.descriptor, *readers)
        self._stack = ExitStack()
        self._stack.callback(claimed.release)
        for descriptor in readers:
            self._stack.callback(os.close, descriptor)

    def release(self) -> None:
        """Let go; a command that still lives holds on."""
        self._stack.close()


class Store:
    """Steps of any number of grids, below one folder. Any number of processes may use it at once."""

    def __init__(self, out: Path):
        self.out = Path(out)

    def beside(self, step: Step, suffix: str) -> Path:
        """Return a file beside a step's output."""
        return self.out / "steps" / f"{step.key}{suffix}"

    def record(self, step: Step) -> dict[str, Any] | None:
        """Return what is known of a step that is done, None of another; of one that grows, once it is large enough.

        Raises:
            VerificationError: the record is broken.
        """
        path = self.beside(step, RECORD)
        try:
            record = read_json(path)
        except FileNotFoundError:
            return None
        except ValueError:
            record = None
        if not isinstance(record, dict) or type(record.get("size")) is not int:
            raise VerificationError(f"{path}: not the record of a step; delete it, and the command is run again")
        return record if record["size"] >= step.size else None

    def is_done(self, step: Step) -> bool:
        """Tell whether a step is done."""
        return self.record(step) is not None

    def failure(self, step: Step, since: float = 0.0) -> str:
        """Return why the last attempt at a step failed, if that was after ``since`` (Unix time); else nothing."""
        try:
            record = read_json(self.beside(step, FAILURE))
            return str(record["line"]) if float(record["at"]) >= since else ""
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return ""

    def begin(self, step: Step) -> Held | None:
        """Claim a step for this process; None while another works on it, or reads what is about to grow.

        What it needs must still be done once it is held: another process may have begun to let that grow.
        """
        folder = self.beside(step, "").parent
        folder.mkdir(parents=True, exist_ok=True)
        claimed = claim(folder, Path(step.key).name)
        if claimed is None:
            return None
        readers: list[int] = []
        held = None
        try:
            for need in step.needs:
                if need.command.grows and self._join(need, readers, shared=True) is None:
                    return None
            if step.command.grows and self._join(step, readers, shared=False) is None:
                return None
            held = Held(claimed, readers)
            return held
        finally:
            if held is None:
                claimed.release()
                for descriptor in readers:
                    os.close(descriptor)

    def _join(self, step: Step, readers: list[int], *, shared: bool) -> int | None:
        """Take a place among the readers of an output, or the only one, which letting it grow needs."""
        path = self.beside(step, "").parent / f".{Path(step.key).name}.readers.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            lock(descriptor, path, shared=shared)
        except BlockingIOError:
            os.close(descriptor)
            return None
        readers.append(descriptor)
        return descriptor

    def words(self, step: Step) -> tuple[list[str], int]:
        """Return what follows the program to make a step that was claimed, and the size that it will have.

        Of one that grows: what says that the smaller output is whole is taken away first, and where somebody was
        stopped while it grew to a larger size, that is gone on with.
        """
        if not step.command.grows:
            return [*step.run.split(), *step.flag_words(self.out)], step.size
        growing, size = self.beside(step, GROWING), step.size
        exists = Path(step.path(self.out), "plan.json").exists()
        listed = [*step.run.split(), *step.flag_words(self.out, extend=exists)]
        try:
            begun = read_json(growing)
            if int(begun["size"]) > size:
                listed, size = [str(word) for word in begun["words"]], int(begun["size"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass
        if exists and "--extend" not in listed:  # it was begun before there was anything to extend
            listed.append("--extend")
        write_atomic(growing, pretty_json({"words": listed, "size": size}))
        self.beside(step, RECORD).unlink(missing_ok=True)
        return listed, size

    def finish(self, step: Step, argv: list[str], size: int, seconds: float, process_seconds: float) -> None:
        """Write that a step is done, at the size that it has."""
        facts = {
            "command": argv,
            "facts": step.facts,
            "host": socket.gethostname(),
            "process_seconds": round(process_seconds, 2),
            "seconds": round(seconds, 2),
            "size": size,
            "versions": versions(),
        }
        write_atomic(self.beside(step, RECORD), pretty_json(facts))
        self.beside(step, FAILURE).unlink(missing_ok=True)
        self.beside(step, GROWING).unlink(missing_ok=True)

    def fail(self, step: Step, line: str, code: int) -> None:
        """Write why an attempt failed."""
        facts = {"line": line[:MAX_LINE], "code": code, "at": time.time(), "host": socket.gethostname()}
        write_atomic(self.beside(step, FAILURE), pretty_json(facts))

    def last_line(self, step: Step) -> str:
        """Return the last line of the log that says what was wrong, or the last of all."""
        try:
            with open(self.beside(step, LOG), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
                lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        except FileNotFoundError:
            return "it left no log"
        stated = [line for line in lines if line.startswith("synclones: error: ")]
        return (stated or lines or ["it said nothing"])[-1].removeprefix("synclones: error: ")
