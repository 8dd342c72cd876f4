"""Grids in the lab: its captions fit the recipe that reads them, and a tiny grid runs from nothing to results."""

import csv
import json
from pathlib import Path

import pytest

from synclones.ablate.gather import gather
from synclones.ablate.run import planned
from synclones.ablate.settings import PlanConfig
from synclones.base.errors import InputError
from synclones.cli import dispatch


def test_the_labs_captions_make_a_table_of_every_class(tmp_path, capsys):
    dispatch(["ablate", "lab", "--set", "captions", "--out", f"{tmp_path}/captions"])
    rows = list(csv.DictReader((tmp_path / "captions" / "captions.csv").open()))
    assert sorted({row["class"] for row in rows}) == [str(digit) for digit in range(10)] and len(rows) == 540
    given = ("--recipe", "captions", "--captions", f"{tmp_path}/captions/captions.csv", "--classes", "lab-digits")
    dispatch(["prompts", "build", *given, "--num-images", "40", "--out", f"{tmp_path}/table.parquet"])
    before = (tmp_path / "captions" / "captions.csv").read_bytes()
    dispatch(["ablate", "lab", "--set", "captions", "--out", f"{tmp_path}/captions"])
    assert (tmp_path / "captions" / "captions.csv").read_bytes() == before


def test_names_are_a_list_by_which_a_training_classifies(tmp_path):
    dispatch(["ablate", "names", "--classes", "lab-digits", "--out", f"{tmp_path}/names.csv"])
    rows = list(csv.DictReader((tmp_path / "names.csv").open()))
    assert [row["class_id"] for row in rows] == [str(digit) for digit in range(10)] and rows[3]["name"] == "three"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_tiny_grid_runs_from_nothing_and_another_shares_what_it_drew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = ["--world", "lab", "--scale", "1/7000", "--seeds", "1", "--only", "images=1M,4M", "prompts=class name"]
    dispatch(["ablate", "run", "table6", *chosen, "--out", "store"])
    config = PlanConfig(
        grid="table6", scale="1/7000", seeds=1, only=("images=1M,4M", "prompts=class name"), out=Path("store")
    )
    results = gather(*planned(config))
    assert [cell.missing for cell in results.cells] == ["", ""] and results.columns[0] == "accuracy"
    for cell in results.cells:
        assert cell.results is not None and (cell.results / "results.jsonl").exists()
        assert cell.images["drawn"].is_dir() and set(cell.cost) == {"prompts", "images", "clone", "results", "real"}
    (drawn,) = (tmp_path / "store" / "steps" / "images").glob("*.step.json")
    assert json.loads(drawn.read_text())["size"] == 571
    # A larger one lets the set grow; what was trained on its first images stays done.
    clones = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "steps" / "clone").glob("*.step.json")}
    larger = [*chosen[:-2], "images=1M,4M,8M", "prompts=class name"]
    dispatch(["ablate", "run", "table6", *larger, "--out", "store"])
    assert json.loads(drawn.read_text())["size"] == 1143
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "steps" / "clone").glob("*.step.json")}
    assert len(after) == 3 and clones.items() <= after.items()
    # What is damaged by hand is told of by the command's own line.
    for path in (tmp_path / "store" / "steps" / "results").glob("*.step.json"):
        path.unlink()
    for path in (tmp_path / "store" / "steps" / "clone").glob("*/export/model.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="3 of 3 cells are not computed; the first: evaluate: "):
        dispatch(["ablate", "run", "table6", *larger, "--out", "store"])
