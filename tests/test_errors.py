"""Exit codes: each kind of failure ends the process with its code and one line, and a bug keeps its traceback."""

import errno
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from synclones.base.errors import InputError, MachineError, Stopped, VerificationError, as_synclones_error

SCRIPT = """
import errno, os, signal, sys, time
from synclones.base.errors import *
from synclones.base.process import *
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
            "free the resource and run the same command again to resume\n",
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


def test_a_working_directory_that_is_gone_is_refused_before_a_library_ends_the_process(tmp_path):
    (tmp_path / "gone").mkdir()
    begin = f"import os\nos.chdir({str(tmp_path / 'gone')!r})\nos.rmdir(os.getcwd())\n"
    command = [sys.executable, "-c", begin + SCRIPT.format(body="print('began')")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("synclones: error: the working directory was removed; ")


def test_only_rank_0_prints_but_every_rank_fails():
    assert outcome("raise InputError('x')", RANK="1", WORLD_SIZE="4") == (2, "")
    assert outcome("raise InputError('x')", RANK="0") == (2, "synclones: error: x\n")


def test_what_may_happen_to_one_rank_alone_is_said_by_that_rank():
    assert outcome("raise OSError(errno.ENOSPC, 'x')", RANK="2", WORLD_SIZE="4")[1].startswith(
        "synclones: error: rank 2: "
    )
    assert outcome("raise VerificationError('x')", RANK="2", WORLD_SIZE="4") == (3, "synclones: error: rank 2: x\n")


def test_a_pipe_that_breaks_elsewhere_is_no_reader_that_has_read_enough():
    code, text = outcome("raise BrokenPipeError(errno.EPIPE, 'pipe')")
    assert code == 4 and text.startswith("synclones: error: Broken pipe; ")


STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOMEM, errno.EMFILE, errno.EFBIG, errno.ENOLCK)
STORAGE += (errno.ENOSYS, errno.EOPNOTSUPP, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ENETUNREACH)


@pytest.mark.parametrize("number", STORAGE)
def test_what_the_operating_system_blames_on_storage_is_the_machines_failure(number):
    assert isinstance(as_synclones_error(OSError(number, "x", "/data")), MachineError)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "x"), ValueError("x"), AssertionError("x"), RuntimeError("x")])
def test_everything_else_is_a_bug(error):
    assert as_synclones_error(error) is None


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
        ImportError("libtorch_cuda.so: failed to map segment from shared object"),
        RuntimeError("[../gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:2123"),
        type("DistNetworkError", (RuntimeError,), {})("The server socket has failed to listen"),
    ],
)
def test_what_libraries_say_of_the_machine_is_the_machines_failure(error):
    assert isinstance(as_synclones_error(error), MachineError)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EACCES])
def test_what_the_operating_system_says_of_a_path_is_the_users_to_mend(number):
    known = as_synclones_error(OSError(number, "x", "/data/x"))
    assert isinstance(known, InputError) and str(known).startswith("/data/x: ")


def test_gpu_memory_is_recognised_without_importing_torch():
    class OutOfMemoryError(RuntimeError):
        """Torch's has this name."""

    assert isinstance(as_synclones_error(OutOfMemoryError("CUDA")), MachineError)


def test_errors_keep_their_codes_and_users_mistakes_are_value_errors():
    assert [kind.exit_code for kind in (InputError, VerificationError, MachineError)] == [2, 3, 4]
    assert issubclass(InputError, ValueError)
    assert Stopped(signal.SIGTERM, "go on").exit_code == 143


# ------------------------------------------------------------------ signals and streams of a job

SWALLOWING = """
while True:
    try:
        time.sleep(0.001)
    except Exception:
        pass
"""


READY = "print('ready', flush=True)"


def started(body: str, **options: object) -> subprocess.Popen:
    """A process whose main is ``body`` after `stop_on_signals`, when it has said that it is ready."""
    ready = body if READY in body else f"{READY}\n{body}"
    lines = "".join(f"\n    {line}" for line in f"stop_on_signals()\n{ready}".splitlines())
    script = SCRIPT.format(body=lines)
    heard = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # whatever `nohup` the tests run under
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heard, **options)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_library_that_passes_over_exceptions_does_not_swallow_a_signal(number):
    process = started(SWALLOWING, stderr=subprocess.PIPE)
    process.send_signal(number)
    _, text = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert text == f"synclones: error: stopped by signal {int(number)}; run the same command again to resume\n"


def test_two_signals_at_once_are_one_stop_without_a_traceback():
    for first, second in ((signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)) * 5:
        process = started(SWALLOWING, stderr=subprocess.PIPE)
        process.send_signal(first)
        process.send_signal(second)
        _, text = process.communicate(timeout=20)
        assert process.returncode in (130, 143)
        assert "Traceback" not in text and text.count("stopped by signal") == 1


