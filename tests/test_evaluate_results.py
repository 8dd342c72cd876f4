"""The folder of results: changed or mixed numbers are noticed, names are no identity, writers take turns."""

import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from shard_helpers import write_folder
from test_evaluate import ONE_THREAD, _model

from synclones.base.errors import InputError, MachineError, VerificationError
from synclones.base.manifest import Parent, write_manifest
from synclones.evaluate import finish, predict
from synclones.evaluate.answers.predictions import CLEAN, EvaluatedModel, SuiteSet
from synclones.evaluate.predict import predict_all
from synclones.evaluate.reports.tables import markdown, names_of
from synclones.evaluate.run import main
from synclones.evaluate.stored.logits_file import digest
from synclones.evaluate.stored.output import owned
from synclones.evaluate.stored.results import CELL_NAME, read_cells
from synclones.models.folder import load_classifier
from synclones.shards.lock import claim

LETTERS = ("a", "b", "c")
QUICK = (*ONE_THREAD, "--resamples", "100")


def labelled(folder, num_shards):
    """A finished set of 7 images a shard, of three classes."""
    write_folder(folder, num_shards)
    write_manifest(folder, "test", {}, [], {}, {}, {"classes": list(LETTERS)})
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two sets called ``test`` and two models called ``run``."""
    root = tmp_path_factory.mktemp("inputs")
    for seed, letter in enumerate("ab"):
        labelled(root / letter / "test", seed + 1)
        _model(root / letter / "run" / "export", LETTERS, seed)
    return root


def evaluate(inputs, model, data, out, *more):
    paths = ("--model", inputs / model / "run", "--data", inputs / data / "test", "--out", out)
    main([*map(str, paths), *QUICK, *more])


@pytest.fixture(scope="module")
def results(inputs, tmp_path_factory):
    """Model a on set a."""
    out = tmp_path_factory.mktemp("results") / "out"
    evaluate(inputs, "a", "a", out)
    return out


@pytest.fixture
def out(results, tmp_path):
    return shutil.copytree(results, tmp_path / "out")


def cell_files(folder):
    return [path for path in sorted(folder.glob("*.json")) if CELL_NAME.fullmatch(path.name)]


# ------------------------------------------------------------------ names


def test_files_say_in_words_what_they_are_about_and_keep_their_names(inputs, out, tmp_path):
    names = [path.name for path in cell_files(out)]
    assert [name.rpartition(".")[0].rpartition(".")[0] for name in names] == [
        *("test.run.accuracy", "test.run.accuracy_fgsm-fgsm-1.0", "test.run.accuracy_fgsm-fgsm-8.0", "test.run.ece"),
        *("test.run.r_adv-fgsm-1.0", "test.run.r_adv-fgsm-8.0"),
    ]
    shutil.copytree(inputs / "a" / "run", tmp_path / "other")
    main(["--model", str(tmp_path / "other"), "--data", str(inputs / "a" / "test"), "--out", str(out), *QUICK])
    assert [path.name for path in cell_files(out)] == names, "the same weights under another name"


def test_a_number_that_lies_there_twice_counts_once(inputs, out):
    first = cell_files(out)[0]
    before = read_cells(out)
    shutil.copyfile(first, out / f"{first.stem[-16:]}.json")  # as an earlier version named it
    assert read_cells(out) == before
    evaluate(inputs, "a", "a", out)
    assert read_cells(out) == before


@pytest.mark.parametrize("name", ["a b/c", "ünï", "x" * 300, "../..", "\n", "", "Ω"])
def test_whatever_models_and_sets_are_called_their_files_have_plain_names(results, name):
    cell = replace(read_cells(results)[0], model=name, dataset=name)
    assert re.fullmatch(r"[A-Za-z0-9_+.-]+", cell.file_name) and len(cell.file_name) < 150
    assert CELL_NAME.fullmatch(cell.file_name)[1] == cell.key and not cell.file_name.startswith(".")


def test_two_data_sets_of_one_name_are_two_tables(inputs, out):
    evaluate(inputs, "a", "b", out)
    text = (out / "table.md").read_text()
    hashes = {cell.dataset_sha256[:8] for cell in read_cells(out)}
    assert len(hashes) == 2 and all(f"## test ({digest})" in text for digest in hashes)
    assert text.count("| run |") == 2
    assert {line.split(",")[1] for line in (out / "table.csv").read_text().splitlines()[1:]} == {
        f"test ({digest})" for digest in hashes
    }
    page = (out / "report.html").read_text()
    assert all(f"on test ({digest})" in page for digest in hashes)


def test_two_models_of_one_name_are_two_rows_and_the_report_shows_both(inputs, out):
    evaluate(inputs, "b", "a", out)
    hashes = {cell.weights_sha256[:8] for cell in read_cells(out)}
    assert len(hashes) == 2
    for name in ("table.md", "table.csv", "report.html"):
        assert all(f"run ({digest})" in (out / name).read_text() for digest in hashes), name
    assert "Of 4 comparisons" in (out / "report.html").read_text()


def test_names_that_nothing_else_has_stay_as_they_are(results):
    assert "\n| run | " in (results / "table.md").read_text() and "## test\n" in (results / "table.md").read_text()


def test_a_model_that_goes_by_two_names_is_one_row(inputs, out, tmp_path):
    shutil.copytree(inputs / "a" / "run", tmp_path / "moved" / "other")
    main(
        ["--model", str(tmp_path / "moved" / "other"), "--data", str(inputs / "a" / "test"), "--out", str(out), *QUICK]
    )
    assert markdown(read_cells(out)).count("\n") == 2
    assert len(names_of(read_cells(out)).models) == 1


@pytest.mark.parametrize(
    "name, in_markdown, in_csv",
    [
        ("a|b", r"a\|b", "a|b"),
        ("<script>x", "&lt;script&gt;x", "<script>x"),
        ("a\nb", r"a\\nb", r"a\nb"),
        ("a\x1b[31m", r"a\\x1b\[31m", r"a\x1b[31m"),
        ("=1+1", "=1+1", "'=1+1"),
        ("@x", "@x", "'@x"),
        ("[x](y)", r"\[x\](y)", "[x](y)"),
        ("clip-templates+real_2", "clip-templates+real_2", "clip-templates+real_2"),
    ],
)
def test_names_do_nothing_where_they_are_written(inputs, tmp_path, capsys, name, in_markdown, in_csv):
    folder = tmp_path / name
    shutil.copytree(inputs / "a" / "run" / "export", folder)
    main(["--model", str(folder), "--data", str(inputs / "a" / "test"), "--out", str(tmp_path / "out"), *QUICK])
    assert f"| {in_markdown} | " in (tmp_path / "out" / "table.md").read_text()
    assert {line.split(",")[0] for line in (tmp_path / "out" / "table.csv").read_text().splitlines()[1:]} == {in_csv}
    captured = capsys.readouterr()
    assert (
        "\x1b" not in captured.out + captured.err and "<script>" not in (tmp_path / "out" / "report.html").read_text()
    )
    assert captured.out.splitlines()[2].startswith(f"| {in_markdown} | ")


def test_what_a_calibrated_model_would_show_stands_beside_every_ece(results, capsys):
    cell = next(cell for cell in read_cells(results) if cell.metric == "ece")
    shown = f"calibrated {100 * cell.faultless:.1f}"
    assert 0 < cell.faultless < 1 and all(c.faultless is None for c in read_cells(results) if c.metric != "ece")
    for name in ("table.md", "report.html"):
        assert shown in (results / name).read_text(), name
    assert "Calibrated: what a calibrated model" in (results / "table.md").read_text()
    assert f",{cell.faultless}\n" in (results / "table.csv").read_text()
    main(["explain", "ECE"])
    assert "perfectly calibrated model shows an error" in capsys.readouterr().out


def test_the_report_counts_its_comparisons(inputs, tmp_path):
    models = [str(inputs / letter / "run") for letter in "ab"]
    data = ("--data", str(inputs / "a" / "test"))
    main(["--model", *models, *data, "--out", str(tmp_path / "out"), *QUICK])
    page = (tmp_path / "out" / "report.html").read_text()
    assert re.search(r"Of 4 comparisons \d (is|are) clear.* about 0\.2 would by chance if no two models differed", page)


@pytest.fixture
def named(inputs, tmp_path):
    """The two models under names of their own."""
    return [shutil.copytree(inputs / letter / "run", tmp_path / f"model-{letter}") for letter in "ab"]


def run_on(inputs, out, *models, flags=()):
    main(["--model", *map(str, models), "--data", str(inputs / "a" / "test"), "--out", str(out), *QUICK, *flags])
    return (out / "report.html").read_text().partition("<h2>How this was made")[0]


def test_a_model_that_is_added_later_is_compared_with_all_of_the_folder(inputs, named, tmp_path):
    at_once = run_on(inputs, tmp_path / "at-once", *named)
    for order in (named, named[::-1]):
        out = tmp_path / f"{order[0].name}-first"
        for model in order:
            report = run_on(inputs, out, model)
        assert report == at_once
    assert "Right for one, wrong for the other" in at_once and "model-a" in at_once


def test_a_model_whose_answers_were_not_kept_or_are_damaged_is_named(inputs, named, tmp_path, capsys):
    out = tmp_path / "out"
    first, second = named
    run_on(inputs, out, first, flags=("--attacks", "pgd", "--pgd-steps", "1"))
    report = run_on(inputs, out, second)  # the first has no answers under FGSM
    assert "Not compared, for the others saw other images or conditions: model-a." in report
    run_on(inputs, out, first)
    key = next(c for c in read_cells(out) if c.model == "model-a" and c.metric == "accuracy").logits[0]
    path = out / "logits" / f"{key}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert "Not compared" in run_on(inputs, out, second)
    assert f"model-a: is not compared; {path}: damaged" in capsys.readouterr().err


def test_what_is_known_of_a_model_stays_when_another_is_added(inputs, named, tmp_path):
    record = {"recipe": "lab", "seed": 7, "architecture": "vit_tiny", "data": ["data/a"]}
    data = labelled(tmp_path / "data" / "a", 1)
    write_manifest(named[0], "train", record, [Parent("data", str(data), "0" * 64)], {"samples": 12800}, {})
    out = tmp_path / "out"
    run_on(inputs, out, named[0])
    path = out / "manifest.json"
    path.write_text(re.sub(r'"evaluated": "[-0-9]{10}"', '"evaluated": "2020-02-02"', path.read_text()))
    shutil.rmtree(named[0])
    report = run_on(inputs, out, named[1])
    row = re.search(r"<tr><th>model-a.*?</tr>", report)[0]
    weights = next(c.weights_sha256 for c in read_cells(out) if c.model == "model-a")
    for text in ("12,800", "<td>7</td>", "vit_tiny", "lab", str(data), weights[:12], "2020-02-02"):
        assert text in row, text
    assert "href" not in row  # nothing is left that tells where the data are from
    assert re.search(r"<tr><th>model-b.*?<td>–</td>", report)


def test_a_report_links_to_what_a_model_was_trained_on(inputs, named, tmp_path):
    data = labelled(tmp_path / "data" / "a set", 1)
    write_manifest(named[0], "train", {}, [Parent("data", str(data), "0" * 64)], {}, {})
    assert '<a href="../data/a%20set">' in run_on(inputs, tmp_path / "out", named[0])
    (data / "preview.html").write_text("images")
    assert '<a href="../data/a%20set/preview.html">' in run_on(inputs, tmp_path / "out", named[0])


def test_the_command_in_the_report_makes_the_same_evaluation(inputs, named, tmp_path):
    out = tmp_path / "out"
    run_on(inputs, out, *named, flags=("--epsilons-255", "1", "2.5"))
    (command,) = re.findall(r"<pre>(synclones evaluate .*)\n", unescape((out / "report.html").read_text()))
    words = shlex.split(command)
    assert words[-2:] == ["--out", "FOLDER"] and words[-3] != "FOLDER"
    again = tmp_path / "again"
    main([*words[2:-1], str(again), *ONE_THREAD])
    assert (again / "report.html").read_bytes() == (out / "report.html").read_bytes()


# ------------------------------------------------------------------ what was kept


def test_a_number_that_changed_on_disk_does_not_get_into_tables(inputs, out):
    path = cell_files(out)[0]
    path.write_text(path.read_text().replace('"n": 7', '"n": 6'))
    before = (out / "table.md").read_bytes()
    with pytest.raises(VerificationError, match=f"{path.name}: differs from its own checksum"):
        evaluate(inputs, "b", "a", out)
    assert (out / "table.md").read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [{"model": 5}, {"logits": None}, {"value": "much"}, {"n": 7.5}, {"settings": []}, {"seed": True}, {"ci_low": [1]}],
)
def test_a_result_of_odd_content_is_refused(inputs, out, change):
    path = cell_files(out)[0]
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(VerificationError, match=f"{path.name}: (not a result|its content belongs under)"):
        evaluate(inputs, "b", "a", out)


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a": ' * 10**4, "\xff", "", "{}", "[]"])
def test_a_result_that_is_none_is_refused(inputs, out, text):
    cell_files(out)[0].write_bytes(text.encode("latin-1"))
    with pytest.raises(VerificationError, match="damaged|not a result"):
        evaluate(inputs, "b", "a", out)


def replace_by_pipe(path):
    path.unlink()
    os.mkfifo(path)


def replace_by_zeros(path):
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("replace", [replace_by_pipe, replace_by_zeros])
@pytest.mark.parametrize("kind", ["cell", "logits"])
def test_pipes_and_devices_end_at_once(inputs, out, replace, kind):
    paths = cell_files(out) if kind == "cell" else sorted((out / "logits").iterdir())
    replace(paths[0])
    with pytest.raises(VerificationError, match="damaged"):
        evaluate(inputs, "a", "a", out)


def test_logits_under_another_s_name_are_refused(inputs, out):
    first, second, *_ = sorted((out / "logits").iterdir())
    for path in cell_files(out):
        path.unlink()
    first.rename(out / "x")
    second.rename(first)
    (out / "x").rename(second)
    with pytest.raises(VerificationError, match="damaged; delete it"):
        evaluate(inputs, "a", "a", out)


@pytest.mark.parametrize(
    "tensors", [{"x": 1}, {"logits": (7,)}, {"logits": (6, 3)}, {"logits": (7, 4)}, {"labels": (7, 1)}]
)
def test_logits_of_another_shape_are_refused(inputs, out, tensors):
    from safetensors.numpy import load_file, save_file

    path = sorted((out / "logits").iterdir())[0]
    kept = load_file(path)
    kept.pop("sha256")
    for name, shape in tensors.items():
        dtype = np.float32 if name == "logits" else np.int64
        kept[name] = np.zeros(shape, dtype)
    save_file(kept | {"sha256": digest(kept, path.stem)}, path)
    with pytest.raises(VerificationError, match="damaged; delete it"):
        evaluate(inputs, "a", "a", out)


def test_logits_that_are_no_numbers_are_refused_though_their_digest_is_right(inputs, out):
    from safetensors.numpy import load_file, save_file

    path = sorted((out / "logits").iterdir())[0]
    kept = load_file(path)
    kept.pop("sha256")
    kept["logits"] = np.full_like(kept["logits"], np.nan)
    save_file(kept | {"sha256": digest(kept, path.stem)}, path)
    with pytest.raises(VerificationError, match="damaged; delete it"):
        evaluate(inputs, "a", "a", out)


def test_a_manifest_without_parents_is_read(inputs, out):
    record = json.loads((out / "manifest.json").read_text())
    del record["parents"]
    (out / "manifest.json").write_text(json.dumps(record))
    evaluate(inputs, "b", "a", out)
    assert len(json.loads((out / "manifest.json").read_text())["parents"]) == 2


# ------------------------------------------------------------------ several at once


def test_of_two_evaluations_at_once_both_are_in_the_tables(inputs, tmp_path, monkeypatch):
    out, others, read = tmp_path / "out", [], finish.read_cells
    paths = ("--model", inputs / "b" / "run", "--data", inputs / "a" / "test", "--out", out)
    another = [sys.executable, "-m", "synclones.cli", "evaluate", *map(str, paths), *QUICK]

    def let_another_in(folder):
        """Start the other one in the moment in which this one has read and not yet written, and give it time."""
        cells = read(folder)
        if not others:
            others.append(subprocess.Popen(another, stderr=subprocess.PIPE, text=True, cwd=tmp_path))
            while others[0].poll() is None and "7 images, 3 times" not in others[0].stderr.readline():
                pass
            time.sleep(0.5)
        return cells

    monkeypatch.setattr(finish, "read_cells", let_another_in)
    evaluate(inputs, "a", "a", out)
    assert others[0].wait() == 0
    weights = {cell.weights_sha256[:8] for cell in read_cells(out)}
    assert len(weights) == 2
    for name in ("table.md", "table.csv", "report.html"):
        assert all(digest in (out / name).read_text() for digest in weights), name
    assert len(json.loads((out / "manifest.json").read_text())["parents"]) == 3
    assert not list(out.glob(".*.lock"))


def test_what_a_killed_evaluation_left_goes_and_a_living_one_s_stays(inputs, out):
    dead = [out / ".table.md.tmp-1-0123abcd", out / "logits" / ".x.safetensors.tmp-1-0123abcd"]
    living = out / "logits" / ".y.safetensors.tmp-1-0123abcd"
    for path in (*dead, living):
        path.write_bytes(b"half")
    with living.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        evaluate(inputs, "a", "a", out)
        assert living.exists() and not any(path.exists() for path in dead)


def test_an_evaluation_waits_for_another_and_not_for_ever(tmp_path, capsys):
    held = claim(tmp_path, "results")
    with pytest.raises(MachineError, match="another evaluation has been writing here"), owned(tmp_path, 1.3):
        pass
    assert capsys.readouterr().err.count("another evaluation writes here; waiting") == 1
    threading.Timer(0.3, held.release).start()
    with owned(tmp_path, 20):
        assert claim(tmp_path, "results") is None


def test_rank_0_alone_decides_what_is_computed(inputs, results, tmp_path, monkeypatch):
    """The other ranks' views of the folder do not count: here rank 1 sees all logits, and rank 0 saw none."""
    model = EvaluatedModel("m", *load_classifier(inputs / "a" / "run"))
    test_set = predict.TestSet(inputs / "a" / "test")
    sets, clean = [SuiteSet(role="reference", name="test", test_set=test_set)], lambda role: [CLEAN]
    out = shutil.copytree(results, tmp_path / "out")
    decided, gathered = [[]], []
    # What is missing is a list; what earlier starts kept of it, here nothing, goes round as it is.
    broadcast = lambda values: values if isinstance(values[0], dict) else decided  # noqa: E731
    monkeypatch.setattr(predict, "broadcast_object_list", broadcast)
    monkeypatch.setattr(predict, "gather_object", lambda mine: gathered.append(len(mine)) or mine)
    assert predict_all([model], sets, clean, 2, out, 1, 2) == [] and gathered == []
    decided[0] = [predict.logits_key(model, test_set, CLEAN)]
    assert predict_all([model], sets, clean, 2, out, 1, 2) == [] and gathered == [2]


