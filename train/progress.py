"""Says how a training goes: ``metrics.jsonl`` always, a bar on a terminal, a line per interval elsewhere.

In: losses per logged interval. Out: one JSON object per line, cut back to the checkpoint's step on resume, so that the
file reads as if nothing had happened.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from synclones.base.config import format_duration
from synclones.base.files import append_line, write_atomic
from synclones.base.json_file import parse_json


def cut_back(path: Path, step: int) -> None:
    """Remove the lines of later steps than ``step``, and a torn last one."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
    write_atomic(path, "".join(f"{line}\n" for line in kept).encode())


def _step_of(line: str) -> float:
    try:
        return float(parse_json(line, finite=False)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the logged intervals of a run."""
    return [parse_json(line, finite=False) for line in Path(path).read_text(encoding="utf-8").splitlines()]


class Metrics:
    """Logs the steps of one process; every process but the first is silent."""

    def __init__(self, path: Path, first_step: int, num_steps: int, batch_size: int, is_main_process: bool):
        self._path, self._num_steps, self._batch_size, self._writes = path, num_steps, batch_size, is_main_process
        self._started, self._first, self._last = time.monotonic(), first_step, first_step
        on_terminal = sys.stderr.isatty()
        self._lines = is_main_process and not on_terminal
        self._bar = tqdm(
            total=num_steps, initial=first_step, unit=" steps", disable=not (is_main_process and on_terminal)
        )

    def log(self, step: int, values: dict[str, float]) -> None:
        """Record an interval that ended after ``step`` steps."""
        if not self._writes:
            return
        line = {"step": step, "samples": step * self._batch_size, **values}
        append_line(self._path, json.dumps(line).encode())
        self._bar.update(step - self._last)
        self._last = step
        if self._lines:
            text = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            left = format_duration((self._num_steps - step) * self._batch_size / max(self.rate, 1e-9))
            print(
                f"step {step}/{self._num_steps}: {text}, {self.rate:.0f} images/s, ETA {left}",
                file=sys.stderr,
                flush=True,
            )

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
        self._bar.close()
