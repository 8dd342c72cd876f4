"""`synclones status`: every kind of folder, in every state, held by the living and left by the dead; no torch."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pyarrow as pa
import pytest

from synclones.ablate.run import main as ablate
from synclones.base.errors import InputError
from synclones.base.files import write_atomic
from synclones.base.json_file import pretty_json, read_json
from synclones.base.manifest import Parent, write_manifest
from synclones.base.progress import Progress
from synclones.cli import dispatch
from synclones.prompts.captions.journal import write_captions
from synclones.prompts.captions.pieces import Work
from synclones.prompts.classes.lists import load_classes
from synclones.prompts.run import main as prompts
from synclones.shards.index import finish_folder
from synclones.shards.lock import claim, holders
from synclones.shards.schema import FailedSample, Sample
from synclones.shards.write import ShardWriter

PLAN_ID = "0" * 16
FIELDS = {
    *("schema_version", "kind", "path", "state", "unit", "planned", "done", "failed", "dropped", "rate_per_s", "eta_s"),
    *("holders", "facts", "problems", "next", "look"),
}


def status(path, capsys):
    """What the command prints as JSON."""
    capsys.readouterr()
    dispatch(["status", str(path), "--json"])
    value = json.loads(capsys.readouterr().out)
    assert set(value) == FIELDS and value["schema_version"] == 1
    return value


def held_by_another(folder, name):
    """A living process that holds a lock; communicate with it to end it."""
    code = (
        "import sys; from pathlib import Path; from synclones.shards.lock import claim\n"
        "held = claim(Path(sys.argv[1]), sys.argv[2]); print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def batch(start, stop, failed=()):
    return [
        FailedSample(index=i, status="failed", reason='he said "status":"ok"')
        if i in failed
        else Sample(index=i, jpg=b"x", json=b"{}", txt="a")
        for i in range(start, stop)
    ]


@pytest.fixture
def growing(tmp_path):
    """A set of three shards of twenty: one whole, one begun, one not."""
    folder = tmp_path / "x"
    folder.mkdir()
    write_atomic(folder / "plan.json", pretty_json({"plan_id": PLAN_ID, "num_shards": 3, "num_samples": 60}))
    write_atomic(folder / "config.yaml", f"out: {folder}\n".encode())
    with ShardWriter(folder, "train-00000", PLAN_ID) as writer:
        writer.add_batch(0, batch(0, 20, failed={3, 4}))
        writer.finish()
    with ShardWriter(folder, "train-00001", PLAN_ID) as writer:
        writer.add_batch(0, batch(20, 30, failed={21}))
    return folder


# ------------------------------------------------------------------ datasets


def test_an_unfinished_set_says_what_is_there_and_by_which_command_it_goes_on(growing, capsys):
    value = status(growing, capsys)
    assert [value[name] for name in ("kind", "state", "planned", "done", "failed")] == [
        "dataset",
        "unfinished",
        60,
        30,
        3,
    ]
    assert value["next"] == f"synclones generate --config {growing}/config.yaml"
    assert value["holders"] == [] and value["rate_per_s"] is None and value["facts"]["shards"] == "1 of 3 complete"
    dispatch(["status", str(growing)])
    shown = capsys.readouterr().out
    assert "done       30 of 60 images, 3 failed\n" in shown and shown.endswith(f"next       {value['next']}\n")


def test_a_torn_journal_counts_for_its_whole_lines(growing, capsys):
    journal = growing / ".train-00001.part.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"line":{"rows":[{"status":"ok"')
    assert status(growing, capsys)["done"] == 30


def test_a_planned_set_is_planned(growing, capsys):
    for path in growing.glob("*train-0000*"):
        path.unlink()
    value = status(growing, capsys)
    assert (value["state"], value["done"], value["planned"]) == ("planned", 0, 60)


def test_a_living_process_holds_its_shard_and_a_dead_one_does_not(growing, capsys):
    process = held_by_another(growing, "train-00001")
    try:
        value = status(growing, capsys)
        assert value["state"] == "running" and value["next"] == ""
        (holder,) = value["holders"]
        assert (holder["what"], holder["pid"], holder["alive"]) == ("train-00001", process.pid, True)
        assert holder["host"] == os.uname().nodename and 0 <= holder["since_s"] < 60
    finally:
        process.kill()
        process.communicate()
    assert (growing / ".train-00001.lock").read_text().endswith(f"process {process.pid}")
    value = status(growing, capsys)
    assert value["state"] == "unfinished" and value["holders"] == []


def test_looking_takes_no_lock(growing, capsys, monkeypatch):
    """Whoever wants a shard must find it free while somebody looks."""
    claim(growing, "train-00001").release()
    monkeypatch.setattr("fcntl.flock", lambda *_: pytest.fail("a lock was taken"))
    status(growing, capsys)


def test_a_released_lock_names_nobody_and_another_machine_s_is_not_judged(growing):
    claim(growing, "train-00001").release()
    assert holders(growing) == [] and (growing / ".train-00001.lock").read_text() == ""
    (growing / ".train-00002.lock").write_text("elsewhere process 7")
    (holder,) = holders(growing)
    assert (holder.host, holder.pid, holder.alive) == ("elsewhere", 7, None)
    assert "not known here" in holder.line()
    (growing / ".train-00002.lock").write_text("\0nonsense")
    assert holders(growing) == []


def test_a_lock_of_an_earlier_version_which_wrote_nothing_is_seen(growing):
    process = held_by_another(growing, "train-00001")
    try:
        os.truncate(growing / ".train-00001.lock", 0)
        (holder,) = holders(growing)
        assert holder.pid == process.pid and holder.alive
    finally:
        process.kill()
        process.communicate()


def test_rates_of_processes_that_draw_now_add_up(growing, capsys):
    progress = Progress("images", 60, 30, folder=growing)
    progress.add(5)
    progress._write_beat()
    value = status(growing, capsys)
    assert value["state"] == "running" and value["rate_per_s"] > 0 and value["eta_s"] > 0
    progress.close()


@pytest.fixture
def finished(growing):
    for name, start in (("train-00001", 30), ("train-00002", 40)):
        with ShardWriter(growing, name, PLAN_ID) as writer:
            writer.add_batch(writer.next_batch, batch(start, start + (10 if start == 30 else 20)))
            writer.finish()
    finish_folder(growing)
    write_manifest(growing, "generate", {}, [], {"ok": 57}, {"process_seconds": 10.0})
    return growing


def test_a_finished_set_says_its_rate_and_what_is_next(finished, capsys):
    value = status(finished, capsys)
    assert (value["state"], value["done"], value["failed"], value["rate_per_s"]) == ("finished", 60, 3, 5.7)
    assert value["next"] == f"synclones shards verify {finished}"


def test_a_set_that_was_killed_while_it_finished_goes_on(finished, capsys):
    (finished / "manifest.json").unlink()
    value = status(finished, capsys)
    assert value["state"] == "unfinished" and value["facts"]["missing"] == "manifest.json"
    assert value["next"].startswith("synclones generate --config")


def test_a_finished_set_that_lost_a_shard_is_damaged(finished, capsys):
    (finished / "train-00001.tar").unlink()
    value = status(finished, capsys)
    assert value["state"] == "damaged" and "train-00001.tar" in value["problems"][0]
    assert value["next"] == f"synclones shards repair {finished}"


@pytest.mark.parametrize("text", ["", "{", "[]", "\0" * 100])
def test_a_set_with_a_damaged_json_or_plan_is_damaged_and_told_of_in_a_line(finished, text, capsys):
    (finished / "train-00002.json").write_text(text)
    value = status(finished, capsys)
    assert value["state"] == "damaged" and "train-00002.json: not the json of a shard" in value["problems"][0]
    (finished / "plan.json").write_text(text)
    value = status(finished, capsys)
    assert value["state"] == "damaged" and "plan.json: no JSON object" in value["problems"][0]


def test_failed_images_of_a_generation_name_the_command_that_draws_them_again(copy_of_dataset, capsys):
    value = status(copy_of_dataset, capsys)
    assert value["state"] == "finished" and value["next"].startswith(f"synclones train --data {copy_of_dataset}")
    path = copy_of_dataset / "train-00000.json"
    write_atomic(path, pretty_json(read_json(path) | {"ok": 18, "failed": 2}))
    again = f"synclones generate --retry failed --parent {copy_of_dataset} --out {copy_of_dataset}-again"
    assert status(copy_of_dataset, capsys)["next"] == again


# ------------------------------------------------------------------ prompts


def test_a_prompt_table_names_the_command_that_draws_it(tmp_path, capsys):
    path = tmp_path / "p.parquet"
    prompts(["build", "--recipe", "class-name", "--classes", "lab-digits", "--num-images", "30", "--out", str(path)])
    value = status(path, capsys)
    assert (value["kind"], value["state"], value["done"], value["unit"]) == ("prompt table", "finished", 30, "prompts")
    assert value["next"] == f"synclones generate --preset lab --prompts {path} --out data/p"


def test_captions_that_grow_are_counted_by_pieces_and_journals(tmp_path, capsys):
    out = tmp_path / "c.parquet"
    work = Work(out, {"model": "m"}, 50, 3)
    answered = []

    def answer(start, stop, before):
        if start == 18:
            process = held_by_another(work.folder, "piece-00004")
            value = status(out, capsys)
            assert {holder["what"] for holder in value["holders"]} == {"piece-00001", "piece-00004"}
            assert value["state"] == "running"
            process.kill()
            process.communicate()
            raise KeyboardInterrupt
        answered.append(start)
        return [{"key": str(n), "caption": "c", "fault": ""} for n in range(start, stop)], stop - start

    work.begin()
    with pytest.raises(KeyboardInterrupt):
        work.divide(answer, "captions")
    for path in (out, work.folder):
        value = status(path, capsys)
        assert (value["state"], value["done"], value["planned"]) == ("unfinished", 3 * len(answered), 50)
        assert value["facts"]["pieces"] == "1 of 5"
    (work.folder / "settings.json").write_text("{")
    assert status(out, capsys)["state"] == "damaged"


def test_finished_captions_name_the_recipe_that_reads_them_and_its_classes(tmp_path, capsys):
    rows = pa.table({"text": ["a cat"]})
    facts = {
        "images.parquet": {"images": "abc", "classes_sha256": ""},
        "shipped.parquet": {"classes_sha256": load_classes("cifar10").content_sha256, "places": "p"},
        "own.parquet": {"classes_sha256": "0" * 64, "places": "p"},
        "balanced.parquet": {"captions": "abc", "concepts": "cifar10"},
    }
    for name, stated in facts.items():
        write_captions(tmp_path / name, rows, {"model": "m", "rows": 1, **stated})
    recipes = {
        name: re.search(r"--recipe (.*) --captions", status(tmp_path / name, capsys)["next"])[1] for name in facts
    }
    assert list(recipes.values()) == [
        *("captions", "concept-llm --classes cifar10", "concept-llm --classes CLASSES.csv", "text-file"),
    ]


# ------------------------------------------------------------------ trainings


@pytest.fixture
def run(tmp_path):
    """A training of 32 steps that was stopped behind the 24th."""
    folder = tmp_path / "run"
    (folder / "checkpoints" / "step-00000024").mkdir(parents=True)
    plan = {"architecture": "vit", "samples": 512, "steps": 0, "epochs": 0.0, "batch_size": 16, "format": 1}
    write_atomic(folder / "plan.json", pretty_json(plan))
    write_atomic(folder / "config.yaml", f"out: {folder}\n".encode())
    lines = [{"step": 8, "loss": 2.5, "learning_rate": 0.1}, {"step": 24, "loss": 2.25, "accuracy/real": 0.5}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_stopped_training_says_step_losses_and_the_command(run, capsys):
    value = status(run, capsys)
    assert [value[name] for name in ("kind", "state", "done", "planned", "unit")] == [
        "training",
        "unfinished",
        24,
        32,
        "steps",
    ]
    assert value["facts"] == {"checkpoint": "step 24", "loss": "2.25", "accuracy/real": "0.5"}
    assert value["next"] == f"synclones train --config {run}/config.yaml"


def test_a_running_training_says_how_fast_and_where(run, capsys):
    process = held_by_another(run, "run")
    progress = Progress("steps", 32, 24, folder=run, shares=1)
    progress.add(4, "loss 2.1")
    progress._write_beat()
    value = status(run, capsys)
    assert (value["state"], value["done"], value["next"]) == ("running", 28, "")
    assert value["rate_per_s"] > 0 and value["holders"][0]["pid"] == process.pid
    progress.close()
    process.kill()
    process.communicate()


def test_a_training_in_epochs_knows_its_length_from_whoever_trained_last(run, capsys):
    plan = read_json(run / "plan.json")
    write_atomic(run / "plan.json", pretty_json(plan | {"samples": 0, "epochs": 2.0}))
    assert status(run, capsys)["planned"] is None
    Progress("steps", 40, 24, folder=run, shares=1).close()
    assert status(run, capsys)["planned"] == 40


def test_a_finished_training_names_its_evaluation(run, capsys):
    (run / "export").mkdir()
    write_manifest(run, "train", {}, [], {"steps": 32}, {}, extra={"classes": list("0123456789")})
    value = status(run, capsys)
    assert (value["state"], value["done"]) == ("finished", 32)
    assert value["next"] == f"synclones evaluate --model {run} --out results/run"


@pytest.mark.parametrize("name", ["plan.json", "metrics.jsonl", "manifest.json"])
@pytest.mark.parametrize("text", ["", "{", "[" * 10_000, '{"step": "x"}', "\0"])
def test_a_damaged_run_folder_ends_in_words(run, name, text, capsys):
    (run / name).write_text(text)
    value = status(run, capsys)
    assert value["kind"] == "training" and value["state"] in ("damaged", "unfinished")


def test_a_moved_run_is_named_again(run, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.move(run, moved)
    assert status(moved, capsys)["next"] == f"synclones train --config {moved}/config.yaml --out {moved}"


# ------------------------------------------------------------------ results


def test_an_evaluation_that_was_stopped_goes_on_by_its_settings(tmp_path, capsys):
    out = tmp_path / "results"
    (out / "logits").mkdir(parents=True)
    (out / "config.yaml").write_text(f"out: {out}\nepsilons_255: [1.0]\n")
    Progress("passes", 900, 300, folder=out).close()
    value = status(out, capsys)
    assert [value[name] for name in ("kind", "state", "done", "planned", "unit")] == [
        "results",
        "unfinished",
        300,
        900,
        "passes",
    ]
    assert value["next"] == f"synclones evaluate --config {out}/config.yaml"


def test_finished_results_and_damaged_ones(tmp_path, capsys):
    write_manifest(tmp_path, "evaluate", {}, [], {"results": 0}, {})
    assert status(tmp_path, capsys)["state"] == "finished"
    (tmp_path / ("0" * 16 + ".json")).write_text("{}")
    value = status(tmp_path, capsys)
    assert value["state"] == "damaged" and "0000.json" in value["problems"][0]


# ------------------------------------------------------------------ grids


def test_a_store_of_grids_counts_steps_and_names_the_run_that_is_not_done(tmp_path, capsys, monkeypatch):
    store = tmp_path / "store"
    flags = ["table6", "--world", "lab", "--scale", "1/4000", "--out", str(store)]
    monkeypatch.setattr("synclones.ablate.execute._Engine._begin", lambda self, step: self._fail(step, "no", 4) or True)
    with pytest.raises(Exception, match="not computed"):
        ablate(["run", *flags, "--only", "images=1M"])
    (store / "steps" / "images").mkdir(parents=True)
    process = held_by_another(store / "steps" / "images", "abc")
    try:
        value = status(store, capsys)
        assert value["kind"] == "grids" and value["state"] == "running" and value["unit"] == "steps"
        assert value["holders"][0]["what"] == "images/abc" and value["planned"] > 0 == value["done"]
    finally:
        process.kill()
        process.communicate()
    (store / "steps" / "images" / "abc.failed.json").write_text('{"line": "the disk is full"}')
    value = status(store, capsys)
    assert value["state"] == "unfinished"
    assert value["next"].startswith(f"synclones ablate run table6 --world lab --out {store} --scale 1/4000")


# ------------------------------------------------------------------ the command


@pytest.mark.parametrize("name, words", [("nope", "no such file or folder"), (".", "nothing that a synclones command")])
def test_what_is_none_of_ours_is_refused_in_a_line(tmp_path, name, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        dispatch(["status", name])


def test_another_stage_s_folder_is_told_by_its_manifest(tmp_path, capsys):
    write_manifest(tmp_path, "corrupt", {}, [Parent("data", "x", "y")], {"files": 7}, {})
    value = status(tmp_path, capsys)
    assert (value["kind"], value["state"], value["done"], value["unit"]) == ("corrupt", "finished", 7, "files")


def test_status_loads_no_torch_and_prints_nothing_but_json(growing, run, tmp_path):
    for folder in (growing, run):
        code = (
            "import sys; from synclones.cli import dispatch; dispatch(['status', sys.argv[1], '--json'])\n"
            "assert not {'torch', 'diffusers', 'timm', 'transformers'} & set(sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
        assert set(json.loads(done.stdout)) == FIELDS and done.stderr == ""


def test_a_room_that_knows_its_folders_is_asked_without_being_named(tmp_path, monkeypatch, capsys):
    """Adding a room adds a file."""
    from types import SimpleNamespace

    import synclones.cli as cli
    from synclones.base.status import Status

    made = Status(kind="new", path="x", state="finished", unit="things", done=1)
    room = SimpleNamespace(status=lambda path: made if path == tmp_path else None)
    monkeypatch.setitem(cli.STAGES, "newroom", "a room")
    find, load = cli.find_spec, cli.import_module
    monkeypatch.setattr(cli, "find_spec", lambda name: True if "newroom" in name else find(name))
    monkeypatch.setattr(cli, "import_module", lambda name: room if "newroom.status" in name else load(name))
    assert status(tmp_path, capsys)["kind"] == "new"


def test_a_set_of_hundreds_of_shards_is_looked_at_at_once(tmp_path, capsys):
    """No timing here (benchmarks/status.py has it): as many files are opened as there are shards."""
    with ShardWriter(tmp_path, "train-00000", PLAN_ID) as writer:
        writer.add_batch(0, batch(0, 2))
        writer.finish()
    summary = read_json(tmp_path / "train-00000.json")
    for number in range(1, 300):
        name = f"train-{number:05d}"
        for suffix in (".tar", ".parquet"):
            os.link(tmp_path / f"train-00000{suffix}", tmp_path / f"{name}{suffix}")
        write_atomic(tmp_path / f"{name}.json", pretty_json(summary | {"name": name}))
    write_atomic(tmp_path / "plan.json", pretty_json({"plan_id": PLAN_ID, "num_shards": 300, "num_samples": 600}))
    before = time.perf_counter()
    assert status(tmp_path, capsys)["done"] == 600
    assert time.perf_counter() - before < 30