def test_logits_of_another_condition_are_not_taken_for_these(inputs, tmp_path, monkeypatch):
    model = EvaluatedModel("m", *load_classifier(inputs / "a" / "run"))
    test_set = predict.TestSet(inputs / "a" / "test")
    monkeypatch.setattr(predict, "gather_object", lambda mine: [*mine, (9, *mine[0][1:4], "another key")])
    with pytest.raises(VerificationError, match="different logits at once"):
        predict.predict(model, test_set, CLEAN, 2, tmp_path, 0, 2)
    # This process' own batches are kept under their own key; nothing is taken for the logits of the set.
    assert {path.parent.suffix for path in tmp_path.rglob("*.safetensors")} <= {".parts"}


# ------------------------------------------------------------------ nothing written at exit 2


def make_file(path):
    path.touch()


def make_dangling_link(path):
    path.symlink_to(path.parent / "nowhere")


def make_link_loop(path):
    path.symlink_to(path)


def make_export(path):
    _model(path, LETTERS)


def make_run(path):
    (path / "checkpoints").mkdir(parents=True)


def make_set_without_manifest(path):
    path.mkdir()
    (path / "train-00000.tar").touch()


def make_folder_with_logits_file(path):
    path.mkdir()
    (path / "logits").touch()


def make_training(path):
    write_manifest_of(path, "train")


