"""Trainings of earlier code: a stopped one whose rules are no more is refused, a finished one is complete."""

import json
import shutil
from importlib.metadata import version

import pytest
from test_house import ROOT

from synclones.base.errors import InputError
from synclones.models.folder import load_classifier
from synclones.train.checkpoint import list_checkpoints, newest_checkpoint
from synclones.train.run import main

EARLIER = ROOT / "tests" / "earlier"


@pytest.fixture
def earlier(tmp_path):
    """The set and the two runs where a test may write, and whether their plans are of the installed libraries."""
    for name in ("set", "run", "stopped-run"):
        shutil.copytree(EARLIER / name, tmp_path / name)
    versions = json.loads((EARLIER / "run" / "plan.json").read_text())["versions"]
    return tmp_path, all(version(name) == stated for name, stated in versions.items())


def _train(folder, name: str) -> None:
    run = folder / name
    main(["--config", str(run / "config.yaml"), "--data", str(folder / "set"), "--out", str(run)])


def test_a_stopped_run_of_other_rules_is_not_continued_by_these(earlier):
    folder, _ = earlier
    before = {path: path.read_bytes() for path in (folder / "stopped-run").rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="begun by a version with other rules .*; .* another --out"):
        _train(folder, "stopped-run")
    assert before == {path: path.read_bytes() for path in (folder / "stopped-run").rglob("*") if path.is_file()}
    assert newest_checkpoint(folder / "stopped-run" / "checkpoints").step == 8


def test_a_finished_run_is_complete_and_its_parts_are_read(earlier, capsys):
    folder, same_versions = earlier
    if same_versions:
        _train(folder, "run")
        assert "complete, 12 steps; nothing to do" in capsys.readouterr().err
    assert newest_checkpoint(folder / "run" / "checkpoints").step == 12
    assert load_classifier(folder / "run")[0].class_ids == tuple("0123456789")
    assert [step for step, _ in list_checkpoints(folder / "stopped-run" / "checkpoints")] == [8]
