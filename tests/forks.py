"""Forks children that die by SIGKILL of their own where their fate says, and waits for them: what kill harnesses share.

In: what a child does, and the operation at which it dies. Out: how many died of their fate; any other failure ends all.
"""

import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from multiprocessing import Value


class Fate:
    """When a child dies: at the ``countdown``-th operation of ``phase``, of those that count."""

    def __init__(self, phase: str, countdown: int, killed):
        self.phase, self.countdown, self.killed = phase, countdown, killed

    def counts(self) -> bool:
        """Whether operations count already."""
        return True

    def due(self, phase: str) -> bool:
        """Whether this operation is the last."""
        if self.phase != phase or not self.counts():
            return False
        self.countdown -= 1
        return self.countdown == 0

    def die(self) -> None:
        self.killed.value = 1
        os.kill(os.getpid(), signal.SIGKILL)


def drawn_phase(rng: random.Random, phases: tuple[str, ...], kills: Counter, least: int) -> str:
    """Draw a phase to die in; with no more kills than phases one that has had the fewest, so that each has its own."""
    if least > len(phases):
        return rng.choice(phases)
    fewest = min(kills[phase] for phase in phases)
    return rng.choice([phase for phase in phases if kills[phase] == fewest])


def forked(run: Callable[[], None], seed: float) -> int:
    """Fork a child that runs this with `random` seeded, and ends with 0, or with 1 and its error on standard error."""
    pid = os.fork()
    if pid:
        return pid
    random.seed(seed)
    try:
        run()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.__stderr__)
        os._exit(1)


def flag():
    """What a fate sets, where the parent sees it."""
    return Value("i", 0)


def count_kills(children: Iterable[tuple[int, str, object]], kills: Counter) -> None:
    """Wait for all children, given as (pid, phase, flag), and count by phase those that died of their fate.

    Raises:
        SystemExit: one failed otherwise.
    """
    for pid, phase, killed in children:
        _, status = os.waitpid(pid, 0)
        if killed.value:
            kills[phase] += 1
        elif status:
            raise SystemExit(f"a child failed with status {status}")
