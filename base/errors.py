"""What can go wrong, as four kinds of error with fixed exit codes, and the one place that prints them.

0 done; 1 a bug in synclones; 2 the user's input is wrong; 3 verification failed; 4 the machine failed (rerun resumes);
130 and 143 stopped by SIGINT and SIGTERM.
"""

import contextlib
import ctypes
import errno
import os
import signal
import sys
from collections.abc import Callable


class SynclonesError(Exception):
    """A failure that one line explains: where, what, what was expected, what to do next."""

    exit_code = 1


class InputError(SynclonesError, ValueError):
    """The user's input is wrong: nothing was written, no model was loaded."""

    exit_code = 2


class VerificationError(SynclonesError):
    """Stored data differ from what their sidecars promise."""

    exit_code = 3


class MachineError(SynclonesError):
    """The machine failed (disk full, out of memory, network); the same command resumes."""

    exit_code = 4


class Stopped(SynclonesError):
    """A signal asked the process to stop; ``exit_code`` is 128 + the signal's number."""

    def __init__(self, signal_number: int, how_to_resume: str):
        super().__init__(f"stopped by signal {signal_number}; {how_to_resume}")
        self.exit_code = 128 + signal_number


# What the operating system says when storage, not the program, is at fault.
MACHINE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.ESTALE}

# What it says when something else lies where a file is expected, or may not be touched.
IN_THE_WAY = {errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}


def one_line(text: str) -> str:
    """Return ``text`` for a terminal or a log: what would break or disguise a line is replaced by its escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def as_synclones_error(error: BaseException) -> SynclonesError | None:
    """Return the one-line form of ``error``, or None when it is a bug that deserves its traceback."""
    if isinstance(error, SynclonesError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Stopped(2, "run the same command again to resume")
    if isinstance(error, OSError) and error.errno in MACHINE_ERRNOS:
        where = f"{error.filename}: " if error.filename else ""
        return MachineError(f"{where}{os.strerror(error.errno)}; free the resource and run the same command to resume")
    if isinstance(error, OSError) and error.errno in IN_THE_WAY:
        where = f"{error.filename}: " if error.filename else ""
        return InputError(
            f"{where}{os.strerror(error.errno)}; synclones expects another kind of file there: "
            "move it away, mend its permissions, or choose another folder"
        )
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return MachineError(
            f"out of memory ({error}); choose a smaller batch in a new output folder, or a larger machine"
        )
    return None


def run_main(main: Callable[[], None]) -> None:
    """Run ``main`` and exit with the code its outcome deserves; rank 0 alone prints the one line."""
    try:
        main()
    except BaseException as error:  # noqa: BLE001 - this is the process boundary
        if isinstance(error, BrokenPipeError):  # `synclones ... | head` has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        known = as_synclones_error(error)
        if known is None:
            raise
        rank = os.environ.get("RANK", "0")
        if rank == "0":
            _say(str(known))
        elif known.exit_code in (3, 4):  # what may happen to this rank alone; wrong input and signals reach rank 0 too
            _say(f"rank {rank}: {known}")
        if isinstance(known, Stopped):
            sys.stdout.flush()
            os._exit(known.exit_code)  # threads may be inside a kernel: unwinding would wait for them, or crash
        sys.exit(known.exit_code)


def _say(what: str) -> None:
    with contextlib.suppress(OSError):  # a full disk may hold the log too; the exit code is still heard
        print(f"synclones: error: {one_line(what)}", file=sys.stderr, flush=True)


def stop_on_signals() -> None:
    """Make SIGTERM and SIGINT raise `Stopped` in the main thread, and a launcher's death a SIGTERM.

    ``accelerate launch`` with one process dies of a SIGTERM without passing it on; its orphan would hold the GPU.
    """

    def stop(number: int, frame: object) -> None:
        raise Stopped(number, "run the same command again to resume")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    if sys.platform == "linux" and "ACCELERATE_MIXED_PRECISION" in os.environ:
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
