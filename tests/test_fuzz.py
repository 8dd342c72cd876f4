"""Whatever bytes a file holds, a reader gives a value or one of our errors: mutations of every kind of file."""

import json
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run_command
from fuzz_targets import TARGETS

HARNESS = Path(__file__).with_name("fuzz_harness.py")


def _fuzz(seed: int, examples: int, *targets: str) -> dict[str, dict]:
    command = (sys.executable, str(HARNESS), str(seed), str(examples), *targets)
    done = run_command(*command, cwd=ROOT, timeout_s=2700)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.timeout(2800)
@pytest.mark.parametrize(("seed", "examples"), [(0, 40), pytest.param(1, 1500, marks=pytest.mark.slow)])
def test_only_values_and_our_own_errors_come_out_of_damaged_files(seed, examples):
    found = _fuzz(seed, examples)
    assert set(found) == set(TARGETS)
    assert {name: report["failures"] for name, report in found.items() if report["failures"]} == {}
    refused = [name for name, report in found.items() if report.get("refused")]
    assert set(TARGETS) - set(refused) == {"kept test set", "lease"}, "these are ignored where they are not sound"


def test_a_naive_reader_does_not_survive_the_same_files():
    """The must-fail twin: json and Parquet read as their libraries give them."""
    found = _fuzz(0, 40, "naive plan", "naive sidecar")
    assert all(report["failed"] >= 8 for report in found.values()), found
