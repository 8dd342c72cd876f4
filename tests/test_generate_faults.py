"""A disk that refuses the k-th call, or a kill in it, for every k: no wrong final file, and the rerun ends whole."""

import json
import sys
from pathlib import Path

import pytest
from conftest import NOTES, QUICK, ROOT, identity, run_command

HARNESS = Path(__file__).with_name("fault_harness.py")


def _faults(tmp_path, prompts, stride: int, *naive: str) -> dict:
    command = (sys.executable, str(HARNESS), str(tmp_path), str(prompts), str(stride), *naive)
    done = run_command(*command, cwd=ROOT, timeout_s=1500)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.strace
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("stride", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_a_disk_that_fails_never_leaves_a_wrong_file(prompts, tmp_path, stride):
    found = _faults(tmp_path, prompts, stride)
    NOTES.append(f"faults injected into generations, by call: {found['runs']}")
    assert all(found["runs"][call] for call in ("write", "fsync", "rename", "ftruncate", "unlink"))
    assert found["wrong"] == [] and found["broken"] == [] and found["leftovers"] == []
    ends = {how.split(": ")[1] for how, times in found["codes"].items() if times}
    assert ends <= {"0", "4", "-9"}, f"a failing disk is the machine's failure, no bug: {found['codes']}"


@pytest.mark.strace
def test_a_naive_writer_leaves_wrong_files_behind(prompts, tmp_path):
    found = _faults(tmp_path, prompts, 6, "naive")
    assert found["wrong"] or found["broken"]


@pytest.mark.strace
@pytest.mark.parametrize(
    "error", ["ENOLCK", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ENOSYS", "EOPNOTSUPP"))]
)
def test_a_file_system_without_locks_is_drawn_on_by_one_process_that_says_so(prompts, dataset, tmp_path, error):
    """Lustre without -o flock, NFS without lockd, FUSE."""
    tampered = f"-e trace=flock -e inject=flock:error={error}".split()
    without = ("strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", *tampered)
    command = (*without, sys.executable, str(ROOT / "generate" / "run.py"), "--prompts", str(prompts), *QUICK)
    done = run_command(*command, "--out", "x", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning: x: this file system has no locks; let only one command at a time write there" in done.stderr
    assert identity(tmp_path / "x") == identity(dataset)
    if error == "ENOLCK":
        two = run_command(*command, "--out", "y", cwd=tmp_path, RANK="0", WORLD_SIZE="2")
        assert two.returncode == 2 and "no locks to keep processes apart; start one process" in two.stderr
        assert not (tmp_path / "y" / "plan.json").exists()
