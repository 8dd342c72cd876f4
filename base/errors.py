"""What can go wrong, as four kinds of error with fixed exit codes, and which of them any exception is.

0 done; 1 a bug in synclones; 2 the user's input is wrong; 3 verification failed; 4 the machine failed (rerun resumes);
129, 130 and 143 stopped by SIGHUP, SIGINT and SIGTERM. `base.process` ends commands with them.
"""

import errno
import os
import re

HOW_TO_RESUME = ["run the same command again to resume"]
"""The end of lines about what stopped; the last one holds. A stage that knows a better command appends it."""


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
    names_command = False
    """Whether the line names the command that goes on."""


class LostProcess(MachineError):
    """Another process of a job does not answer; threads of this one may still wait for it."""


class Stopped(BaseException):
    """A signal asked the process to stop; ``exit_code`` is 128 + the signal's number.

    No `Exception`: what libraries catch and pass over must not keep a process alive.
    """

    def __init__(self, signal_number: int, how_to_resume: str, after: str = ""):
        super().__init__(f"stopped by signal {signal_number}{after}; {how_to_resume}")
        self.exit_code = 128 + signal_number


# What the operating system says of a path that the user gave, or that lies where a file is expected. Everything else
# that it refuses (full, too large, no locks, no connection, too many open files) is the machine's failure.
_OF_THE_PATH = {
    *(errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV, errno.EXDEV),
}
# What only a wrong call can get.
_OF_THE_PROGRAM = {
    *(errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ESPIPE, errno.ECHILD, errno.ESRCH, errno.ENOTTY, errno.EDOM),
    *(errno.ERANGE, errno.EAGAIN, errno.EINTR),
}
_LOST_PROCESS = {"DistNetworkError", "DistStoreError", "DistBackendError", "DistError"}  # of torch.distributed
_OUT_OF_MEMORY = (
    *("can't allocate memory", "CUDA out of memory", "std::bad_alloc", "Unable to allocate"),
    "failed to map segment",  # a shared library that does not fit
)


def one_line(text: str) -> str:
    """Return ``text`` for a terminal or a log: what would break or disguise a line is replaced by its escape."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def as_synclones_error(error: BaseException) -> SynclonesError | Stopped | None:
    """Return the one-line form of ``error``, or None when it is a bug that deserves its traceback.

    Known by their words and names, since importing their libraries takes seconds: memory that torch asked for in vain,
    a full disk under a library written in Rust (`safetensors`), a lost process of a distributed job.
    """
    if isinstance(error, SynclonesError | Stopped):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Stopped(2, vars(error).get("how_to_resume", HOW_TO_RESUME[-1]))
    name, text = type(error).__name__, str(error)
    number = error_number(error)
    path = getattr(error, "filename", None)
    if number is not None and number not in _OF_THE_PROGRAM and (path or number not in (errno.ENOENT, errno.EEXIST)):
        return _of_the_system(number, path)
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or any(words in text for words in _OUT_OF_MEMORY):
        return MachineError(
            f"out of memory ({text[:200]}); choose a smaller batch in a new output folder, or a larger machine"
        )
    if name in _LOST_PROCESS or (isinstance(error, RuntimeError) and re.search(r"\bgloo\b|\bNCCL\b", text)):
        reason = text.strip().splitlines()[0][:200] if text.strip() else name
        return LostProcess(f"another process of this job was lost or cannot be reached ({reason}); {HOW_TO_RESUME[-1]}")
    return None


def error_number(error: BaseException) -> int | None:
    """Return what the operating system said: as Python's errors hold it, or in the words of a Rust library."""
    if isinstance(error, OSError):
        return error.errno
    spoken = re.search(r"\(os error (\d+)\)", str(error))
    return int(spoken[1]) if spoken and isinstance(error, Exception) else None


def _of_the_system(number: int, path: object) -> SynclonesError:
    where = f"{path}: " if path else ""
    if number in _OF_THE_PATH:
        return InputError(
            f"{where}{os.strerror(number)}; synclones expects another kind of file there: "
            "move it away, mend its permissions, or choose another folder"
        )
    return MachineError(f"{where}{os.strerror(number)}; free the resource and {HOW_TO_RESUME[-1]}")
