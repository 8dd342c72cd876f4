"""The edge of a process: how a command ends, what a signal does, and where its lines go.

In: the function that does a command's work. Out: the exit code that its outcome deserves, and one line on standard
error. A signal ends the process from its handler, without an exception that a library could swallow; a job that can
stop between two steps says so by `stopping_between_steps`.
"""

import contextlib
import ctypes
import errno
import functools
import io
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO, TypeVar

from synclones.base import machine, output
from synclones.base.errors import HOW_TO_RESUME, InputError, LostProcess, Stopped, as_synclones_error, one_line

T = TypeVar("T")
ORPHAN_GRACE_S = 60.0
"""How long a process may go on after its parent's death, to write a checkpoint."""
_PARENT = "SYNCLONES_PARENT"
LAUNCHERS = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID", _PARENT)
"""Variables by which a process knows that another one started it as a part of its own work."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_NOBODY_READS = (errno.EPIPE, errno.EIO, errno.ENXIO)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Signals:
    """What this process does about signals: one set for the process, as its handlers are."""

    between_steps = False
    asked = 0


def run_main(main: Callable[[], None]) -> None:
    """Run ``main`` and exit with the code its outcome deserves; rank 0 alone prints the one line."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):  # a console that lacks a character gets its escape
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _refuse_a_removed_folder()
        if _PARENT in os.environ:  # then it ends with that one, whatever it does
            stop_on_signals()
        main()
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - this is the process boundary
        if (
            isinstance(error, BrokenPipeError) and _nobody_reads_us()
        ):  # `synclones ... | head` has read enough of a list
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(0)
        known = as_synclones_error(error)
        if known is None:
            raise
        if isinstance(known, Stopped | LostProcess):
            _leave(known)  # threads may be inside a kernel: unwinding would wait for them, or crash
        # What may happen to one process alone is said by each; a parent hears all, and says one line itself.
        _say(str(known), everyone=known.exit_code in (3, 4) or _PARENT in os.environ)
        sys.exit(known.exit_code)
    finally:
        for number in _SIGNALS:  # nothing is left to do that a signal could spoil
            if signal.getsignal(number) in (_stop, signal.default_int_handler):
                signal.signal(number, signal.SIG_DFL)


