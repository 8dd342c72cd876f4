"""A test set that the model was trained on is said, recorded and marked; what is only made alike is not."""

import json
import shutil
from pathlib import Path

import pytest
from shard_helpers import write_finished
from test_evaluate import ONE_THREAD, _model

from synclones.base.manifest import Parent, lineage, write_manifest
from synclones.evaluate.checks.training_data import trained_on, trained_on_generated
from synclones.evaluate.reports.tables import TRAINED
from synclones.evaluate.run import main
from synclones.evaluate.stored.results import CELL_NAME, read_cells
from synclones.shards.index import content_hash
from synclones.shards.run import main as shards
from synclones.train.run import main as train

LETTERS = ("a", "b", "c")
TINY = (
    *("--architecture", "vit_tiny_patch16_224", "--image-size-px", "32", "--patch-size", "8", "--embed-dim", "24"),
    *("--depth", "1", "--num-heads", "2", "--batch-size", "7", "--steps", "2", *ONE_THREAD),
)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A set; one made of it and another; one drawn from it; one that has nothing to do with it."""
    root = tmp_path_factory.mktemp("sets")
    one, other = write_finished(root / "one"), write_finished(root / "other", 1)
    shards(["merge", str(one), str(other), "--renumber", "--out", str(root / "merged")])
    shards(["subset", str(one), "--per-class", "2", "--out", str(root / "part")])
    return root


@pytest.fixture(scope="module")
def runs(sets):
    """A run of each set, and one whose card alone is left."""
    for name in ("one", "other", "merged"):
        train(["--data", str(sets / name), "--out", str(sets / "runs" / name), *TINY])
    shutil.copytree(sets / "runs" / "one" / "export", sets / "runs" / "card")
    return sets / "runs"


def evaluate(model, data, out):
    main(["--model", str(model), "--data", str(data), "--out", str(out), "--resamples", "100", *ONE_THREAD])


def way(sets, run, test) -> str:
    return trained_on(sets / "runs" / run, sets / test, content_hash(sets / test))


# ------------------------------------------------------------------ what is known


def test_manifest_and_card_each_know_the_set_itself(sets, runs):
    assert way(sets, "one", "one") == way(sets, "card", "one") == f"this test set, {sets / 'one'}"
    (copy := sets / "runs" / "bare").mkdir()
    shutil.copytree(runs / "one" / "export", copy / "export")
    (copy / "export" / "README.md").unlink()
    assert way(sets, "bare", "one") == ""
    shutil.copy(runs / "one" / "manifest.json", copy)
    assert way(sets, "bare", "one") == f"this test set, {sets / 'one'}"


def test_a_set_made_from_the_test_set_and_a_test_set_made_from_a_training_set_are_followed(sets, runs):
    assert way(sets, "merged", "one") == f"{sets / 'merged'}, which was made from this test set, {sets / 'one'}"
    assert way(sets, "one", "part") == f"{sets / 'one'}, which this test set, {sets / 'part'}, was made from"
    card = f"a set named in {runs / 'card' / 'README.md'}"
    assert way(sets, "card", "part") == f"{card}, which this test set, {sets / 'part'}, was made from"


def test_sets_of_one_origin_and_sets_of_none_are_not_called_the_same(sets, runs):
    assert way(sets, "one", "other") == way(sets, "other", "one") == way(sets, "other", "part") == ""
    shards(["subset", str(sets / "one"), "--per-class", "1", "--seed", "5", "--out", str(sets / "rest")])
    train(["--data", str(sets / "rest"), "--out", str(runs / "rest"), *TINY[:-2], "--batch-size", "3", *ONE_THREAD])
    assert way(sets, "rest", "part") == ""


def test_both_sets_of_a_pairing_are_read_from_the_card(sets, runs, tmp_path):
    _model(tmp_path / "paired", LETTERS)
    hashes = [content_hash(sets / name) for name in ("one", "other")]
    row = f"| `x` | 3 | 1 | 100.0% | `{'+'.join([*hashes, 'f' * 64])}` |\n"
    (tmp_path / "paired" / "README.md").write_text(row)
    assert all(trained_on(tmp_path / "paired", sets / "x", digest) for digest in hashes)
    assert not trained_on(tmp_path / "paired", sets / "x", "e" * 64)


@pytest.mark.parametrize("content", [b"\xff| `" + b"a" * 64 + b"` |", b"| `" + b"a" * 63 + b"` |\n"])
def test_a_card_of_odd_content_says_nothing(tmp_path, content):
    _model(tmp_path / "model", LETTERS)
    (tmp_path / "model" / "README.md").write_bytes(content)
    assert trained_on(tmp_path / "model", tmp_path, "a" * 64) == ""


# ------------------------------------------------------------------ what is said of it


def test_it_is_said_in_one_line_recorded_and_marked_everywhere(sets, runs, tmp_path, capsys):
    evaluate(runs / "one", sets / "one", tmp_path / "out")
    text = capsys.readouterr()
    (line,) = [line for line in text.err.splitlines() if "was trained on" in line]
    assert line.startswith(f"one: was trained on this test set, {sets / 'one'}; ")
    cells = read_cells(tmp_path / "out")
    assert cells and all(cell.trained_on_test for cell in cells)
    rows = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert all(json.loads(row)["trained_on_test"] is True for row in rows)
    mark = f"| one **({TRAINED})** |"
    assert mark in text.out and mark in (tmp_path / "out" / "table.md").read_text()
    head, *lines = (tmp_path / "out" / "table.csv").read_text().splitlines()
    assert head.endswith(",trained_on_test") and all(line.endswith(",True") for line in lines)
    page = (tmp_path / "out" / "report.html").read_text()
    assert f'one<small class="warning">{TRAINED}</small>' in page and "what it remembers" in page


def test_only_the_model_that_knows_the_set_is_marked(sets, runs, tmp_path, capsys):
    evaluate(runs / "other", sets / "one", tmp_path / "out")
    quiet = capsys.readouterr()
    assert "was trained on" not in quiet.err and TRAINED not in quiet.out.lower()
    for name in ("table.md", "table.csv", "results.jsonl", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert TRAINED not in text and "trained_on_test" not in text, name
    evaluate(runs / "one", sets / "one", tmp_path / "out")
    table = (tmp_path / "out" / "table.md").read_text()
    assert f"| one **({TRAINED})** |" in table and "| other |" in table


def test_a_result_that_did_not_know_it_learns_it_and_keeps_its_number(sets, runs, tmp_path):
    shutil.copytree(runs / "one" / "export", tmp_path / "run" / "export")
    (tmp_path / "run" / "export" / "README.md").unlink()
    evaluate(tmp_path / "run", sets / "one", tmp_path / "out")
    before = {path.name: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")}
    evaluate(runs / "one", sets / "one", tmp_path / "out")
    for name in filter(CELL_NAME.fullmatch, before):
        now = json.loads((tmp_path / "out" / name).read_text())
        assert now.pop("trained_on_test") is True
        assert now.pop("sha256") != before[name].pop("sha256") and now == before[name]
    evaluate(tmp_path / "run", sets / "one", tmp_path / "out")  # a model whose papers got lost does not take it back
    assert all(cell.trained_on_test for cell in read_cells(tmp_path / "out"))


def test_a_dry_run_says_it_too(sets, runs, tmp_path, capsys):
    main(["--model", str(runs / "one"), "--data", str(sets / "one"), "--out", str(tmp_path / "out"), "--dry-run"])
    assert "one: was trained on this test set" in capsys.readouterr().err and not (tmp_path / "out").exists()


# ------------------------------------------------------------------ how manifests are followed


def folder(path, digest, *parents):
    path.mkdir(parents=True, exist_ok=True)
    write_manifest(path, "test", {}, list(parents), {}, {}, {"content_hash": digest})
    return Parent("data", str(path), digest)


def test_lineage_goes_all_the_way_up_and_ends_where_manifests_name_each_other(tmp_path):
    top = folder(tmp_path / "top", "1" * 64, Parent("x", str(tmp_path / "low"), "3" * 64))
    middle = folder(tmp_path / "middle", "2" * 64, top)
    folder(tmp_path / "low", "3" * 64, middle)
    ways = lineage(tmp_path / "low")
    assert ways["2" * 64] == (middle.path,) and ways["1" * 64] == (middle.path, top.path)
    assert set(ways) == {"1" * 64, "2" * 64, "3" * 64}


def test_a_parent_that_is_another_set_by_now_is_not_looked_into(tmp_path):
    top = folder(tmp_path / "top", "1" * 64)
    middle = folder(tmp_path / "middle", "2" * 64, top)
    folder(tmp_path / "low", "3" * 64, middle)
    folder(tmp_path / "middle", "4" * 64, top)
    assert set(lineage(tmp_path / "low")) == {"2" * 64}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "x", "parents": [1]}'])
def test_a_manifest_that_cannot_be_read_ends_the_way(tmp_path, text):
    top = folder(tmp_path / "top", "1" * 64)
    folder(tmp_path / "low", "3" * 64, top)
    (tmp_path / "top" / "manifest.json").write_text(text)
    assert set(lineage(tmp_path / "low")) == {"1" * 64}
    assert lineage(tmp_path / "top") == lineage(tmp_path / "nowhere") == {}


def test_a_model_of_generated_sets_alone_is_known_as_a_clone(tmp_path):
    def folder(name: str, stage: str, content_hash: str, parents: list) -> Path:
        (tmp_path / name).mkdir()
        write_manifest(tmp_path / name, stage, {}, parents, {}, {}, {"content_hash": content_hash})
        return tmp_path / name

    folder("drawn", "generate", "a" * 64, [])
    folder("real", "real digits", "b" * 64, [])
    stated = (("drawn", "a"), ("real", "b"), ("drawn", "c"))
    drawn, real, other = (Parent("data", str(tmp_path / name), digest * 64) for name, digest in stated)
    for number, (parents, known) in enumerate(
        [([drawn], True), ([real], False), ([drawn, real], False), ([other], False), ([], False)]
    ):
        run = folder(f"run{number}", "train", "d" * 64, parents)
        (run / "export").mkdir()
        (run / "export" / "config.json").write_text("{}")
        (run / "export" / "model.safetensors").write_bytes(b"")
        assert trained_on_generated(run) is known, parents
