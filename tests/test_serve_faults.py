"""The browser: faults that a review found, each with what is right."""

import json
import os
import re
import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import synclones
from serve_world import EARLIER, hostile_sample, serving, write_hostile_set
from shard_helpers import PLAN

from synclones.base.manifest import find_parent
from synclones.serve.dataset import Dataset, Datasets
from synclones.serve.folders import Folder, Folders
from synclones.serve.pages.curves import curve
from synclones.serve.pages.image import image_page
from synclones.serve.pages.images import images_page
from synclones.serve.pages.results import results_page
from synclones.serve.pages.runs import runs_page
from synclones.serve.search import Wanted, search
from synclones.shards.schema import shard_name
from synclones.shards.write import ShardWriter
from synclones.train.progress import logged


@pytest.mark.parametrize("number", ["9" * 19, "9" * 5000])
def test_a_class_number_beyond_all_classes_is_said_to_be_none(tmp_path, number):
    write_hostile_set(tmp_path / "set")
    folder, folders = Folder("set", tmp_path / "set", "set"), Folders([tmp_path / "set"])
    shown = images_page(folder, Dataset(folder.path), [("class", number)], folders)
    assert shown.status == 400 and b"not in this set" in shown.page


def test_the_command_for_a_run_that_was_moved_names_the_folder_it_is_in_now(tmp_path, monkeypatch):
    shutil.copytree(EARLIER / "stopped-run", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    folders = Folders([Path("moved")])
    page = runs_page(folders.of_kind("run"), folders, []).page.decode()
    assert "<pre>synclones train --config moved/config.yaml --out moved</pre>" in page


def test_a_parent_in_a_closed_folder_is_not_found_and_nothing_fails(tmp_path, monkeypatch):
    from pathlib import Path

    closed, real = tmp_path / "closed", Path.exists

    def exists(path):
        if path.is_relative_to(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "exists", exists)
    assert find_parent(tmp_path, str(closed / "prompts.parquet")) is None
    assert find_parent(tmp_path, "x" * 5000) is None


def test_a_folder_whose_name_is_no_text_hides_no_other(tmp_path):
    write_hostile_set(tmp_path / "data" / "good")
    shutil.copytree(tmp_path / "data" / "good", os.fsdecode(os.fsencode(tmp_path / "data") + b"/caf\xe9"))
    with serving("data", cwd=tmp_path) as running:
        assert "data/good" in running.page("/").text


def test_a_damaged_shard_hides_no_other(tmp_path):
    write_hostile_set(tmp_path / "set")
    damaged = tmp_path / "set" / "train-00000.parquet"
    data = bytearray(damaged.read_bytes())
    data[100] ^= 1
    damaged.write_bytes(data)
    with serving("set", cwd=tmp_path) as running:
        assert running.page("/images", folder="set", **{"from": 80}).indices()[:2] == [80, 81]
        assert 'name="score"' in running.page("/images", folder="set", **{"from": 80}).text
        assert running.page("/image", folder="set", index=120).status == 200
        assert running.page("/image", folder="set", index=80).status == 200
        first = running.ask("/images?folder=set")
        assert first.status == 500 and "missing or damaged" in first.text and 'name="from"' in first.text
        assert running.ask("/image?folder=set&index=3").status == 500


def test_a_log_that_grows_while_it_is_read_is_read(tmp_path, monkeypatch):
    from synclones.train import progress

    log, read = tmp_path / "m.jsonl", progress.read_regular
    log.write_text('{"step": 1}\n')

    def late(path, most):
        with open(path, "a") as file:
            file.write('{"step": 2}\n')
        return read(path, most)

    monkeypatch.setattr(progress, "read_regular", late)
    assert [record["step"] for record in logged(log)] == [1, 2]


def test_a_folder_of_thousands_hides_no_run(tmp_path):
    for number in range(2100):
        (tmp_path / "imagenet" / f"n{number:08d}").mkdir(parents=True)
    shutil.copytree(EARLIER / "run", tmp_path / "runs" / "x")
    shutil.copytree(EARLIER / "run", tmp_path / "runs" / "a")
    assert [folder.path.name for folder in Folders([tmp_path]).all().values()] == ["a", "x"]


def test_a_side_column_called_as_a_fact_hides_it_not(tmp_path):
    write_hostile_set(tmp_path / "set")
    rows = {"key": [f"{i:010d}" for i in range(160)], "class": [f"by hand {i}" for i in range(160)]}
    pq.write_table(pa.table(rows), tmp_path / "c.parquet")
    assert (
        synclones("shards", "annotate", "set", "--from", "c.parquet", "--columns", "class", cwd=tmp_path).returncode
        == 0
    )
    text = image_page(Folder("set", tmp_path / "set", "set"), Dataset(tmp_path / "set"), 6).decode()
    assert "<th>class</th><td>by hand 6</td>" in text and re.search(r"<th>class</th><td><a [^>]*class=2", text)


def test_scores_are_offered_as_soon_as_there_are_some(tmp_path):
    folder, datasets = tmp_path / "set", Datasets()
    folder.mkdir()
    (folder / "plan.json").write_text(json.dumps({"plan_id": PLAN, "num_shards": 1}))
    with ShardWriter(folder, shard_name("train", 0, 1), PLAN) as writer:
        assert datasets.get(folder).score_names == []
        writer.add_batch(0, [hostile_sample(index) for index in range(12)])
        assert datasets.get(folder).score_names == ["clip:x"]


def test_a_shard_that_is_finished_during_a_search_is_searched(tmp_path):
    (tmp_path / "plan.json").write_text(
        json.dumps({"plan_id": PLAN, "num_shards": 1, "prompts_sha256": "x", "images_per_shard": 12})
    )
    with ShardWriter(tmp_path, shard_name("train", 0, 1), PLAN) as writer:
        writer.add_batch(0, [hostile_sample(index) for index in range(12)])
        dataset = Dataset(tmp_path)
        writer.finish()
    assert [row["index"] for row in search(dataset, Wanted(), 0, 60).rows] == list(range(12))
    assert dataset.sample(3) == hostile_sample(3)


def test_a_score_too_large_to_be_shown_is_none(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"plan_id": PLAN, "num_shards": 1}))
    with ShardWriter(tmp_path, shard_name("train", 0, 1), PLAN) as writer:
        writer.add_batch(0, [replace(hostile_sample(0), scores='{"x":1' + "0" * 400 + "}")])
        writer.finish()
    assert images_page(Folder("s", tmp_path, "set"), Dataset(tmp_path), [], Folders([tmp_path])).status == 200


