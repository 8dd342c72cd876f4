"""Parity: verdicts are those of two one-sided tests, and both sides of every row train and are scored."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_ind

PARITY = Path(__file__).resolve().parents[1] / "benchmarks" / "parity"


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch):
    """The folder's modules, as its own command sees them."""
    monkeypatch.syspath_prepend(str(PARITY))
    import equivalence
    import peer_multipositive
    import rows

    yield {"equivalence": equivalence, "rows": rows, "peer_multipositive": peer_multipositive}
    for name in ("equivalence", "rows", "peer_multipositive"):
        sys.modules.pop(name, None)


def test_verdicts_are_those_of_two_one_sided_welch_tests(parity):
    compare = parity["equivalence"].compare
    rng = np.random.default_rng(0)
    for shift, spread in ((0.0, 0.1), (0.2, 0.15), (0.45, 0.2), (-0.6, 0.1), (2.0, 0.3)):
        ours, peers = rng.normal(80 + shift, spread, 5), rng.normal(80, 2 * spread, 4)
        result = compare(ours, peers, 0.5)
        below = ttest_ind(ours, peers - 0.5, equal_var=False, alternative="greater").pvalue
        above = ttest_ind(ours, peers + 0.5, equal_var=False, alternative="less").pvalue
        assert result.p_value == pytest.approx(max(below, above), abs=1e-9)
        interval = ttest_ind(ours, peers, equal_var=False).confidence_interval(0.9)
        assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
        assert (result.verdict == "equivalent") == (-0.5 < result.low and result.high < 0.5)


def test_a_difference_beyond_the_margin_and_too_few_trainings_are_told_apart(parity):
    compare = parity["equivalence"].compare
    assert compare([80.0, 80.1, 79.9], [80.0, 80.1, 79.9], 0.5).verdict == "equivalent"
    assert compare([82.0, 82.1, 81.9], [80.0, 80.1, 79.9], 0.5).verdict.startswith("not equivalent: ours is 2.00 above")
    assert compare([78.0, 78.1, 77.9], [80.0, 80.1, 79.9], 0.5).verdict.startswith("not equivalent: ours is 2.00 below")
    assert compare([80.0, 81.5], [80.0, 79.0], 0.5).verdict.startswith("undecided")
    with pytest.raises(ValueError, match="1 and 1 trainings"):
        compare([80.0], [80.0], 0.5)


def test_the_formula_of_the_peer_is_its_definition(parity):
    """A row at a time, over its positives, as StableRep's equation 2 reads."""
    import torch
    import torch.nn.functional as F

    rows = F.normalize(torch.randn(10, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    losses = []
    for i in range(10):
        others = [j for j in range(10) if j != i]
        total = torch.log(sum(torch.exp(rows[i] @ rows[j] / 0.1) for j in others))
        positives = [j for j in others if labels[j] == labels[i]]
        losses.append(sum(total - rows[i] @ rows[j] / 0.1 for j in positives) / len(positives))
    expected = torch.stack(losses).mean()
    assert parity["peer_multipositive"].loss_of(rows, labels, 0.1) == pytest.approx(float(expected), rel=1e-6)


def test_peers_know_nothing_of_ours():
    for script in PARITY.glob("peer_*.py"):
        assert "synclones" not in script.read_text(), script.name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_sides_of_rows_train_and_are_scored_and_nothing_is_done_twice(tmp_path: Path):
    """One epoch of the rows whose peers run in this environment; open_clip's trainer needs another webdataset."""
    command = [sys.executable, str(PARITY / "run.py"), "--epochs", "1", "--seeds", "2", "--out", str(tmp_path)]
    command += ["--rows", "supervised", "multipositive", "probe"]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr[-2000:]
    lines = (tmp_path / "records.csv").read_text().splitlines()
    results = list(csv.DictReader(lines))
    assert len(results) == 2 * 4 + 2 + 1  # the peer of the probe has no seed
    assert all(5 <= float(result["accuracy"]) <= 100 for result in results)
    table = [line for line in first.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 3
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.stdout.splitlines() == table
    # Another folder with these lines trains nothing, and its table is the same.
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "records.csv", tmp_path / "elsewhere")
    command[command.index(str(tmp_path))] = str(tmp_path / "elsewhere")
    command = [*command[: command.index("--rows")], "--rows", "supervised", "multipositive"]
    third = subprocess.run(command, capture_output=True, text=True)
    assert third.stdout.splitlines() == table, third.stderr[-2000:]
    assert (tmp_path / "elsewhere" / "records.csv").read_text().splitlines() == lines
