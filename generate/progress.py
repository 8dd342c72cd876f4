"""Says how far a generation is: a bar with rate and ETA on a terminal, one line per shard elsewhere, a log always.

In: batches and shards as they finish, from any thread. Out: stderr, and ``log/HOST-PID.jsonl`` in the dataset folder
(times and hosts stay out of the dataset's identity).
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from synclones.base.json_file import parse_json
from synclones.base.units import format_duration

LOG = "log"
"""Folder of the logs in a dataset folder."""


class Progress:
    """Counts what this process draws; thread-safe."""

    def __init__(
        self,
        folder: Path,
        num_samples: int,
        already_done: int,
        rank: int,
        world_size: int,
        begun: Mapping[str, int] | None = None,
    ):
        """Begin with what earlier processes left.

        Args:
            num_samples: of the whole set.
            already_done: of its complete shards.
            begun: name of each unfinished shard -> samples that its journal holds.
        """
        self.drawn = 0
        self._begun = dict(begun or {})
        already_done += sum(self._begun.values())
        self._total, self._already, self._world_size = num_samples, already_done, world_size
        self._started, self._lock = time.monotonic(), threading.Lock()
        self._prefix = f"[{rank}/{world_size}] " if world_size > 1 else ""
        self._log = folder / LOG / f"{socket.gethostname()}-{os.getpid()}.jsonl"
        on_terminal = sys.stderr.isatty() and rank == 0
        self._quiet_lines = sys.stderr.isatty()
        self._bar = tqdm(
            total=num_samples, initial=already_done, unit=" images", disable=not on_terminal, smoothing=0.1
        )
        self._write({"event": "start", "already_done": already_done, "rank": rank, "world_size": world_size})

    def batch_done(self, num_images: int) -> None:
        """Count the images of one stored batch."""
        with self._lock:
            self.drawn += num_images
            self._bar.update(num_images)

    def shard_resumed(self, name: str, num_images: int) -> None:
        """Correct what was believed of a shard's journal: others may have gone on with it, or its end was torn."""
        with self._lock:
            more = num_images - self._begun.get(name, 0)
            self._begun[name], self._already = num_images, self._already + more
            self._bar.update(more)

    def shard_done(self, name: str) -> None:
        """Log a finished shard with the rate so far and the time left if every process is as fast as this one."""
        with self._lock:
            left = max(0, self._total - self._already - self.drawn * self._world_size)
            rate = self.rate
            self._write({"event": "shard", "name": name, "drawn": self.drawn, "images_per_s": round(rate, 3)})
            if not self._quiet_lines:
                eta = format_duration(left / (rate * self._world_size)) if rate else "unknown"
                print(f"{self._prefix}{name} done: {rate:.1f} images/s, ETA {eta}", file=sys.stderr, flush=True)

    @property
    def seconds(self) -> float:
        """Since this process began to draw."""
        return time.monotonic() - self._started

    @property
    def rate(self) -> float:
        """Images per second of this process so far."""
        return self.drawn / max(self.seconds, 1e-9)

    def redrawn(self, alike: bool) -> None:
        """Log whether a finished batch, drawn again by this process, had the stored bytes."""
        self._write({"event": "redrawn", "alike": alike})
        if not alike:
            print(
                f"{self._prefix}images are not reproduced bit for bit on this device; prompts and seeds are",
                file=sys.stderr,
                flush=True,
            )

    def close(self, whole: bool = False) -> None:
        """Take the bar away, full when the ``whole`` set is drawn (by whichever process), and log the end."""
        if whole:
            self._bar.update(self._total - self._bar.n)
        self._bar.close()
        self._write({"event": "end", "drawn": self.drawn, "seconds": round(self.seconds, 3)})

    def _write(self, event: dict[str, object]) -> None:
        self._log.parent.mkdir(exist_ok=True)
        line = {"time": round(time.time(), 3), **event}
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with open(os.open(self._log, flags, 0o644), "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_logs(folder: Path) -> tuple[float, int]:
    """Return seconds drawn (summed over processes) and process starts, from the logs of a dataset folder."""
    seconds, starts = 0.0, 0
    for events in read_events(folder):
        first = last = None
        for event in events:
            if event["event"] == "start":
                starts, seconds = starts + 1, seconds + (last - first if first and last else 0.0)
                first = event["time"]
            last = event["time"]
        seconds += last - first if first and last else 0.0
    return seconds, starts


def bytes_reproduced(folder: Path) -> bool:
    """Return whether every process that drew a finished batch again got the stored bytes."""
    return all(event.get("alike", True) for events in read_events(folder) for event in events)


def read_events(folder: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield the events of each process' log."""
    for path in sorted((folder / LOG).glob("*.jsonl")):
        events = []
        if not path.is_file():
            continue
        for line in path.read_bytes().splitlines():
            try:
                event = parse_json(line)
                if isinstance(event, dict) and type(event["event"]) is str and type(event["time"]) is float:
                    events.append(event)
            except (ValueError, KeyError):
                continue  # the line a killed process was writing
        yield events