def test_a_number_that_differs_in_two_folders_from_the_first_is_one(tmp_path):
    for name in "abc":
        shutil.copytree(EARLIER / "results", tmp_path / name)
    for name in "bc":
        (cell,) = [p for p in (tmp_path / name).glob("*.json") if '"metric": "accuracy",' in p.read_text()]
        cell.write_text(cell.read_text().replace('"value": 0.15', '"value": 0.2'))
    folders = Folders([tmp_path / name for name in "abc"])
    assert "1 number differs between" in results_page(folders.of_kind("results"), folders).decode()


def test_a_run_shows_no_settings_through_a_link_out_of_its_folder(tmp_path):
    shutil.copytree(EARLIER / "run", tmp_path / "run")
    (tmp_path / "hosts.yml").write_text("github.com:\n  oauth_token: the secret\n")
    for name, target in (("config.yaml", "hosts.yml"), ("plan.json", "plan.json")):
        (tmp_path / "plan.json").write_text('{"auth": "the secret"}')
        (tmp_path / "run" / name).unlink(missing_ok=True)
        (tmp_path / "run" / name).symlink_to(tmp_path / target)
    folders = Folders([tmp_path / "run"])
    assert b"the secret" not in runs_page(folders.of_kind("run"), folders, []).page


def test_a_value_that_is_once_no_number_is_not_said_to_stay_so():
    nan = float("nan")
    once = curve("gradient norm", {"r": [(8.0, 1.0), (16.0, nan), (24.0, 2.0)]}, "images seen")
    assert "no finite number at 1 of 3 points, first at 16 images" in once
    assert "no finite number from 8 images on" in curve("loss", {"r": [(8.0, nan), (16.0, nan)]}, "images seen")


def test_one_folder_is_one_folder(tmp_path):
    import subprocess
    import sys

    write_hostile_set(tmp_path / "set")
    p = subprocess.Popen(
        [sys.executable, "-m", "synclones.cli", "serve", "set", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    line = p.stdout.readline()
    p.terminate()
    p.wait()
    p.stdout.close()
    assert "  1 folder; " in line
