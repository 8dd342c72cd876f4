"""Says how a training goes: ``metrics.jsonl`` always, and on the one progress steps, losses and accuracies.

In: losses per logged interval. Out: one JSON object per line, cut back to the checkpoint's step on resume, so that the
file reads as if nothing had happened.
"""

import contextlib
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from synclones.base.errors import VerificationError
from synclones.base.files import append_line, write_atomic
from synclones.base.json_file import parse_json, read_regular
from synclones.base.output import say
from synclones.base.progress import Progress
from synclones.base.units import format_duration

LOOK_S = 1.0
MOST_APPENDED = 1 << 24
"""Bytes by which a log may grow while it is read."""

MOST_LINES = 20_000
"""Of one kind in a log that a page shows: a fifth of a second of reading."""
_NAMES = re.compile(rb'"([^"]*)": ?')


def cut_back(path: Path, step: int) -> None:
    """Remove the lines of later steps than ``step`` and a torn last one; damaged ones among the others are told of.

    Raises:
        VerificationError: when there is something else than a file.
    """
    if not path.exists():
        return
    *lines, torn = _read(path).split(b"\n")
    steps = [_step_of(line) for line in lines]
    damaged = steps.count(None)
    if damaged:
        say(f"{path}: {damaged} damaged lines were left out")
    kept = [line + b"\n" for line, of in zip(lines, steps, strict=True) if of is not None and of <= step]
    if damaged or torn or len(kept) < len(lines):
        write_atomic(path, b"".join(kept))


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, path.stat().st_size + MOST_APPENDED)
    except (ValueError, IsADirectoryError):
        raise VerificationError(f"{path}: no regular file; move it away") from None


def _step_of(line: bytes) -> int | None:
    """Return the step of a line, None when it cannot be read."""
    try:
        step = parse_json(line, finite=False)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if type(step) is int else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the logged intervals of a run.

    Raises:
        ValueError: when a line is no JSON.
    """
    return [parse_json(line, finite=False) for line in _read(Path(path)).splitlines()]


def logged(path: Path, most: int = MOST_LINES) -> list[dict[str, float]]:
    """Read the numbers of the logged intervals of a run, also while it writes them; each has its ``step``.

    Damaged lines, a torn last one, and what is no number are left out. Of more than ``most`` lines with the same names
    as many are read, evenly over the log, the last one among them: what is measured now and then is not lost.

    Raises:
        VerificationError: when there is something else than a file.
    """
    lines = _read(Path(path)).splitlines()
    if len(lines) > most:
        alike: dict[tuple[bytes, ...], list[int]] = {}
        for number, line in enumerate(lines):
            alike.setdefault(tuple(_NAMES.findall(line)), []).append(number)
        lines = [lines[number] for number in sorted(n for numbers in alike.values() for n in _evenly(numbers, most))]
    return _numbers(lines)


def last_logged(path: Path, count: int = 20) -> list[dict[str, float]]:
    """Read the numbers of the last lines, as `logged`.

    Raises:
        VerificationError: when there is something else than a file.
    """
    return _numbers(_read(Path(path)).splitlines()[-count:])


def _evenly(numbers: list[int], most: int) -> list[int]:
    if len(numbers) <= most:
        return numbers
    return [numbers[len(numbers) * k // most] for k in range(most - 1)] + numbers[-1:]


def _numbers(lines: list[bytes]) -> list[dict[str, float]]:
    records = []
    for line in lines:
        with contextlib.suppress(ValueError):
            record = parse_json(line, finite=False)
            values = record.items() if isinstance(record, dict) else ()
            numbers = {name: value for name, value in values if _is_number(value)}
            records += [numbers] if "step" in numbers else []
    return records


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**63)


class Metrics:
    """Logs the steps of one process; every process but the first is silent."""

    def __init__(self, path: Path, first_step: int, num_steps: int, batch_size: int, is_main_process: bool):
        self._path, self._num_steps, self._batch_size, self._writes = path, num_steps, batch_size, is_main_process
        self._started, self._first, self._last = time.monotonic(), first_step, first_step
        self._looked, self._measured = self._started, ""
        # The first process counts for all, since they step together.
        folder = path.parent if is_main_process else None
        self._progress = Progress("steps", num_steps, first_step, shares=1, folder=folder, shown=is_main_process)

    def has(self, step: int, names: Sequence[str]) -> bool:
        """Return whether a line about ``step`` says all ``names``."""
        lines = read_metrics(self._path) if self._path.exists() else []
        return {*names} <= {name for line in lines if line["step"] == step for name in line}

    def stepped(self, step: int, losses: Callable[[], dict[str, float]]) -> None:
        """Count a step that was taken; once a second show what ``losses`` returns, which costs a look at the device."""
        if not self._writes:
            return
        self._progress.add(step - self._last)
        self._last, now = step, time.monotonic()
        if now - self._looked >= LOOK_S and (values := losses()):
            self._looked = now
            self._progress.note(", ".join(filter(None, (_text(values), self._measured))))

    def measuring(self) -> None:
        """Show that no step is taken because the weights are measured."""
        self._progress.note("measuring")

    def measured(self, step: int, values: dict[str, float]) -> None:
        """Record what the weights after ``step`` steps are worth, in a line of its own."""
        if not self._writes:
            return
        append_line(self._path, json.dumps({"step": step, "samples": step * self._batch_size, **values}).encode())
        self._measured = _text(values)
        self._progress.note(self._measured)
        say(f"step {step}/{self._num_steps}: {self._measured}")

    def log(self, step: int, values: dict[str, float]) -> None:
        """Record an interval that ended after ``step`` steps."""
        if not self._writes:
            return
        line = {"step": step, "samples": step * self._batch_size, **values}
        append_line(self._path, json.dumps(line).encode())
        text = f"{_text(values)}, {self.rate:.0f} images/s"
        self._progress.note(", ".join(filter(None, (text, self._measured))))
        left = format_duration((self._num_steps - step) * self._batch_size / max(self.rate, 1e-9))
        self._progress.event(f"step {step}/{self._num_steps}: {text}, ETA {left}")

    @property
    def seconds(self) -> float:
        """Since this process began to train."""
        return time.monotonic() - self._started

    @property
    def rate(self) -> float:
        """Images per second of the whole job since it was started."""
        return (self._last - self._first) * self._batch_size / max(self.seconds, 1e-9)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.close(whole=self._last == self._num_steps)


def _text(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
