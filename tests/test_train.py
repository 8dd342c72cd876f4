"""Training: what it makes, what resumes, what it refuses, and that a checkpoint is whole or absent."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import ROOT, run_command, synclones

import synclones.train.job as job
from synclones.base.config import load
from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_file
from synclones.base.manifest import trace
from synclones.models.folder import load_classifier, stated_hashes
from synclones.train.launch import start_accelerator
from synclones.train.loop import Trainer
from synclones.train.progress import read_metrics
from synclones.train.recovery.capsule import read_capsule
from synclones.train.recovery.checkpoint import Checkpoint, newest_checkpoint, read_checkpoint, save_checkpoint
from synclones.train.recovery.finite import FiniteSteps
from synclones.train.recovery.folder_names import list_checkpoints
from synclones.train.run import main
from synclones.train.settings import TrainConfig

TINY = (
    *("--architecture", "vit_tiny_patch16_224", "--image-size-px", "32", "--patch-size", "8", "--embed-dim", "24"),
    *("--depth", "1", "--num-heads", "2", "--batch-size", "8", "--steps", "12", "--checkpoint-every", "4"),
    *("--log-every", "2", "--torch-threads", "1", "--no-flip"),
)


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    """A finished run of twelve steps."""
    out = tmp_path_factory.mktemp("runs") / "reference"
    main(["--data", str(dataset), "--out", str(out), *TINY])
    return out


def _weights(run) -> str:
    return sha256_file(run / "export" / "model.safetensors")


# ------------------------------------------------------------------ what it makes


def test_the_export_is_a_timm_model_with_the_same_answers(trained):
    ours, digest = load_classifier(trained)
    theirs = timm.create_model(f"local-dir:{trained / 'export'}", pretrained=True).eval()
    pixels = torch.rand(3, 3, 32, 32)
    mean, std = (torch.tensor(theirs.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        assert torch.equal(ours(pixels), theirs((pixels - mean) / std))
    assert ours.class_ids == tuple("0123456789") and digest == _weights(trained)
    card = (trained / "export" / "README.md").read_text()
    assert digest in card and json.loads((trained / "plan.json").read_text())["data"][0]["content_hash"] in card


def test_manifest_and_card_state_the_hashes_of_both_files(trained):
    stated = stated_hashes(trained / "export")
    for name in ("model.safetensors", "config.json"):
        assert stated[name] == dict.fromkeys(("manifest.json", "README.md"), sha256_file(trained / "export" / name))


def test_the_run_folder_tells_its_story(trained):
    lines = read_metrics(trained / "metrics.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert all(line["samples"] == 8 * line["step"] and line["loss"] > 0 for line in lines)
    story = trace(trained).splitlines()
    assert [line.split()[0] for line in story] == ["train", "generate", "prompts", "generator"]
    assert "changed since" not in "\n".join(story)
    assert {path.name for _, path in list_checkpoints(trained / "checkpoints")} == {"step-00000008", "step-00000012"}


def test_a_finished_run_is_left_alone(trained, dataset, capsys):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*.safetensors")}
    main(["--data", str(dataset), "--out", str(trained), *TINY])
    assert "complete, 12 steps; nothing to do" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in trained.rglob("*.safetensors")}


def test_metrics_go_to_tensorboard_as_well_when_asked(dataset, trained, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    main(["--data", str(dataset), "--out", str(tmp_path / "run"), *TINY, "--track", "tensorboard"])
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    ours = {line["step"]: line["loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")}
    assert {event.step: event.value for event in events.Scalars("loss")} == pytest.approx(ours)
    assert _weights(tmp_path / "run") == _weights(trained) and not (trained / "tensorboard").exists()


def test_a_tracker_that_is_not_installed_is_refused(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "find_spec", lambda name: None)
    flags = ("--data", str(dataset), "--out", str(tmp_path / "run"), *TINY, "--track", "trackio")
    _refused(*flags, match=r"--track trackio: not installed; run: pip install 'synclones\[track\]'")
    flags = (*flags[:-1], "wandb")
    _refused(*flags, match=r"--track wandb: not installed; run: pip install 'synclones\[wandb\]'")


def test_a_length_given_by_flag_takes_the_place_of_the_recipe_s(dataset, tmp_path):
    flags = ("--recipe", "lab", "--data", str(dataset), "--out", str(tmp_path / "run"), "--batch-size", "20")
    main([*flags, "--epochs", "2", "--torch-threads", "1"])
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["step"] == 6


def test_a_training_learns(dataset, tmp_path):
    steps = ("--steps", "300", "--learning-rate", "0.003", "--batch-size", "30", "--embed-dim", "48")
    main(["--data", str(dataset), "--out", str(tmp_path / "run"), *TINY, *steps, "--crop-scale-min", "1"])
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert lines[-1]["accuracy"] > 0.9 > 0.4 > lines[0]["accuracy"]


def test_micro_batches_do_not_change_the_gradient(dataset, trained, tmp_path):
    main(["--data", str(dataset), "--out", str(tmp_path / "run"), *TINY, "--micro-batch-size", "3"])
    ours, theirs = (load_classifier(run)[0].network.state_dict() for run in (tmp_path / "run", trained))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in ours)


def test_two_processes_train_like_one(dataset, trained, tmp_path):
    command = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        str(ROOT / "train" / "run.py"),
        "--data",
        str(dataset),
    )
    done = run_command(*command, "--out", "run", *TINY, cwd=tmp_path, ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = (load_classifier(run)[0].network.state_dict() for run in (tmp_path / "run", trained))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-4
    lines = [read_metrics(run / "metrics.jsonl") for run in (tmp_path / "run", trained)]
    assert [line["learning_rate"] for line in lines[0]] == [line["learning_rate"] for line in lines[1]]
    assert np.allclose([line["loss"] for line in lines[0]], [line["loss"] for line in lines[1]], rtol=1e-4)


# ------------------------------------------------------------------ checkpoints


def _checkpoint(step: int) -> Checkpoint:
    tensors = {"a": torch.full((3,), float(step)), "b": torch.arange(4.0)}
    return Checkpoint(step, "plan", tensors, {f"exp_avg/{k}": v for k, v in tensors.items()}, {"skipped": 0})


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    path = save_checkpoint(tmp_path, _checkpoint(5), keep=2)
    found = read_checkpoint(path)
    assert (found.step, found.plan_id, found.state) == (5, "plan", {"skipped": 0})
    assert torch.equal(found.model["a"], torch.full((3,), 5.0)) and set(found.optimizer) == {"exp_avg/a", "exp_avg/b"}


FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "SHA256SUMS")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "empty", "short", "flipped"])
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_word(tmp_path, name, damage, capsys):
    for step in (1, 2):
        save_checkpoint(tmp_path, _checkpoint(step), keep=2)
    path = tmp_path / "step-00000002" / name
    data = path.read_bytes()
    broken = {"empty": b"", "short": data[:-1], "flipped": data[:9] + bytes([data[9] ^ 1]) + data[10:]}
    path.unlink() if damage == "missing" else path.write_bytes(broken[damage])
    found = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 1
    said = capsys.readouterr().err
    assert "step-00000002" in said and "going back to step-00000001" in said


def test_when_no_checkpoint_is_whole_the_run_is_not_begun_anew_in_silence(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, _checkpoint(1), keep=2)
    (tmp_path / "step-00000001" / "state.json").write_text("{}")
    (tmp_path / ".step-00000002.tmp").mkdir()  # what a kill leaves inside a save
    with pytest.raises(VerificationError, match=r"state\.json: differs .* no checkpoint is whole: delete"):
        newest_checkpoint(tmp_path)


def test_a_checkpoint_of_a_newer_version_is_told_from_damage(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, _checkpoint(step), keep=2)
    path = tmp_path / "step-00000002" / "state.json"
    record = json.loads(path.read_text())
    assert record["format"] == 1
    before = sha256_file(path)
    path.write_text(json.dumps(record | {"format": 2}))
    sums = path.with_name("SHA256SUMS")
    sums.write_text(sums.read_text().replace(before, sha256_file(path)) + f"{'0' * 64}  ema.safetensors\n")
    with pytest.raises(InputError, match=r"state\.json: format 2 was given, .* up to 1; a newer synclones wrote it"):
        newest_checkpoint(tmp_path)
    assert len(list_checkpoints(tmp_path)) == 2


def test_the_one_before_goes_only_after_the_new_one_verifies(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, _checkpoint(1), keep=1)
    write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: write(path, data[:-1] or data))
    with pytest.raises(VerificationError):
        save_checkpoint(tmp_path, _checkpoint(2), keep=1)
    assert newest_checkpoint(tmp_path).step == 1


def test_a_torn_line_and_lines_after_the_checkpoint_leave_the_metrics(trained, dataset, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "step-00000012")
    (run / "manifest.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 14, "lo')
    shutil.rmtree(run / "export")
    main(["--data", str(dataset), "--out", str(run), *TINY])
    assert (run / "metrics.jsonl").read_text() == (trained / "metrics.jsonl").read_text()
    assert _weights(run) == _weights(trained)


# ------------------------------------------------------------------ bad input


def _refused(*flags: str, match: str, error: type = InputError) -> None:
    with pytest.raises(error, match=match):
        main([*flags])


def test_data_that_do_not_fit_are_refused_before_anything_is_written(dataset, copy_of_dataset, tmp_path):
    out = tmp_path / "run"
    common = ("--out", str(out), *TINY)
    _refused("--data", str(tmp_path / "none"), *common, match="no such folder or file")
    _refused("--data", str(dataset), *common, "--batch-size", "61", match="61, the data have 60 images")
    _refused("--data", str(dataset), *common, "--epochs", "2", match="--steps and --epochs was given, expected exactly")
    _refused("--data", f"{dataset}:0", *common, match=":0.: repeat: .0. was given, expected how often")
    _refused("--data", str(dataset), *common, "--architecture", "vit_tinny_patch16_224", match="did you mean 'vit_tiny")
    _refused("--data", str(dataset), *common, "--objective", "supervized", match="did you mean 'supervised'")
    manifest = json.loads((copy_of_dataset / "manifest.json").read_text())
    (copy_of_dataset / "manifest.json").write_text(json.dumps(manifest | {"classes": list("01234567x9")}))
    both = ("--data", str(dataset), str(copy_of_dataset))
    _refused(*both, *common, match="has the class '8', .* has not; train on sets of the same classes")
    (copy_of_dataset / "manifest.json").write_text(json.dumps(manifest | {"classes": []}))
    _refused("--data", str(copy_of_dataset), *common, match="the images have no labels")
    (copy_of_dataset / "manifest.json").write_text(json.dumps(manifest | {"classes": list("01")}))
    _refused("--data", str(copy_of_dataset), *common, match="has label 2, expected 0 to 1")
    assert not (out / "checkpoints").exists()


def test_a_shard_damaged_before_the_start_is_named_with_code_3(copy_of_dataset, tmp_path):
    tar = copy_of_dataset / "train-00001.tar"
    tar.write_bytes(tar.read_bytes()[:-512])
    done = synclones("train", "--data", str(copy_of_dataset), "--out", "run", *TINY, cwd=tmp_path)
    assert done.returncode == 3 and "train-00001" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_full_verification_finds_a_flipped_bit_before_the_start(copy_of_dataset, tmp_path):
    _flip(copy_of_dataset / "train-00001.tar")
    flags = ("--data", str(copy_of_dataset), "--out", str(tmp_path / "run"), *TINY)
    _refused(*flags, "--verify", "full", match="train-00001", error=VerificationError)
    _refused(*flags, match="sample 00000000.. is damaged", error=VerificationError)
    main([*flags, "--on-bad-sample", "skip"])
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["skipped"] >= 1


def _flip(path) -> None:
    data = bytearray(path.read_bytes())
    data[4000] ^= 1
    path.write_bytes(data)


def test_another_training_in_the_folder_is_refused_with_the_difference(trained, dataset, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    flags = ("--data", str(dataset), "--out", str(run), *TINY)
    _refused(*flags, "--learning-rate", "0.5", match="learning_rate 0.001 there, 0.5 asked")
    plan = json.loads((run / "plan.json").read_text())
    assert plan["format"] == 1 and "objective" not in plan, "the plan of the only objective there was says no more"
    (run / "plan.json").write_text(json.dumps(plan | {"format": 7}))
    _refused(*flags, match=r"plan\.json: format 7 was given, .*; a newer synclones wrote it")
    (run / "plan.json").write_text("[" * 200_000)
    _refused(*flags, match=r"plan\.json: damaged", error=VerificationError)
    (run / "plan.json").unlink()
    (run / "manifest.json").unlink()
    _refused(*flags, match="has checkpoints but no plan.json")


def test_a_checkpoint_of_another_training_or_model_is_refused(trained, dataset, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "manifest.json").unlink()
    flags = ("--data", str(dataset), "--out", str(run), *TINY)
    newest = read_checkpoint(run / "checkpoints" / "step-00000012")
    other = Checkpoint(12, "another", newest.model, newest.optimizer, newest.state)
    save_checkpoint(run / "checkpoints", other, 2)
    _refused(*flags, match="step-00000012: a checkpoint of another training")
    wrong = Checkpoint(12, newest.plan_id, {"x": torch.zeros(2)}, newest.optimizer, newest.state)
    save_checkpoint(run / "checkpoints", wrong, 2)
    _refused(*flags, match="a checkpoint of another model")


def test_a_gradient_that_is_not_finite_stops_the_training_and_names_a_sample(dataset, tmp_path, monkeypatch, capsys):
    import synclones.train.objectives.supervised as supervised

    calls, losses = [0], supervised.losses

    def sometimes(batch, model, config):
        calls[0] += 1
        scale = torch.ones(len(batch.labels))
        scale[3] = float("nan") if calls[0] == 7 else 1.0
        return {name: each * scale for name, each in losses(batch, model, config).items()}

    monkeypatch.setattr(supervised, "losses", sometimes)
    with pytest.raises(
        VerificationError, match=r"step 7: .* not finite \(first at sample \d+ of .*; the checkpoints are"
    ) as stopped:
        main(["--data", str(dataset), "--out", str(tmp_path / "run"), *TINY])
    assert newest_checkpoint(tmp_path / "run" / "checkpoints").step == 4

    # The capsule leads back to the step: from the checkpoint before it, to the same image.
    (capsule,) = (tmp_path / "run").glob("capsule-*.json")
    (suspect,) = json.loads(capsule.read_text())["not_finite"]
    assert f"first at sample {suspect['sample']} of" in str(stopped.value) and str(capsule) in str(stopped.value)
    before, calls[0] = sorted(map(str, (tmp_path / "run").rglob("*"))), 4
    main(["replay", str(capsule)])
    said = capsys.readouterr().out
    assert "from step 4 to step 7" in said and "step 7: the gradient is not finite" in said
    assert (
        f"nan: sample {suspect['sample']} of {dataset}" in said and "losses of 8 images, 1 of them not finite" in said
    )
    assert sorted(map(str, (tmp_path / "run").rglob("*"))) == before
    calls[0] = 100  # as on another device, where the step goes well
    main(["replay", str(capsule)])
    assert "the gradient is finite here" in capsys.readouterr().out
    with pytest.raises(InputError, match="no such file; give the capsule"):
        main(["replay", str(tmp_path / "none.json")])
    with pytest.raises(InputError, match="no capsule of a training"):
        main(["replay", str(tmp_path / "run" / "plan.json")])


def test_the_first_step_without_a_gradient_is_named_however_late_it_is_looked_for(dataset, tmp_path):
    watched = job.prepare(load(TrainConfig, ["--data", str(dataset), "--out", str(tmp_path), *TINY], "train"), 0, 1)
    watch = FiniteSteps(watched, torch.device("cpu"))
    for step, norm in enumerate([1.0, float("inf"), 2.0, float("nan"), 1.0]):
        watch.note(step, torch.tensor(norm))
        if step == 0:
            watch.refuse()
    with pytest.raises(VerificationError, match="step 2: the gradient is not finite"):
        watch.refuse()
    assert read_capsule(tmp_path / "capsule-00000002.json").step == 1


def test_no_checkpoint_is_written_after_a_step_without_a_gradient(dataset, tmp_path):
    watched = job.prepare(load(TrainConfig, ["--data", str(dataset), "--out", str(tmp_path), *TINY], "train"), 0, 1)
    trainer = Trainer(watched, start_accelerator(watched))
    trainer.watch.note(0, torch.tensor(float("nan")))  # on a GPU nobody has looked yet
    with pytest.raises(VerificationError, match="step 1: the gradient is not finite"):
        trainer.save(0)
    assert not (tmp_path / "checkpoints").exists()


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(dataset, tmp_path, capsys):
    main(["--data", str(dataset), "--out", str(tmp_path / "run"), *TINY, "--dry-run", "--price-per-hour", "2"])
    said = capsys.readouterr().out
    assert "12 steps of 8: 96 images" in said and "images/s" in said and "dollars" in said
    assert not (tmp_path / "run").exists()


def test_a_dry_run_and_a_training_give_json_and_nothing_else(dataset, tmp_path, capsys):
    flags = ["--data", str(dataset), "--out", str(tmp_path / "run"), *TINY, "--json"]
    main([*flags, "--dry-run", "--price-per-hour", "2"])
    value = json.loads(capsys.readouterr().out)
    assert (value["command"], value["steps"], value["images"], value["unit"]) == ("train", 12, 96, "images")
    assert value["seconds"] > 0 and value["dollars"] > 0 and value["data"][0]["unique"] == 60
    for complete in ("trained", "nothing to do"):
        main(flags)
        captured = capsys.readouterr()
        value = json.loads(captured.out)
        assert value["complete"] and value["counts"]["steps"] == 12 and value["content_hash"], complete
    assert "complete, 12 steps; nothing to do" in captured.err


def test_a_quiet_training_says_nothing_on_the_way(dataset, tmp_path, capsys):
    main(["--data", str(dataset), "--out", str(tmp_path / "run"), *TINY, "-q"])
    captured = capsys.readouterr()
    assert captured.err == "" and "12 steps of 8 images" in captured.out


def test_two_trainings_of_one_folder_do_not_meet(dataset, tmp_path):
    from synclones.shards.lock import claim

    (tmp_path / "run").mkdir()
    with claim(tmp_path / "run", "run"):
        _refused("--data", str(dataset), "--out", str(tmp_path / "run"), *TINY, match="another process trains here")
