"""Trainings of the code before this layout: a stopped one goes on to the same weights, a finished one is complete."""

import json
import shutil
from importlib.metadata import version

import pytest
from test_house import ROOT

from synclones.base.errors import InputError
from synclones.base.files import sha256_file
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


def test_a_stopped_run_goes_on_to_the_weights_it_would_have_had(earlier):
    folder, same_versions = earlier
    if not same_versions:
        with pytest.raises(InputError, match="belongs to another training: versions"):
            _train(folder, "stopped-run")
        return
    _train(folder, "stopped-run")
    for name in ("export/model.safetensors", "checkpoints/step-00000012/model.safetensors", "metrics.jsonl"):
        assert sha256_file(folder / "stopped-run" / name) == sha256_file(EARLIER / "run" / name), name
    assert (folder / "stopped-run" / "plan.json").read_bytes() == (EARLIER / "run" / "plan.json").read_bytes()
    states = [
        json.loads(next(run.glob("checkpoints/*12/state.json")).read_text())
        for run in (folder / "stopped-run", EARLIER / "run")
    ]
    assert states[0] == {"format": 1, **states[1]}


def test_a_finished_run_is_complete_and_its_parts_are_read(earlier, capsys):
    folder, same_versions = earlier
    if same_versions:
        _train(folder, "run")
        assert "complete, 12 steps; nothing to do" in capsys.readouterr().err
    assert newest_checkpoint(folder / "run" / "checkpoints").step == 12
    assert load_classifier(folder / "run")[0].class_ids == tuple("0123456789")
    assert [step for step, _ in list_checkpoints(folder / "stopped-run" / "checkpoints")] == [8]
