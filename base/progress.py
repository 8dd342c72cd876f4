"""How far a job is: a bar that moves every second on a terminal, lines elsewhere, a file for who asks from outside.

In: work as it is done, from any thread. Out: standard error; and, where a folder is given, ``.progress-HOST-PID.json``
in it until the work is whole, which `read_beats` gives to `synclones status`. What was done before this process
began counts as done and not as speed; 100 % is shown when all is done and not before.
"""

import contextlib
import os
import re
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

from tqdm import tqdm

from synclones.base import machine
from synclones.base.json_file import pretty_json, read_json
from synclones.base.output import bars, is_quiet, is_verbose, say
from synclones.base.units import format_bytes, format_duration, format_rate

HEARTBEAT_S, VERBOSE_S = 30.0, 5.0
TICK_S = 1.0
WINDOW_S = 300.0
"""The rate is that of the last five minutes: a job of days changes its speed."""
FIRST_SHARE = 0.2
SILENT_S = 60.0
"""After so long without any work done, lines say so."""
BEAT_S = 10.0
"""How often the file is renewed."""
STALE_S = 12 * BEAT_S
BYTES = "bytes"
"""A unit that is written as MB or GB."""
_BEAT = re.compile(r"\.progress-(.+)-(\d+)\.json")


class Progress:
    """Counts the work of this process and of others, and shows it; thread-safe. Leave the ``with`` block to end it."""

    def __init__(
        self,
        unit: str,
        total: int,
        done: int = 0,
        *,
        what: str = "",
        shares: int = 0,
        folder: Path | None = None,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Begin with what was done before.

        Args:
            unit: the word behind numbers, such as ``images``, or `BYTES`.
            total: of all the work.
            done: of it.
            what: a name in front of the line, where jobs run side by side.
            shares: processes that do this together, each as fast as this one; by default those of the job.
            folder: where `read_beats` finds how far this is.
            shown: whether this process shows it; on a terminal only the first one has a bar.
            clock: seconds.
        """
        self.unit, self.total, self.done, self.own = unit, total, done, 0
        self._what, self._shares, self._clock = what, shares or machine.world_size(), clock
        self._note, self._lock = "", threading.RLock()
        self._started = self._said = self._worked = clock()
        self._seen: deque[tuple[float, int]] = deque([(self._started, 0)])  # when work was done, and how much by then
        self._first: tuple[float, int] | None = None
        self._first_until = float("inf")
        self._prefix = f"[{machine.rank()}/{machine.world_size()}] " if shares != 1 and self._shares > 1 else ""
        on_terminal = sys.stderr.isatty()
        shown = shown and not is_quiet()
        self._speaks = shown and not on_terminal
        self._bar = tqdm(total=total, disable=True)
        if shown and on_terminal and machine.rank() == 0:
            self._bar = tqdm(total=total, initial=done, file=sys.stderr, dynamic_ncols=True, bar_format=self._format())
            bars.add(self)
        self._beat = None if folder is None else folder / f".progress-{socket.gethostname()}-{os.getpid()}.json"
        self._ended = threading.Event()
        self._begin_to_tick()

    def _begin_to_tick(self) -> None:
        if self._beat is not None:
            remove_dead_beats(self._beat.parent)
        self._write_beat()
        if self._speaks or not self._bar.disable or self._beat is not None:
            threading.Thread(target=self._tick_again_and_again, name="progress", daemon=True).start()

    # ------------------------------------------------------------------ what was done

    def add(self, count: int, note: str | None = None) -> None:
        """Count work of this process; ``note`` stands behind the numbers from now on."""
        with self._lock:
            self.own, self.done, self._worked = self.own + count, self.done + count, self._clock()
            if count and self._worked - self._seen[-1][0] >= TICK_S:
                self._seen.append((self._worked, self.own))
            if count and self._worked <= self._first_until:
                if self._first is None:
                    self._first_until = self._worked + FIRST_SHARE * (self._worked - self._started)
                self._first = self._worked, self.own
            self._note = self._note if note is None else note

    def also_done(self, count: int) -> None:
        """Count work that others did, or take back what was believed of it; it says nothing of this process' speed."""
        with self._lock:
            self.done += count

    def note(self, text: str) -> None:
        """Put a text behind the numbers, such as a loss."""
        with self._lock:
            self._note = text

    # ------------------------------------------------------------------ how fast

    @property
    def seconds(self) -> float:
        """Since this process began."""
        return self._clock() - self._started

    @property
    def rate(self) -> float:
        """Work of this process per second, lately; the first pieces, which load and compile, count while they are all.

        Those of several workers come nearly together: all that are done soon after the first one are first ones. Time
        counts up to the last piece, until the next one takes longer than any did: a piece may take many minutes.
        """
        with self._lock:
            now, (then, before) = self._clock(), self._seen[0]
            longest = max((after - at for (at, _), (after, _) in pairwise(self._seen)), default=0.0)
            now = max(self._worked, now - longest)
            if self._first is not None and self._first[0] > then and self.own > self._first[1]:
                then, before = self._first
            return (self.own - before) / max(now - then, 1e-9)

    @property
    def eta_s(self) -> float | None:
        """Seconds that are left if all processes go on as fast as this one; None when that is not known."""
        rate = self.rate * self._shares
        return max(0, self.total - self.done) / rate if rate > 0 else None

    # ------------------------------------------------------------------ what is shown

    def line(self) -> str:
        """Return how far it is in one line."""
        with self._lock:
            parts = [f"{self._count(self.done)} of {self._count(self.total)} {self.unit}".removesuffix(f" {BYTES}")]
            if self.own:
                parts.append(self._speed(self.rate))
            if self._note:
                parts.append(self._note)
            quiet = self._clock() - self._worked
            if quiet >= SILENT_S:
                parts.append(f"nothing new for {format_duration(quiet)}")
            if self.done < self.total:
                parts.append(f"ETA {'unknown' if self.eta_s is None else format_duration(self.eta_s)}")
            return f"{self._prefix}{self._what + ': ' if self._what else ''}{', '.join(parts)}"

    def _count(self, count: int) -> str:
        return format_bytes(count) if self.unit == BYTES else f"{count:,}"

    def _speed(self, rate: float) -> str:
        return f"{format_bytes(rate)}/s" if self.unit == BYTES else f"{format_rate(rate)} {self.unit}/s"

    def _format(self) -> str:
        """Return what tqdm draws: its bar between our percentage, which is no more than is true, and our line."""
        percent = 100 * self.done // self.total if self.total else 100
        return f"{percent:3d}% {{bar:16}} {self.line().replace('{', '{{').replace('}', '}}')}"

    def report(self) -> None:
        """Print the line now, where lines are printed."""
        self.event(self.line())

    def event(self, text: str) -> None:
        """Print a line of another's words, where lines are printed: the next one comes after a whole interval."""
        with self._lock:
            self._said = self._clock()
            if self._speaks:
                say(text)

    def tick(self) -> None:
        """Move the bar; print a line and renew the file when it is time."""
        with self._lock:
            if self._ended.is_set():
                return
            now = self._clock()
            while len(self._seen) > 2 and now - self._seen[1][0] > WINDOW_S and self._seen[1][1] < self.own:
                self._seen.popleft()
            self._draw()
            if now - self._said >= (VERBOSE_S if is_verbose() else HEARTBEAT_S):
                self.report()
            if now - self._written >= BEAT_S:
                self._write_beat()

    def _draw(self) -> None:
        if not self._bar.disable:
            self._bar.n, self._bar.bar_format = min(self.done, self.total), self._format()
            self._bar.refresh()

    def _tick_again_and_again(self) -> None:
        while not self._ended.wait(TICK_S):
            with contextlib.suppress(ValueError, OSError):  # a closed or full terminal ends no job
                self.tick()

    # ------------------------------------------------------------------ the end

    def close(self, whole: bool = False) -> None:
        """End it: the ``whole`` work is done, by whichever process, or as much as was counted."""
        with self._lock:
            if self._ended.is_set():
                return
            self._ended.set()
            if whole:
                self.done = self.total
            self._draw()
            self._bar.close()
            bars.discard(self)
            if self._beat is not None:
                self._write_beat()  # what is not whole is remembered until somebody goes on with it
                if whole:
                    self._beat.unlink(missing_ok=True)
                    remove_dead_beats(self._beat.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(whole=kind is None)

    def _write_beat(self) -> None:
        self._written = self._clock()
        if self._beat is None:
            return
        beat = Beat(
            self._what, self.unit, self.total, self.done, self.rate, self._note, time.time(), not self._ended.is_set()
        )
        # In place and whole in one write: a reader passes a torn one over, and a kill leaves nothing beside it.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with contextlib.suppress(OSError), open(os.open(self._beat, flags, 0o644), "wb") as file:
            file.write(pretty_json(asdict(beat)))  # a full disk is told of by what needs it


# ------------------------------------------------------------------ what others see of it


@dataclass(frozen=True)
class Beat:
    """How far a process said it was."""

    what: str
    unit: str
    total: int
    done: int
    rate: float
    """Per second, of this process."""
    note: str
    at: float
    """Unix time."""
    works: bool
    """Whether the work was going on."""
    host: str = ""
    pid: int = 0

    @property
    def is_alive(self) -> bool:
        """Whether the process still works: it wrote lately, and on this machine it is one that runs."""
        fresh = abs(time.time() - self.at) < STALE_S
        return self.works and fresh and (self.host != socket.gethostname() or machine.is_running(self.pid))


def read_beats(folder: Path) -> list[Beat]:
    """Return how far the processes are, or were when they ended, that worked in ``folder``; the last one last."""
    beats = (_read_beat(path) for path in Path(folder).glob(".progress-*.json"))
    return sorted((beat for beat in beats if beat is not None), key=lambda beat: beat.at)


def remove_dead_beats(folder: Path) -> None:
    """Remove the files of processes that have ended, and damaged ones."""
    for path in Path(folder).glob(".progress-*.json"):
        beat = _read_beat(path)
        if beat is None or not beat.is_alive:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _read_beat(path: Path) -> Beat | None:
    named = _BEAT.fullmatch(path.name)
    try:
        beat = Beat(**read_json(path) | {"host": named[1], "pid": int(named[2])}) if named else None
        return beat if beat and _is_sound(beat) else None
    except (OSError, ValueError, TypeError):
        return None


def _is_sound(beat: Beat) -> bool:
    texts, whole = (beat.what, beat.unit, beat.note), (beat.total, beat.done)
    numbers = all(type(value) in (int, float) for value in (beat.rate, beat.at))
    return (
        numbers
        and type(beat.works) is bool
        and all(type(text) is str for text in texts)
        and all(type(count) is int for count in whole)
    )
