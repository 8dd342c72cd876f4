"""Runs what is missing of a plan: each step a public command as a process, as many at once as there are cores.

In: a plan and a store. Out: every step done, or the line by which it failed. Killed anywhere, the same call goes on;
several processes and machines on one store help each other, and none begins what another works on.
"""

import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from synclones.ablate.costs import done_steps, left_steps
from synclones.ablate.plan import Plan
from synclones.ablate.steps import Step
from synclones.ablate.store import LOG, Held, Store
from synclones.base.process import childs_environment, shell_code, stop_asked, stop_if_asked, stopping_between_steps

POLL_S, OTHERS_S = 0.05, 1.0
STOP_S = 120.0
"""How long commands that were told to stop may take to write a checkpoint."""

Say = Callable[[str], None]


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        ran: keys of the steps that this process did.
        failed: key -> the line by which a step failed.
        codes: exit codes of those.
    """

    ran: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 when nothing failed; 4 when a machine did, which another call may mend; else 2."""
        if not self.failed:
            return 0
        return 4 if any(code not in (1, 2, 3) for code in self.codes) else 2


@dataclass
class _Running:
    step: Step
    process: subprocess.Popen[bytes]
    held: Held
    argv: list[str]
    size: int
    started: float


def execute(plan: Plan, store: Store, processes: int, say: Say = print, threads: int = 1) -> Outcome:
    """Run every step that is not done, and whose inputs are there; what fails takes along what needs it, and no more.

    Args:
        processes: how many commands run at once.
        threads: of each, where its libraries ask the environment.

    Raises:
        Stopped: after a signal; the commands were told, and have ended.
    """
    return _Engine(plan, store, processes, say, threads).run()


class _Engine:
    def __init__(self, plan: Plan, store: Store, processes: int, say: Say, threads: int):
        self._plan, self._store, self._slots, self._say = plan, store, processes, say
        self._environment = childs_environment() | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        self._began = time.time()
        self._outcome = Outcome()
        self._left = _most_wanted_first(plan, left_steps(plan, done_steps(plan, store)))
        self._done: set[str] = set()
        self._running: list[_Running] = []

    def run(self) -> Outcome:
        looked = -OTHERS_S
        with stopping_between_steps():
            try:
                while (self._left or self._running) and not stop_asked():
                    # The store is looked at when a command of ours has ended, and now and then for what others do.
                    if self._reap() or time.monotonic() - looked >= OTHERS_S:
                        self._begin_what_can()
                        looked = time.monotonic()
                    if self._left or self._running:
                        time.sleep(POLL_S)
            finally:
                self._stop_commands()
        stop_if_asked()
        return self._outcome

    def _begin_what_can(self) -> None:
        """Begin steps while there are slots; settle those that are done or cannot be done."""
        for step in list(self._left.values()):
            self._take_back(step)
        for key, step in list(self._left.items()):
            if self._is_settled(step):
                del self._left[key]
            elif len(self._running) < self._slots and all(self._is_done(need) for need in step.needs):
                if self._begin(step):
                    del self._left[key]

    def _take_back(self, step: Step) -> None:
        """Put back what was done and is no more: somebody let it grow, and may have been stopped."""
        busy = {one.step.key for one in self._running}
        for need in step.needs:
            if need.key not in {*self._left, *busy, *self._outcome.failed} and not self._is_done(need):
                self._left[need.key] = self._plan.steps[need.key]

    def _is_settled(self, step: Step) -> bool:
        if self._is_done(step):
            return True
        lacking = next((one for one in step.inputs if one.is_missing), None)
        if lacking is not None:
            self._fail(step, f"{lacking.where_it_lies}: is missing; {lacking.get}", 2)
            return True
        # Another process that was begun after us may have tried it already.
        if line := self._store.failure(step, self._began):
            self._fail(step, line, 2)
            return True
        return any(need.key in self._outcome.failed for need in step.needs) and self._fail_with_needs(step)

    def _fail_with_needs(self, step: Step) -> bool:
        first = next(need for need in step.needs if need.key in self._outcome.failed)
        self._outcome.failed[step.key] = self._outcome.failed[first.key]
        return True

    def _is_done(self, step: Step) -> bool:
        """Look once more only at what was not done when it was last looked at."""
        step = self._plan.steps[step.key]
        if step.key not in self._done and self._store.is_done(step):
            self._done.add(step.key)
        return step.key in self._done

    def _begin(self, step: Step) -> bool:
        """Claim a step and start its command; False where somebody else is at it, or has just done it."""
        held = self._store.begin(step)
        if held is None:
            return False
        needed = [self._plan.steps[need.key] for need in step.needs]
        if self._store.is_done(step) or not all(self._store.is_done(need) for need in needed):
            held.release()
            self._done -= {need.key for need in needed}
            return False
        words, size = self._store.words(step)
        argv = [*step.command.program, *words]
        self._say(f"{step.key}: {step.name} begins")
        with open(self._store.beside(step, LOG), "ab") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment, pass_fds=held.descriptors
            )
        self._running.append(_Running(step, process, held, argv, size, time.monotonic()))
        return True

    def _reap(self) -> bool:
        """Take note of commands that have ended; whether any has."""
        ended = False
        for one in list(self._running):
            pid, status, usage = os.wait4(one.process.pid, os.WNOHANG)
            if pid:
                one.process.returncode = os.waitstatus_to_exitcode(status)
                self._running.remove(one)
                self._end(one, usage.ru_utime + usage.ru_stime)
                ended = True
        return ended

    def _end(self, one: _Running, process_seconds: float) -> None:
        """Write how a command ended, and let its claim go after that."""
        step, code = one.step, one.process.returncode
        seconds = time.monotonic() - one.started
        if code == 0:
            self._store.finish(step, one.argv, one.size, seconds, process_seconds)
            self._outcome.ran.append(step.key)
            self._say(f"{step.key}: {step.name} is done after {seconds:.0f} s; {len(self._left)} steps are left")
        elif not stop_asked():
            line = self._store.last_line(step)
            self._store.fail(step, line, code)
            self._fail(step, line, shell_code(code))
        one.held.release()

    def _fail(self, step: Step, line: str, code: int) -> None:
        self._outcome.failed[step.key] = f"{step.run}: {line}"
        self._outcome.codes.append(code)
        self._say(f"{step.key}: {step.name} failed: {line}")

    def _stop_commands(self) -> None:
        """Tell the commands that run, and wait until they have ended: what they hold is free then."""
        for one in self._running:
            one.process.terminate()
        until = time.monotonic() + STOP_S
        while self._running and time.monotonic() < until:
            self._reap()
            time.sleep(POLL_S)
        for one in self._running:
            one.process.kill()


def _most_wanted_first(plan: Plan, left: dict[str, Step]) -> dict[str, Step]:
    """Order steps by how many cells wait for them, else as planned: no core is idle at the end for one set."""
    cells = Counter(step.key for cell in plan.cells for step in cell.steps)
    return {key: left[key] for key in sorted(left, key=lambda key: -cells[key])}
