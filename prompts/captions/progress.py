"""Says how far the writing of captions is: now and then how many, the batch size, the rate and the time left.

In: batches as they come. Out: lines on standard error. Also what a dry run prints: number, rate, hours and dollars.
"""

import sys
import time

from synclones.base import machine
from synclones.base.config import format_duration

EVERY_S = 10.0


class Progress:
    """Counts of what this process and the others have done, and its reports."""

    def __init__(self, what: str, num_rows: int, already_done: int, batch_size: int, every_s: float = EVERY_S):
        """Begin to count.

        Args:
            what: the words behind a number, such as ``captions written``.
            num_rows: of all the work.
            already_done: of them in finished pieces.
        """
        self._what, self._total, self._batch_size, self._every_s = what, num_rows, batch_size, every_s
        self.made, self._own, self._done = 0, 0, already_done
        self._started = self._reported = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._prefix = f"[{machine.rank()}/{machine.world_size()}] " if machine.world_size() > 1 else ""

    def add(self, made: int, rows: int) -> None:
        """Count a batch on the disk: how many a model wrote, for how many rows; report, unless that was just done."""
        now = time.monotonic()
        self.made, self._done, self._own = self.made + made, self._done + rows, self._own + (rows if made else 0)
        if made and self._first is None:
            self._first = rows, now
        if now - self._reported >= self._every_s:
            self.report()

    def also_done(self, rows: int) -> None:
        """Count rows that were in a journal, or that another process did."""
        self._done += rows

    def report(self) -> None:
        """Print a line with the rate of this process and the time left if all are as fast."""
        self._reported = now = time.monotonic()
        # The first batch loads the model: it counts only as long as there is no other.
        rows, since = self._first or (0, 0.0)
        own, seconds = (self._own - rows, now - since) if self._own > rows else (self._own, now - self._started)
        rate = own / max(seconds, 1e-9)
        left = self._total - self._done
        eta = f", ETA {format_duration(left / rate / machine.world_size())}" if rate and left else ""
        print(
            f"{self._prefix}{self.made} {self._what}; {self._done} of {self._total} done, "
            f"batch size {self._batch_size}, {rate:.1f}/s{eta}",
            file=sys.stderr,
            flush=True,
        )


def print_cost(rows: int, measured: tuple[int, float], where: str, price_per_hour: float) -> None:
    """Print rate, time and cost of ``rows`` rows, from one measured batch: (its rows, its seconds)."""
    batch, seconds = measured
    rate = batch / max(seconds, 1e-9)
    hours = rows / rate / 3600
    print(f"rate       {rate:.1f} captions/s per process: one batch of {batch} in {seconds:.2f} s on {where}")
    print(f"time       {format_duration(hours * 3600)} with one process, {format_duration(hours * 450)} with eight")
    if price_per_hour:
        print(f"cost       {hours * price_per_hour:.2f} dollars at {price_per_hour} per hour")