def test_a_block_that_stops_between_steps_ends_its_step_and_a_second_signal_does_not_wait():
    loop = "while True:\n        time.sleep(0.3)\n        print('step', flush=True)\n"
    steps = f"with stopping_between_steps():\n    {READY}\n    {loop}"
    patient = started(f"{steps}        stop_if_asked()", stderr=subprocess.PIPE)
    patient.send_signal(signal.SIGTERM)
    out, text = patient.communicate(timeout=20)
    assert (patient.returncode, out) == (143, "step\n") and text.count("stopped by signal 15") == 1
    deaf = started(steps, stderr=subprocess.PIPE)
    deaf.send_signal(signal.SIGTERM)
    time.sleep(0.4)
    assert deaf.poll() is None
    deaf.send_signal(signal.SIGTERM)
    deaf.communicate(timeout=20)
    assert deaf.returncode == 143


def test_a_signal_that_a_block_did_not_look_for_is_not_lost():
    body = f"with stopping_between_steps():\n    {READY}\n    time.sleep(0.5)\nos._exit(7)"
    process = started(body, stderr=subprocess.PIPE)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=20)
    assert process.returncode == 143 and text.count("stopped by signal 15") == 1


def test_a_jobs_child_that_hears_no_signal_goes_when_its_parent_is_killed():
    """As one that waits for others inside a library: here the signal of the parent's death is blocked."""
    child = (
        "import signal, sys, time; import synclones.base.process as p; p.ORPHAN_GRACE_S = 1.0; p.stop_on_signals()\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); print('up', flush=True); time.sleep(60)"
    )
    code = (
        "import os, subprocess, sys, time\n"
        "os.environ['TORCHELASTIC_RUN_ID'] = 'x'\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    parent = started(code)
    assert parent.stdout is not None
    number = int(parent.stdout.readline())
    parent.kill()
    deadline = time.monotonic() + 20
    while _is_running(number) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_running(number)


def _is_running(number: int) -> bool:
    """Whether a process is there, and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_jobs_child_goes_when_its_parent_is_killed():
    child = "stop_on_signals(); print(os.getpid(), flush=True); time.sleep(60)"
    code = (
        "import subprocess; code = " + repr(SCRIPT.format(body=child)) + "\n"
        "subprocess.run([sys.executable, '-c', code], env=childs_environment())"
    )
    parent = started(code)
    assert parent.stdout is not None
    number = int(parent.stdout.readline())
    parent.kill()
    for _ in range(100):
        if not os.path.exists(f"/proc/{number}") or "Z (" in open(f"/proc/{number}/stat").read():
            return
        time.sleep(0.1)
    os.kill(number, signal.SIGKILL)
    raise AssertionError("the child lives on")


def test_a_command_and_its_child_say_one_line_when_the_command_is_stopped():
    child = "stop_on_signals(); print('up', flush=True); time.sleep(60)"
    code = (
        "import subprocess; code = " + repr(SCRIPT.format(body=child)) + "\n"
        "subprocess.run([sys.executable, '-c', code], env=childs_environment())"
    )
    parent = started(code, stderr=subprocess.PIPE)
    assert parent.stdout is not None and parent.stdout.readline() == "up\n"
    parent.send_signal(signal.SIGTERM)
    _, text = parent.communicate(timeout=30)  # until the child too has closed its streams
    assert parent.returncode == 143 and text.count("synclones: error: stopped by signal 15") == 1, text


def test_a_job_goes_on_when_nobody_reads_its_lines_and_a_list_ends():
    reader, writer = os.pipe()
    os.close(reader)
    body = "stop_on_signals()\n    for _ in range(9): print('x' * 9000, flush=True); print('y', file=sys.stderr)\n"
    job = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=f"{body}    os._exit(7)")], stdout=writer, stderr=writer, timeout=60
    )
    assert job.returncode == 7  # it came to its end
    lister = "for _ in range(9): print('x' * 9000, flush=True)\n    os._exit(7)"
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(body=lister)], stdout=writer, timeout=60)
    assert done.returncode == 0


@pytest.mark.parametrize("job", ["", "stop_on_signals(); "])
def test_a_console_that_lacks_a_character_gets_its_escape(job):
    code, text = outcome(
        f"{job}print('\\u00e9', file=sys.stderr); raise InputError('caf\\u00e9')", PYTHONIOENCODING="ascii"
    )
    assert code == 2 and text == "\\xe9\nsynclones: error: caf\u00e9\n"


def test_closed_standard_streams_do_not_become_other_files(tmp_path):
    kept = tmp_path / "kept"
    body = f"print('b', file=sys.stderr); f = open({str(kept)!r}, 'w'); os.write(2, b'x'); raise InputError('x')"
    process = subprocess.run(["sh", "-c", '"$0" -c "$1" >&- 2>&- <&-', sys.executable, SCRIPT.format(body=body)])
    assert process.returncode == 2 and kept.read_text() == ""


def test_a_signal_after_the_end_leaves_no_traceback():
    script = SCRIPT.format(body="stop_on_signals()") + "\nos.kill(os.getpid(), signal.SIGTERM)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM and done.stderr == ""
