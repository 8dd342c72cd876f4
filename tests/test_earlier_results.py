"""Results of the code before this layout: measured again they are the same, and further models join them."""

import json
import re
import shutil

import pytest
from test_house import ROOT

from synclones.base.manifest import trace
from synclones.evaluate.reports.tables import TRAINED
from synclones.evaluate.run import main
from synclones.evaluate.stored.results import CELL_NAME, cell_files

EARLIER = ROOT / "tests" / "earlier"
TABLES = ("results.jsonl", "table.csv", "table.md")


@pytest.fixture
def inputs(tmp_path):
    """The run and the set that the results are of, and the results, where a test may write."""
    for name in ("run", "set", "results"):
        shutil.copytree(EARLIER / name, tmp_path / name)
    return tmp_path


def _evaluate(inputs, model: str, out: str) -> None:
    flags = ("--data", str(inputs / "set"), "--out", str(inputs / out), "--torch-threads", "1")
    main(["--model", str(inputs / model), *flags])


def test_a_fresh_evaluation_gives_the_same_cells(inputs):
    _evaluate(inputs, "run", "fresh")
    earlier, fresh = cell_files(inputs / "results"), cell_files(inputs / "fresh")
    assert earlier.keys() == fresh.keys() and len(fresh) == 6
    assert {path.name for path in earlier.values()} == {f"{key}.json" for key in earlier}, "names were keys alone"
    same_bits = True
    for cell in fresh:
        theirs, ours = (json.loads(files[cell].read_text()) for files in (earlier, fresh))
        same_bits &= theirs.pop("versions")["torch"] == ours.pop("versions")["torch"]
        for key in ("value", "ci_low", "ci_high"):
            # Another torch, or a CPU with other instructions, rounds otherwise.
            same_bits &= ours[key] == theirs[key]
            assert ours.pop(key) == pytest.approx(theirs.pop(key), abs=1e-6)
        assert ours.pop("trained_on_test") is True  # its run's manifest names the set, and nobody asked then
        assert len(ours.pop("sha256")) == 64 and (theirs["metric"] != "ece" or 0 < ours.pop("faultless") < 1)
        assert (ours.pop("protocol"), theirs.pop("protocol")) == ("corrected", "paper")  # the word changed its meaning
        assert ours == theirs
    for name in TABLES:
        text = as_earlier((inputs / "fresh" / name).read_text())
        earlier = (EARLIER / "results" / name).read_text()
        assert text == earlier if same_bits else re.sub(r"\d", "", text) == re.sub(r"\d", "", earlier), name


def as_earlier(text: str) -> str:
    """Take out what tables say since then: what a calibrated model would show, and that the model knows the images."""
    text = text.replace(f" **({TRAINED})**", "").replace(',"trained_on_test":true', "")
    text = re.sub(r" Trained on this set: .*", "", text)
    text = re.sub(r",(trained_on_test|True)$", "", text, flags=re.M)
    text = text.replace('"protocol":"corrected"', '"protocol":"paper"')
    text = re.sub(r", calibrated \d+\.\d| Calibrated: .*", "", text)
    text = re.sub(r'"faultless":[\d.]+,', "", text)
    return re.sub(r"(weights_sha256|[0-9a-f]{64}),(faultless|[\d.]*)$", r"\1", text, flags=re.M)


def test_its_logits_and_cells_are_taken_as_they_are(inputs, monkeypatch):
    import synclones.evaluate.predict as predict

    monkeypatch.setattr(predict, "_predict_batch", lambda *a: pytest.fail("a forward pass"))
    _evaluate(inputs, "run", "results")
    for name in TABLES:
        assert as_earlier((inputs / "results" / name).read_text()) == (EARLIER / "results" / name).read_text()
    measured = {path.name: json.loads(path.read_text()) for path in (EARLIER / "results").glob("*.json")}
    for name in filter(CELL_NAME.fullmatch, measured):
        now = json.loads((inputs / "results" / name).read_text())
        assert now.pop("trained_on_test") is True and len(now.pop("sha256")) == 64 and now == measured[name]


def test_a_second_model_joins_its_tables(inputs):
    from safetensors.torch import load_file, save_file

    shutil.copytree(inputs / "run", inputs / "second")
    weights = inputs / "second" / "export" / "model.safetensors"
    save_file({name: -tensor for name, tensor in load_file(weights).items()}, weights)
    (inputs / "second" / "manifest.json").unlink()
    _evaluate(inputs, "second", "results")
    lines = as_earlier((inputs / "results" / "results.jsonl").read_text()).splitlines()
    earlier = (EARLIER / "results" / "results.jsonl").read_text().splitlines()
    assert len(lines) == 12 and set(earlier) < set(lines)
    table = as_earlier((inputs / "results" / "table.md").read_text())
    assert "| run | 15.0 [5.2, 36.0] |" in table and "| second |" in table
    assert "second" in trace(inputs / "results")
