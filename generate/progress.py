"""Says how far a generation is, and keeps a log of it: starts, shards and rates of every process.

In: batches and shards as they finish, from any thread. Out: what `base.progress` shows, and ``log/HOST-PID.jsonl`` in
the dataset folder (times and hosts stay out of the dataset's identity).
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from synclones.base.json_file import parse_json
from synclones.base.output import say
from synclones.base.progress import Progress

LOG = "log"
"""Folder of the logs in a dataset folder."""


class DrawProgress:
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
        self._begun = dict(begun or {})
        already_done += sum(self._begun.values())
        self._started, self._lock = time.monotonic(), threading.Lock()
        self._failed, self._own = 0, set[str]()
        self._progress = Progress("images", num_samples, already_done, shares=world_size, folder=folder)
        self._log = folder / LOG / f"{socket.gethostname()}-{os.getpid()}.jsonl"
        self._write({"event": "start", "already_done": already_done, "rank": rank, "world_size": world_size})

    def batch_done(self, num_images: int, failed: int = 0) -> None:
        """Count the images of one stored batch, and those among them that could not be drawn."""
        with self._lock:
            self._failed += failed
            note = f"{self._failed:,} without an image" if self._failed else ""
        self._progress.add(num_images, note)

    def shard_resumed(self, name: str, num_images: int) -> None:
        """Correct what was believed of a shard that is drawn now: others may have gone on with it, its end be torn."""
        with self._lock:
            self._own.add(name)
            self._correct(name, num_images)

    def shard_passed(self, name: str, num_images: int) -> None:
        """Count a shard that another process has finished meanwhile."""
        with self._lock:
            if name not in self._own:
                self._correct(name, num_images)

    def _correct(self, name: str, num_images: int) -> None:
        self._progress.also_done(num_images - self._begun.get(name, 0))
        self._begun[name] = num_images

    def shard_done(self, name: str) -> None:
        """Log a finished shard, and say it where lines are printed."""
        with self._lock:
            self._write({"event": "shard", "name": name, "drawn": self.drawn, "images_per_s": round(self.rate, 3)})
        self._progress.event(f"{name} done: {self._progress.line()}")

    @property
    def drawn(self) -> int:
        """Images that this process has drawn."""
        return self._progress.own

    @property
    def seconds(self) -> float:
        """Since this process began to draw."""
        return time.monotonic() - self._started

    @property
    def rate(self) -> float:
        """Images per second of this process since it began."""
        return self.drawn / max(self.seconds, 1e-9)

    def redrawn(self, alike: bool) -> None:
        """Log whether a finished batch, drawn again by this process, had the stored bytes."""
        self._write({"event": "redrawn", "alike": alike})
        if not alike:
            say("images are not reproduced bit for bit on this device; prompts and seeds are")

    def close(self, whole: bool = False) -> None:
        """Take the bar away, full when the ``whole`` set is drawn (by whichever process), and log the end."""
        self._progress.close(whole)
        self._write({"event": "end", "drawn": self.drawn, "seconds": round(self.seconds, 3)})

    def _write(self, event: dict[str, object]) -> None:
        self._log.parent.mkdir(exist_ok=True)
        line = {"time": round(time.time(), 3), **event}
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with open(os.open(self._log, flags, 0o644), "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_logs(folder: Path) -> tuple[float, int, int]:
    """Return seconds drawn (summed over processes), process starts and images drawn, from a dataset folder's logs."""
    seconds, starts, drawn = 0.0, 0, 0
    for events in read_events(folder):
        first = last = None
        newest = 0
        for event in events:
            if event["event"] == "start":
                starts, seconds = starts + 1, seconds + (last - first if first and last else 0.0)
                first, drawn, newest = event["time"], drawn + newest, 0
            last, count = event["time"], event.get("drawn")
            newest = max(newest, count) if type(count) is int else newest
        seconds += last - first if first and last else 0.0
        drawn += newest
    return seconds, starts, drawn


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