def write_manifest_of(path, stage):
    path.mkdir()
    write_manifest(path, stage, {}, [], {}, {}, {})


def snapshot(folder):
    return sorted((str(p), p.lstat().st_mtime_ns, p.lstat().st_size) for p in folder.rglob("*"))


@pytest.mark.parametrize(
    "make",
    [
        *(make_file, make_dangling_link, make_link_loop, make_export, make_run, make_set_without_manifest),
        *(make_folder_with_logits_file, make_training),
    ],
)
def test_an_out_that_is_no_folder_of_results_is_refused(inputs, tmp_path, make):
    make(tmp_path / "out")
    before = snapshot(tmp_path)
    for path in (
        (tmp_path / "out", tmp_path / "out" / "deeper") if make in (make_file, make_link_loop) else (tmp_path / "out",)
    ):
        with pytest.raises(InputError, match=r"--out .*; give a (new )?folder"):
            evaluate(inputs, "a", "a", path)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["table.md", "table.csv", "results.jsonl", "report.html", "manifest.json"])
def test_a_folder_where_a_file_is_written_is_refused_before_anything_is_computed(inputs, tmp_path, name):
    (tmp_path / "out" / name).mkdir(parents=True)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=f"{name}: (not a manifest|a folder, where a file is written)"):
        evaluate(inputs, "a", "a", tmp_path / "out")
    assert snapshot(tmp_path) == before


def test_a_device_as_out_is_refused(inputs):
    with pytest.raises(InputError, match="/dev/null is a file"):
        evaluate(inputs, "a", "a", "/dev/null")


def test_wrong_input_is_refused_before_the_lab_s_data_are_made(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for flags, message in (
        (("--model", "nope"), "no such model folder"),
        (("--data", "nope"), "nope"),
        (("--model", inputs / "a" / "run"), "has 3 classes, .* has 10"),
        (("--out", inputs / "a" / "run"), "holds export"),
        (("--model", inputs / "a" / "run", "--data", "nope"), "nope"),
    ):
        with pytest.raises(InputError, match=message):
            main([*map(str, flags)])
        assert not list(tmp_path.iterdir()), flags


def test_a_dry_run_makes_nothing_of_the_lab_either(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["--dry-run"])
    assert "would first make runs/lab and data/lab-real-test" in capsys.readouterr().out
    with pytest.raises(InputError, match="no such model folder"):
        main(["--dry-run", "--model", "nope"])
    assert not list(tmp_path.iterdir())
