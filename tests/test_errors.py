"""Exit codes: each kind of failure ends the process with its code and one line, and a bug keeps its traceback."""

import errno
import signal
import subprocess
import sys

import pytest

from synclones.base.errors import InputError, MachineError, Stopped, VerificationError, as_synclones_error

SCRIPT = """
import errno, os, signal, sys, time
from synclones.base.errors import *
from synclones.base.errors import run_main, stop_on_signals
def main():
    {body}
run_main(main)
"""


def outcome(body: str, **env: str) -> tuple[int, str]:
    """Exit code and standard error of a process whose main is ``body``."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", **env},
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "body, code, line",
    [
        ("raise InputError('a.yaml:3: mend it')", 2, "synclones: error: a.yaml:3: mend it\n"),
        ("raise VerificationError('train-00001.tar: bad')", 3, "synclones: error: train-00001.tar: bad\n"),
        ("raise MachineError('out of disk')", 4, "synclones: error: out of disk\n"),
        (
            "raise OSError(errno.ENOSPC, 'full', '/data/x')",
            4,
            "synclones: error: /data/x: No space left on device; "
            "free the resource and run the same command to resume\n",
        ),
        ("pass", 0, ""),
        ("sys.exit(0)", 0, ""),
    ],
)
def test_each_kind_of_end_has_its_code_and_its_one_line(body, code, line):
    assert outcome(body) == (code, line)


def test_a_bug_exits_1_with_its_traceback():
    code, text = outcome("raise KeyError('bug')")
    assert code == 1 and "Traceback" in text and "synclones: error:" not in text


def test_out_of_memory_is_the_machines_failure():
    code, text = outcome("raise MemoryError()")
    assert code == 4 and text.startswith("synclones: error: out of memory")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_exits_with_128_and_its_number_and_says_how_to_resume(number):
    code, text = outcome(f"stop_on_signals(); os.kill(os.getpid(), {int(number)}); time.sleep(30)")
    assert code == 128 + number
    assert text == f"synclones: error: stopped by signal {int(number)}; run the same command again to resume\n"


def test_only_rank_0_prints_but_every_rank_fails():
    assert outcome("raise InputError('x')", RANK="1") == (2, "")
    assert outcome("raise InputError('x')", RANK="0") == (2, "synclones: error: x\n")


def test_what_may_happen_to_one_rank_alone_is_said_by_that_rank():
    assert outcome("raise OSError(errno.ENOSPC, 'x')", RANK="2")[1].startswith("synclones: error: rank 2: ")
    assert outcome("raise VerificationError('x')", RANK="2") == (3, "synclones: error: rank 2: x\n")


def test_a_reader_that_has_read_enough_is_no_error():
    assert outcome("raise BrokenPipeError(errno.EPIPE, 'pipe')") == (0, "")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM, errno.EMFILE])
def test_what_the_operating_system_blames_on_storage_is_the_machines_failure(number):
    assert isinstance(as_synclones_error(OSError(number, "x", "/data")), MachineError)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "x"), ValueError("x"), AssertionError("x"), RuntimeError("x")])
def test_everything_else_is_a_bug(error):
    assert as_synclones_error(error) is None


def test_gpu_memory_is_recognised_without_importing_torch():
    class OutOfMemoryError(RuntimeError):
        """Torch's has this name."""

    assert isinstance(as_synclones_error(OutOfMemoryError("CUDA")), MachineError)


def test_errors_keep_their_codes_and_users_mistakes_are_value_errors():
    assert [kind.exit_code for kind in (InputError, VerificationError, MachineError)] == [2, 3, 4]
    assert issubclass(InputError, ValueError)
    assert Stopped(signal.SIGTERM, "go on").exit_code == 143
