"""Status, progress, resume and the API: faults that a review found, each with what is right."""

# ruff: noqa: F811 - fixtures of another file

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from test_progress import Clock, passing
from test_status import PLAN_ID, batch, finished, growing, run, status  # noqa: F401

from synclones.base.errors import InputError
from synclones.base.files import write_atomic
from synclones.base.json_file import pretty_json, read_json
from synclones.base.manifest import write_manifest
from synclones.base.output import shaped
from synclones.base.progress import Progress
from synclones.base.resume import typed
from synclones.cli import dispatch
from synclones.shards.write import ShardWriter


def words_of(command):
    """What a shell makes of a command."""
    code = "import sys, json; print(json.dumps(sys.argv[1:]))"
    script = f'synclones() {{ "{sys.executable}" -c \'{code}\' "$@"; }}; {command}'
    return json.loads(subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout)


@pytest.mark.parametrize("name", ["a b", "it's", "$HOME `x`", "写真\u3000集", "a\nb", "tab\tx", "back\\slash\t'"])
def test_a_command_is_read_back_by_a_shell_and_has_no_character_that_a_terminal_hides(name):
    assert words_of(typed(["status", name])) == ["status", name] and typed([name]).isprintable()


def test_the_command_of_a_set_works_from_elsewhere(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "data" / "x"
    folder.mkdir(parents=True)
    (tmp_path / "p.parquet").touch()
    write_atomic(folder / "plan.json", pretty_json({"plan_id": PLAN_ID, "num_shards": 1, "num_samples": 20}))
    (folder / "config.yaml").write_text("prompts: p.parquet\nout: data/x\n")
    monkeypatch.chdir("/")
    assert status(folder, capsys)["next"] == f"cd {tmp_path} && synclones generate --config data/x/config.yaml"
    monkeypatch.chdir(tmp_path)
    assert status("data/x", capsys)["next"] == "synclones generate --config data/x/config.yaml"


def test_json_of_a_path_that_is_no_utf8_is_json(growing, tmp_path, capsys):
    odd = tmp_path / os.fsdecode(b"b\xffad")
    shutil.move(growing, odd)
    assert status(odd, capsys)["path"] == str(odd)


def test_a_set_is_found_by_the_dot(copy_of_dataset, capsys, monkeypatch):
    path = copy_of_dataset / "train-00000.json"
    write_atomic(path, pretty_json(read_json(path) | {"ok": 18, "failed": 2}))
    monkeypatch.chdir(copy_of_dataset)
    assert status(".", capsys)["next"] == "synclones generate --retry failed --parent . --out ../copy-again"


def test_the_training_that_a_finished_set_names_has_a_length(copy_of_dataset, capsys):
    import shlex

    from synclones.train.run import STAGE

    STAGE.check(shlex.split(status(copy_of_dataset, capsys)["next"])[2:])


def test_a_begun_set_of_another_split_is_counted(tmp_path, capsys):
    plan = {"plan_id": PLAN_ID, "num_shards": 1, "num_samples": 20, "split": "val"}
    write_atomic(tmp_path / "plan.json", pretty_json(plan))
    with ShardWriter(tmp_path, "val-00000", PLAN_ID) as writer:
        writer.add_batch(0, batch(0, 10))
    value = status(tmp_path, capsys)
    assert (value["state"], value["done"]) == ("unfinished", 10)


def test_a_shard_that_is_finished_during_the_look_is_no_problem(growing, capsys, monkeypatch):
    import synclones.shards.status as looked

    whole, read = growing.parent / "whole", looked.own_summary
    shutil.copytree(growing, whole)
    with ShardWriter(whole, "train-00001", PLAN_ID) as writer:
        writer.add_batch(writer.next_batch, batch(30, 40))
        writer.finish()

    def finished_meanwhile(files):
        try:
            return read(files)
        finally:
            if files.name == "train-00001":
                for path in whole.glob("train-00001*"):
                    shutil.copy(path, growing)
                for path in growing.glob(".train-00001.part*"):
                    path.unlink()

    monkeypatch.setattr(looked, "own_summary", finished_meanwhile)
    value = status(growing, capsys)
    assert (value["problems"], value["done"]) == ([], 40)


def test_a_column_that_is_written_beside_a_finished_set_is_no_drawing(finished, capsys):
    progress = Progress("shards", 40, folder=finished, shown=False)
    progress.add(5)
    progress._write_beat()
    value = status(finished, capsys)
    assert (value["state"], value["rate_per_s"], value["eta_s"]) == ("finished", 5.7, None)
    progress.close()


def test_the_rate_of_a_set_is_of_what_was_drawn_into_it(finished, capsys):
    (finished / "manifest.json").unlink()
    write_manifest(finished, "generate", {}, [], {"ok": 57}, {"process_seconds": 10.0, "drawn": 20})
    assert status(finished, capsys)["rate_per_s"] == 2.0


@pytest.mark.parametrize("step", ["NaN", "Infinity", "1e999", "true"])
def test_a_step_that_is_no_number_is_passed_over(run, step, capsys):
    (run / "metrics.jsonl").write_text(f'{{"step": {step}, "loss": 1}}\n')
    assert status(run, capsys)["done"] == 24


def test_a_finished_training_of_other_classes_names_no_evaluation_on_digits(run, capsys):
    (run / "export").mkdir()
    write_manifest(run, "train", {}, [], {"steps": 32}, {}, {"classes": ["otter", "panda"]})
    assert status(run, capsys)["next"] == f"synclones trace {run}"
    write_manifest(run, "train", {}, [], {"steps": 32}, {}, {"classes": list("0123456789")})
    assert status(run, capsys)["next"] == f"synclones evaluate --model {run} --out results/run"


@pytest.mark.parametrize(
    "settings", [{"rows": 0, "batch_size": 3}, {"rows": 9, "batch_size": 0}, {"rows": -9, "batch_size": 2}]
)
def test_captions_of_nonsense_settings_are_damaged(tmp_path, settings, capsys):
    (tmp_path / "c.parquet.parts").mkdir()
    (tmp_path / "c.parquet.parts" / "settings.json").write_text(json.dumps({"settings": settings}))
    assert status(tmp_path / "c.parquet", capsys)["state"] == "damaged"


def test_one_damaged_file_of_a_store_hides_no_other_run(tmp_path, capsys):
    from synclones.ablate.planned import planned, remember
    from synclones.ablate.settings import RunConfig

    config = RunConfig(grid="table6", world="lab", scale="1/4000", out=tmp_path)
    remember(config, *planned(config))
    (tmp_path / "steps" / "images").mkdir(parents=True)
    whole = status(tmp_path, capsys)
    (tmp_path / "runs" / "aa.yaml").write_text("{")
    value = status(tmp_path, capsys)
    assert value["state"] == "damaged" and (value["planned"], value["next"]) == (whole["planned"], whole["next"])


def test_a_folder_of_which_only_progress_tells_is_told_of(tmp_path, capsys):
    Progress("images", 40, 9, folder=tmp_path, shown=False).close()
    value = status(tmp_path, capsys)
    assert [value[name] for name in ("state", "done", "planned", "unit")] == ["unfinished", 9, 40, "images"]


@pytest.mark.parametrize("seconds", [240, 600])
def test_the_rate_of_pieces_of_many_minutes_is_theirs(monkeypatch, seconds):
    monkeypatch.setattr(threading.Thread, "start", lambda self: None)
    clock = Clock()
    progress = Progress("images", 1000, clock=clock, shown=False)
    for _ in range(4):
        passing(progress, clock, seconds - 1)
        clock.now += 1
        progress.add(10)
        assert progress.rate == pytest.approx(10 / seconds)
    passing(progress, clock, seconds - 1)
    assert progress.rate == pytest.approx(10 / seconds)
    passing(progress, clock, 9 * seconds)
    assert progress.rate < 5 / seconds


def test_plan_only_and_dry_runs_print_json(tmp_path, monkeypatch, capsys, dataset):
    monkeypatch.chdir(tmp_path)
    dispatch(["generate", "--config", str(dataset / "config.yaml"), "--out", "new", "--plan-only", "--json"])
    assert json.loads(capsys.readouterr().out)["drawn"] == 0
    dispatch(["evaluate", "--dry-run", "--json"])
    assert json.loads(capsys.readouterr().out)["missing"]


def test_a_stage_that_the_lab_runs_first_keeps_to_its_own_streams(monkeypatch):
    import synclones.lab.world as world

    called = []
    monkeypatch.setattr(
        world.subprocess,
        "run",
        lambda words, **how: called.append((words, how)) or subprocess.CompletedProcess(words, 0),
    )
    with shaped(quiet=True, json=True):
        world._run("x")
    assert called[0][0][-1] == "--quiet" and called[0][1]["stdout"] == 2


def test_what_the_lab_s_own_stage_says_is_an_error_and_no_end_of_the_notebook(monkeypatch, tmp_path):
    import synclones.train.run as train_run
    from synclones import api

    monkeypatch.chdir(tmp_path)

    def ended():
        raise SystemExit(2)

    monkeypatch.setattr(train_run, "ensure_synthetic", ended)
    with pytest.raises(InputError):
        api.train(samples=256, batch_size=128)


def test_ctrl_c_names_the_command_though_nobody_handles_the_signal():
    from synclones.base.errors import as_synclones_error
    from synclones.base.resume import resumed_by

    with (
        pytest.raises(KeyboardInterrupt) as caught,
        resumed_by("synclones x", as_typed=True),
        resumed_by("synclones y"),
    ):
        raise KeyboardInterrupt
    assert str(as_synclones_error(caught.value)).endswith("or `synclones y`")


def test_two_trainings_of_two_precisions_follow_each_other_in_a_process(dataset, tmp_path, monkeypatch):
    import torch

    from synclones import api

    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state(), torch.get_num_threads(), dict(os.environ)
    for precision in ("fp32", "bf16"):
        api.train(dataset, recipe="lab", samples=40, batch_size=20, precision=precision, out=precision)
    assert (before[0] == torch.get_rng_state()).all() and before[1] == torch.get_num_threads()


def test_an_interrupted_drawing_is_over(dataset, tmp_path, monkeypatch):
    import synclones.generate.workers as workers
    from synclones import api

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(workers, "_wait", stop)
    monkeypatch.setattr(workers, "ThreadPoolExecutor", lambda *_, **__: type("P", (), {"submit": lambda *a: None})())
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        api.generate(config=dataset / "config.yaml", out=tmp_path / "x")
    for thread in set(threading.enumerate()) - before:  # it ends at the word, but not in the same instant
        thread.join(timeout=5)
    assert not [t for t in threading.enumerate() if t.name == "progress" and t not in before]


def test_an_evaluation_leaves_the_settings_of_another_one_in_the_folder(tmp_path, monkeypatch):
    import synclones.evaluate.evaluation as evaluation
    import synclones.evaluate.inputs as inputs
    import synclones.evaluate.run as run_
    from synclones.evaluate.settings import EvaluateConfig

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inputs, "check_given", lambda *_: (["m"], ["s"]))
    outer = EvaluateConfig(model=("a",), data=Path("d"), out=tmp_path / "r", seed=1)
    inner = EvaluateConfig(model=("b",), data=Path("d"), out=tmp_path / "r", seed=2)

    def evaluate(config, *_):
        if config.seed == 1:
            run_.perform(inner)
            assert "seed: 1" in (tmp_path / "r" / "config.yaml").read_text()

    monkeypatch.setattr(evaluation, "evaluate_models", evaluate)
    run_.perform(outer)
    assert not list((tmp_path / "r").iterdir())
