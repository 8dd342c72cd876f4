"""Trainings of earlier code: a stopped one whose rules are no more is refused, a finished one is complete."""

import json
import shutil
from importlib.metadata import version

import pytest
from test_house import ROOT

from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.models.folder import load_classifier
from synclones.train.recovery.checkpoint import newest_checkpoint
from synclones.train.recovery.folder_names import list_checkpoints
from synclones.train.run import main

EARLIER = ROOT / "tests" / "earlier"


@pytest.fixture
def earlier(tmp_path):
    """The set and the two runs where a test may write, and whether their plans are of the installed libraries."""
    for name in ("set", "run", "stopped-run"):
        shutil.copytree(EARLIER / name, tmp_path / name)
    versions = json.loads((EARLIER / "run" / "plan.json").read_text())["versions"]
    return tmp_path, all(version(name) == stated for name, stated in versions.items())


def _train(folder, name: str, *flags: str) -> None:
    run = folder / name
    main(["--config", str(run / "config.yaml"), "--data", str(folder / "set"), "--out", str(run), *flags])


def test_a_stopped_run_of_other_rules_is_not_continued_by_these(earlier):
    folder, _ = earlier
    before = {path: path.read_bytes() for path in (folder / "stopped-run").rglob("*") if path.is_file()}
    with pytest.raises(
        InputError,
        match="begun by a version of other rules .1, these are 3: crops, weight decay or order ",
    ):
        _train(folder, "stopped-run")
    assert before == {path: path.read_bytes() for path in (folder / "stopped-run").rglob("*") if path.is_file()}
    assert newest_checkpoint(folder / "stopped-run" / "checkpoints").step == 8


def _as_of_rules_2(run) -> None:
    """Make a run one of rules 2, which had the same settings as rules 1."""
    plan = json.loads((run / "plan.json").read_text()) | {"rules": 2}
    (run / "plan.json").write_text(json.dumps(plan))
    if (run / "manifest.json").exists():
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["plan_id"] = sha256_bytes(canonical_json(plan))[:16]
        (run / "manifest.json").write_text(json.dumps(manifest))


def test_runs_of_the_rules_before_these_are_told_by_the_same_sentence(earlier, capsys):
    folder, same_versions = earlier
    for name in ("run", "stopped-run"):
        _as_of_rules_2(folder / name)
    with pytest.raises(InputError, match="of other rules .2, these are 3: crops, weight decay or order differ"):
        _train(folder, "stopped-run")
    if same_versions:
        _train(folder, "run")
        assert "complete, 12 steps; nothing to do" in capsys.readouterr().err
        with pytest.raises(InputError, match="belongs to another training: decode"):
            _train(folder, "run", "--decode", "fast")


def test_a_finished_run_is_complete_and_its_parts_are_read(earlier, capsys):
    folder, same_versions = earlier
    if same_versions:
        _train(folder, "run")
        assert "complete, 12 steps; nothing to do" in capsys.readouterr().err
    assert newest_checkpoint(folder / "run" / "checkpoints").step == 12
    assert load_classifier(folder / "run")[0].class_ids == tuple("0123456789")
    assert [step for step, _ in list_checkpoints(folder / "stopped-run" / "checkpoints")] == [8]