def _refuse_a_removed_folder() -> None:
    """Refuse to begin in a working directory that is gone: a library of torch ends such a process in its own words."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise InputError("the working directory was removed; go to another, and run the same command there") from None


def _nobody_reads_us() -> bool:
    """Return whether standard output has lost its reader; a pipe that broke elsewhere, as to a store, is a failure."""
    asked = select.poll()
    asked.register(1, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in asked.poll(0))


def _say(what: str, everyone: bool) -> None:
    """Write the one line, if this process is the one that speaks, past every buffer and lock of Python."""
    try:
        rank = machine.rank()
    except InputError:  # that is what there is to say
        rank = 0
    if rank == 0 or everyone:
        with contextlib.suppress(OSError, ValueError):  # a full disk may hold the log too; the code is still heard
            sys.stderr.flush()
        who = "" if rank == 0 else f"rank {rank}: "
        behind = "\n" if output.bars else ""  # a bar has no end of line
        with contextlib.suppress(OSError):
            os.write(2, f"{behind}synclones: error: {one_line(who + what)}\n".encode(errors="backslashreplace"))


def _leave(reason: Stopped | LostProcess) -> None:
    if not _parent_has_spoken():
        _say(str(reason), everyone=isinstance(reason, LostProcess))
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(reason.exit_code)


def _parent_has_spoken() -> bool:
    """Return whether the command that this one is a part of has ended, and said why.

    A parent with threads is told of as dead when the first of them is: the others keep its number for a moment.
    """
    parent = os.environ.get(_PARENT)
    for _ in range(20 if parent else 0):
        if parent != str(os.getppid()):
            return True
        time.sleep(0.01)
    return False


# ------------------------------------------------------------------ signals


def stop_on_signals() -> None:
    """Make SIGTERM, SIGINT and SIGHUP end this process with the line that resumes, and its parent's death a SIGTERM.

    The handler ends the process itself, so that no library can swallow the signal, wherever it comes. Lines that
    nobody reads any more do not end the job. A SIGHUP that ``nohup`` ignores stays ignored.
    """
    for number in _SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    if sys.platform == "linux" and any(name in os.environ for name in LAUNCHERS):
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
        if os.environ.get(_PARENT, str(os.getppid())) != str(os.getppid()):
            os.kill(os.getpid(), signal.SIGTERM)  # the parent died before this process could ask to be told
        threading.Thread(target=_leave_without_parent, args=(os.getppid(),), daemon=True).start()
    sys.stdout, sys.stderr = _outlasting(sys.stdout), _outlasting(sys.stderr)


def stoppable(run: Callable[[T], None]) -> Callable[[T], None]:
    """Return what a verb runs, so that a signal ends it with the line that resumes."""

    @functools.wraps(run)
    def stopped(config: T) -> None:
        stop_on_signals()
        run(config)

    return stopped


def _leave_without_parent(parent: int) -> None:
    """End this process when its parent has been gone for a while, whatever the main thread waits for.

    A process that waits for others inside a library hears no signal until that returns, and holds its GPU meanwhile.
    """
    while os.getppid() == parent:
        time.sleep(1)
    time.sleep(ORPHAN_GRACE_S)
    with contextlib.suppress(OSError):
        os.write(2, b"synclones: error: the launcher is gone; run the same command again to resume\n")
    os._exit(128 + signal.SIGTERM)


def _stop(number: int, frame: object) -> None:
    if _Signals.between_steps and not _Signals.asked:
        _Signals.asked = number
    else:
        try:
            _leave(Stopped(number, HOW_TO_RESUME[-1]))
        finally:  # whatever the streams do, the process ends
            os._exit(128 + number)


@contextlib.contextmanager
def stopping_between_steps() -> Iterator[None]:
    """Let the first signal wait until the block looks with `stop_asked`; a second one ends the process at once.

    Raises:
        Stopped: at the end of a block that did not look after the signal.
    """
    _Signals.between_steps = True
    try:
        yield
    finally:
        _Signals.between_steps = False
    stop_if_asked()


def stop_asked() -> int:
    """Return the number of the signal that asked this process to stop, 0 for none."""
    return _Signals.asked


def stop_if_asked() -> None:
    """End a block of `stopping_between_steps` when a signal came.

    Raises:
        Stopped: with the line that resumes.
    """
    if _Signals.asked:
        raise Stopped(_Signals.asked, HOW_TO_RESUME[-1])


def childs_environment() -> dict[str, str]:
    """Return the environment for a command that must not outlive this process: its `stop_on_signals` sees to that."""
    return os.environ | {_PARENT: str(os.getpid())}


def shell_code(returncode: int) -> int:
    """Return the exit code of a child as a shell gives it: 128 + the number of a signal that ended it."""
    return returncode if returncode >= 0 else 128 - returncode


# ------------------------------------------------------------------ streams


def _open_closed_streams() -> None:
    """Open the standard streams that the caller closed (``2>&-``), or the next file would take their number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - it lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


class _LastingStream(io.RawIOBase):
    """A standard stream of a job: what it writes is lost when nobody can take it, and the job goes on."""

    def __init__(self, number: int):
        self._number = number

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        try:
            return os.write(self._number, data)
        except OSError as error:
            if error.errno in _NOBODY_READS:
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._number)
            elif error.errno not in _FULL:
                raise
            return len(data)


def _outlasting(stream: TextIO) -> TextIO:
    """Return the stream for a job, which outlasts its readers and writes what the encoding lacks as escapes."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return stream  # no file: a notebook's, or a test's
    if isinstance(stream, io.TextIOWrapper) and number in (1, 2):
        stream.flush()
        lasting = io.BufferedWriter(_LastingStream(number))  # type: ignore[type-var]
        return io.TextIOWrapper(lasting, stream.encoding, "backslashreplace", line_buffering=True)
    return stream
