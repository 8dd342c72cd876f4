"""The main job: same bytes however it is run, plain diffusers redraws it, broken pictures are recorded, bad input."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import FrozenInstanceError, replace
from functools import partialmethod
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import GENERATOR, QUICK, ROOT, identity, run_command, synclones

from synclones.base.errors import InputError, MachineError, VerificationError
from synclones.base.manifest import trace
from synclones.evaluate.predict import TestSet
from synclones.generate.generators.generator import load_pipeline, make_generator
from synclones.generate.generators.model import find_model
from synclones.generate.plan import LIBRARIES, read_plan
from synclones.generate.preview.sheet import GrowingPreview
from synclones.generate.progress import DrawProgress, bytes_reproduced
from synclones.generate.redraw import redraws_alike
from synclones.generate.run import main
from synclones.generate.sampling.pixels import to_host
from synclones.generate.sampling.sampler import Sampler
from synclones.generate.sampling.seeds import noise_generators, sample_seed
from synclones.generate.worker import shard_order
from synclones.prompts.build import build
from synclones.prompts.classes.lists import load_classes
from synclones.prompts.table import PromptTable
from synclones.shards.lock import claim
from synclones.shards.read import ShardFolder
from synclones.shards.run import main as verify_shards
from synclones.shards.schema import FailedSample
from synclones.shards.sources.decode import decode_image


def test_the_dataset_folder_holds_what_the_format_says(dataset):
    names = {path.name for path in dataset.iterdir()}
    shards = {f"train-0000{n}.{suffix}" for n in range(3) for suffix in ("tar", "parquet", "json")}
    derived = {"info.json", "sizes.json", "SHA256SUMS", "manifest.json", "preview.html", "croissant.json"}
    assert names == shards | derived | {"plan.json", "README.md", "config.yaml", "log"}
    rows = [row for n in range(3) for row in pq.read_table(dataset / f"train-0000{n}.parquet").to_pylist()]
    assert [row["index"] for row in rows] == list(range(60))
    assert {row["status"] for row in rows} == {"ok"}


def test_each_image_has_its_prompt_label_and_facts(dataset, prompts):
    plan = read_plan(dataset)
    for row, sample in zip(PromptTable(prompts).rows(0, 60), ShardFolder(dataset).sequential(), strict=True):
        facts = json.loads(sample.json)
        assert (sample.txt, sample.label, sample.index) == (row.prompt, row.label, row.index)
        assert facts["plan"] == plan.plan_id and facts["seed"] == sample.seed and facts["caption_id"] == row.caption_id
        assert decode_image(sample.jpg).shape == (32, 32, 3)


def test_two_torchrun_processes_give_the_bytes_of_one(dataset, prompts, tmp_path):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    command = (*torchrun, str(ROOT / "generate" / "run.py"), "--prompts", str(prompts), "--out", "x", *QUICK)
    done = run_command(*command, cwd=tmp_path, ACCELERATE_USE_CPU="true", MASTER_PORT="29611")
    assert done.returncode == 0, done.stderr[-2000:]
    assert identity(tmp_path / "x") == identity(dataset)


def test_accelerate_launch_works_without_arguments_that_name_an_input(tmp_path):
    launch = (sys.executable, "-m", "accelerate.commands.launch", str(ROOT / "generate" / "run.py"))
    done = run_command(*launch, "--num-images", "50", "--num-inference-steps", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "about a second" in done.stderr
    assert ShardFolder(tmp_path / "data" / "lab").num_samples == 50


def test_workers_and_the_order_of_shards_do_not_change_bytes(dataset, prompts, tmp_path):
    main(["--prompts", str(prompts), "--out", str(tmp_path / "x"), *QUICK, "--workers", "3"])
    assert identity(tmp_path / "x") == identity(dataset)


def test_parts_drawn_one_after_the_other_make_the_same_set(dataset, prompts, tmp_path, capsys):
    for part in ("2/2", "1/2"):
        main(["--prompts", str(prompts), "--out", str(tmp_path / "x"), *QUICK, "--part", part])
    assert "other --part shares" in capsys.readouterr().out
    assert identity(tmp_path / "x") == identity(dataset)


def test_a_lost_shard_is_drawn_again_with_the_same_bytes(dataset, copy_of_dataset, prompts):
    (copy_of_dataset / "train-00001.tar").unlink()
    main(["--prompts", str(prompts), "--out", str(copy_of_dataset), *QUICK])
    assert identity(copy_of_dataset) == identity(dataset)


def test_a_complete_dataset_is_left_alone(copy_of_dataset, prompts, capsys):
    before = (copy_of_dataset / "manifest.json").read_bytes()
    main(["--prompts", str(prompts), "--out", str(copy_of_dataset), *QUICK])
    assert "nothing to do" in capsys.readouterr().err
    assert (copy_of_dataset / "manifest.json").read_bytes() == before


def test_the_saved_configuration_reproduces_the_dataset(dataset, tmp_path):
    main(["--config", str(dataset / "config.yaml"), "--out", str(tmp_path / "x")])
    assert identity(tmp_path / "x") == identity(dataset)


def test_a_prefix_of_the_table_gives_the_images_of_the_prefix(dataset, prompts, tmp_path):
    main(["--prompts", str(prompts), "--out", str(tmp_path / "x"), *QUICK, "--num-images", "40"])
    whole, part = ShardFolder(dataset), ShardFolder(tmp_path / "x")
    assert part.num_samples == 40
    assert all(part.get(index).jpg == whole.get(index).jpg for index in range(40))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_plain_diffusers_redraws_an_image_from_its_prompt_and_seed(prompts, tmp_path, dtype):
    main(["--prompts", str(prompts), "--out", str(tmp_path / "x"), *QUICK, "--num-images", "5", "--dtype", dtype])
    pipeline = load_pipeline(make_generator(find_model(str(GENERATOR))), "DDIMScheduler", dtype, "cpu")
    samples = list(ShardFolder(tmp_path / "x").sequential())
    torch.set_num_threads(1)
    images = pipeline(
        [sample.txt for sample in samples],
        negative_prompt=[""] * 5,
        num_inference_steps=2,
        guidance_scale=2.0,
        generator=noise_generators([sample.seed for sample in samples]),
        output_type="np",
    ).images
    stored = np.stack([decode_image(sample.jpg) for sample in samples])
    error = np.abs((images * 255).round() - stored.astype(float)).mean()
    assert error < 4, "the difference is more than JPEG at quality 90 makes"
    shifted = np.abs((np.roll(images, 1, axis=0) * 255).round() - stored.astype(float)).mean()
    assert shifted > 3 * error, "another seed and prompt must give another picture"


def test_a_broken_picture_is_drawn_again_and_then_recorded(prompts, tmp_path, monkeypatch):
    draw = Sampler._draw_once
    calls: dict[int, int] = {}

    def sometimes_broken(self, texts, seeds, *more):
        images, reasons = draw(self, texts, seeds, *more)
        for position, text in enumerate(texts):
            if "two" in text or ("three" in text and calls.setdefault(id(self), 0) == 0):
                reasons[position] = "not finite"
        calls[id(self)] = calls.get(id(self), 0) + 1
        return images, reasons

    monkeypatch.setattr(Sampler, "_draw_once", sometimes_broken)
    quick = [*QUICK, "--num-images", "10", "--max-attempts", "2", "--workers", "1"]
    main(["--prompts", str(prompts), "--out", str(tmp_path / "x"), *quick])
    rows = pq.read_table(tmp_path / "x" / "train-00000.parquet").to_pylist()
    assert [row["status"] for row in rows if row["label"] == 2] == ["failed"]
    assert rows[2]["reason"] == "not finite" and rows[2]["attempt"] == 1
    assert rows[3]["status"] == "ok" and rows[3]["attempt"] == 1, "the second seed was good"
    assert rows[4]["attempt"] == 0
    manifest = json.loads((tmp_path / "x" / "manifest.json").read_text())
    assert manifest["counts"] == {"planned": 10, "ok": 9, "failed": 1, "dropped": 0}


def test_a_further_attempt_leaves_the_records_of_the_one_before_as_they_were(prompts, dataset, monkeypatch):
    draw, attempt, records = Sampler._draw_once, Sampler._attempt, []

    def first_is_broken(self, texts, seeds, *more):
        images, reasons = draw(self, texts, seeds, *more)
        return images, ["not finite" if not records else "", *reasons[1:]]

    def kept(self, *args):
        records.append(attempt(self, *args))
        return records[-1]

    monkeypatch.setattr(Sampler, "_draw_once", first_is_broken)
    monkeypatch.setattr(Sampler, "_attempt", kept)
    plan, rows = read_plan(dataset), PromptTable(prompts).rows(0, 5)
    drawn = Sampler(
        load_pipeline(make_generator(find_model(str(GENERATOR))), plan.scheduler, plan.dtype, "cpu"), plan
    ).draw(rows)
    assert [[record.attempt for record in batch] for batch in records] == [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert [batch[0].verdict.status for batch in records] == ["failed", "ok"] and drawn == records[1]
    assert records[0][0].seed == sample_seed(plan.seed, 0, 0) != drawn[0].seed
    assert all(before is after for before, after in zip(records[0][1:], drawn[1:], strict=True))
    with pytest.raises(FrozenInstanceError):
        drawn[0].seed = 0


def test_not_finite_and_blank_pictures_are_told_apart(prompts, dataset):
    plan = read_plan(dataset)
    sampler = Sampler(load_pipeline(make_generator(find_model(str(GENERATOR))), plan.scheduler, "float32", "cpu"), plan)
    latents = torch.zeros(3, 4, 8, 8)
    latents[0] = float("nan")
    latents[2] = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0)) * 3
    sampler.pipeline.vae.decode = lambda z, return_dict: ((z.mean(1, keepdim=True).repeat(1, 3, 4, 4)),)
    _, reasons = to_host([sampler._decode(latents)])
    assert reasons == ["not finite", "blank picture", ""]


def test_workers_share_weights_and_nothing_that_keeps_state(dataset):
    plan = read_plan(dataset)
    pipeline = load_pipeline(make_generator(find_model(str(GENERATOR))), plan.scheduler, "float32", "cpu")
    first, second = (Sampler(pipeline, plan).pipeline for _ in range(2))
    assert first.unet is second.unet and first.vae is second.vae and first.text_encoder is second.text_encoder
    for stateful in ("scheduler", "tokenizer"):
        assert getattr(first, stateful) is not getattr(second, stateful)


def test_a_device_that_draws_other_bytes_is_found_out(dataset, copy_of_dataset, prompts, tmp_path):
    plan, table = read_plan(dataset), PromptTable(prompts)
    torch.set_num_threads(1)
    sampler = Sampler(
        load_pipeline(make_generator(find_model(str(GENERATOR))), plan.scheduler, plan.dtype, "cpu"), plan
    )
    assert redraws_alike(plan, dataset, table, sampler) is True
    assert redraws_alike(plan, tmp_path, table, sampler) is None
    other = replace(plan, guidance_scale=2.1)
    assert redraws_alike(plan, dataset, table, Sampler(sampler.pipeline, other)) is False
    assert json.loads((dataset / "manifest.json").read_text())["bytes"] == "reproduced"
    DrawProgress(copy_of_dataset, 60, 60, 0, 1).redrawn(False)
    assert not bytes_reproduced(copy_of_dataset)


def test_many_workers_at_once_draw_what_one_draws(prompts, tmp_path):
    """Short batches keep threads switching."""
    quick = ["--model", "lab", "--batch-size", "1", "--images-per-shard", "1", "--num-inference-steps", "1"]
    main(["--prompts", str(prompts), "--out", str(tmp_path / "one"), *quick, "--workers", "1"])
    main(["--prompts", str(prompts), "--out", str(tmp_path / "eight"), *quick, "--workers", "8"])
    assert identity(tmp_path / "eight") == identity(tmp_path / "one")


def test_a_worker_starts_with_its_share_and_then_helps():
    orders = [shard_order(range(10), worker, 3) for worker in range(3)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert [order[0] for order in orders] == [0, 1, 2]


def test_a_dry_run_and_a_generation_give_json_and_nothing_else(prompts, copy_of_dataset, capsys):
    flags = ["--prompts", str(prompts), "--out", str(copy_of_dataset), *QUICK, "--json"]
    main([*flags, "--dry-run", "--price-per-hour", "2"])
    value = json.loads(capsys.readouterr().out)
    assert (value["command"], value["images"], value["shards"], value["unit"]) == ("generate", 60, 3, "images")
    assert value["dollars"] > 0 and value["plan_id"] and value["licence"]
    (copy_of_dataset / "train-00001.json").unlink()
    for drawn in (20, 0):
        main(flags)
        value = json.loads(capsys.readouterr().out)
        assert value["complete"] and value["planned"] == 60 and value["drawn"] == drawn


def test_dry_run_prints_plan_rate_time_and_cost_and_writes_nothing(prompts, tmp_path, capsys):
    main(["--prompts", str(prompts), "--out", str(tmp_path / "x"), *QUICK, "--dry-run", "--price-per-hour", "2"])
    printed = capsys.readouterr().out
    for word in ("60 images in 3 shards", "KB", "images/s", "with eight", "cents at 2 dollars per hour", "licence"):
        assert word in printed
    assert list(tmp_path.iterdir()) == []


def test_plan_only_writes_the_plan_and_the_card(prompts, dataset, tmp_path):
    main(["--prompts", str(prompts), "--out", str(tmp_path / "x"), *QUICK, "--plan-only"])
    assert (tmp_path / "x" / "plan.json").read_bytes() == (dataset / "plan.json").read_bytes()
    assert (tmp_path / "x" / "README.md").exists() and not list((tmp_path / "x").glob("*.tar"))


def test_trace_follows_a_dataset_to_its_prompts(dataset, prompts, tmp_path):
    done = synclones("trace", str(dataset), cwd=tmp_path)
    assert done.returncode == 0
    assert "generate" in done.stdout and str(prompts) in done.stdout and "60 ok" in done.stdout


def test_the_contact_sheet_shows_every_class_with_prompts(dataset):
    page = (dataset / "preview.html").read_text()
    assert page.count("<h2>") == 10 and page.count("<figure") == 60
    assert "http://" not in page and "https://" not in page
    assert (
        PromptTable(json.loads((dataset / "manifest.json").read_text())["parents"][0]["path"]).rows(0, 1)[0].prompt
        in page
    )


def test_any_image_can_be_drawn_again_from_its_folder(dataset, copy_of_dataset, tmp_path, capsys):
    main(["redraw", str(dataset), "--index", "37", "--out", str(tmp_path / "37.jpg")])
    assert "the same" in capsys.readouterr().out
    assert (tmp_path / "37.jpg").read_bytes() == ShardFolder(dataset).get(37).jpg
    plan = json.loads((copy_of_dataset / "plan.json").read_text())
    (copy_of_dataset / "plan.json").write_text(json.dumps(plan | {"model_sha256": "0" * 64}))
    with pytest.raises(InputError, match="cannot be redrawn here: model_sha256"):
        main(["redraw", str(copy_of_dataset), "--index", "37"])
    with pytest.raises(InputError, match="no sample 60"):
        main(["redraw", str(dataset), "--index", "60"])
    for flags in ([], ["--index", "1", "--random", "2"], ["--random", "2", "--out", "x.jpg"]):
        with pytest.raises(InputError, match="--index, --random: give one|--out: is for the one image"):
            main(["redraw", str(dataset), *flags])


def test_an_image_is_drawn_again_from_elsewhere_after_its_tree_has_moved(prompts, dataset, tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    shutil.copytree(dataset, tree / "data" / "x")
    shutil.copy(prompts, tree / "table.parquet")
    saved = (tree / "data" / "x" / "config.yaml").read_text()
    (tree / "data" / "x" / "config.yaml").write_text(saved.replace(str(prompts), "table.parquet"))
    tree.rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    main(["redraw", str(tmp_path / "moved" / "data" / "x"), "--index", "37"])
    (tmp_path / "moved" / "table.parquet").unlink()
    with pytest.raises(InputError, match="no file 'table.parquet'"):
        main(["redraw", str(tmp_path / "moved" / "data" / "x"), "--index", "37"])


def test_random_batches_are_drawn_again_and_one_foreign_image_is_noticed(dataset, copy_of_dataset, capsys):
    main(["redraw", str(dataset), "--random", "12"])
    assert "15 images of 3 random batches drawn again, the same bytes" in capsys.readouterr().out
    from synclones.generate import redraw

    with pytest.MonkeyPatch.context() as patch:
        real = redraw.draw_batch

        def one_wrong(plan, sampler, rows):
            drawn = real(plan, sampler, rows)
            return [replace(s, jpg=s.jpg + b"x") if s.index == 31 else s for s in drawn]

        patch.setattr(redraw, "draw_batch", one_wrong)
        with pytest.raises(VerificationError, match="1 of 60 images drawn again differ .*31"):
            main(["redraw", str(dataset), "--random", "60"])

        def one_failed(plan, sampler, rows):
            failed = FailedSample(index=32, status="failed", reason="blank picture")
            return [failed if s.index == 32 else s for s in real(plan, sampler, rows)]

        patch.setattr(redraw, "draw_batch", one_failed)
        with pytest.raises(VerificationError, match="1 of 60 images drawn again differ .*32"):
            main(["redraw", str(dataset), "--random", "60"])


def test_the_contact_sheet_grows_while_the_job_runs(prompts, tmp_path, monkeypatch):
    seen = []

    def keep(self):
        GrowingPreview.refresh.real(self)
        path = self._folder / "preview.html"
        seen.append(path.read_text() if path.exists() else "")

    keep.real = GrowingPreview.refresh
    monkeypatch.setattr(GrowingPreview, "refresh", keep)
    monkeypatch.setattr(GrowingPreview, "__init__", partialmethod(GrowingPreview.__init__, every_s=0.0))
    real = Sampler._draw_once
    monkeypatch.setattr(Sampler, "_draw_once", lambda self, *args: (time.sleep(0.3), real(self, *args))[1])
    _grow(prompts, tmp_path / "x", 60, "--workers", "1")
    assert any("images so far, 60 planned" in page for page in seen)
    assert "<h1>x: 60 images</h1>" in (tmp_path / "x" / "preview.html").read_text()


def test_a_contact_sheet_that_cannot_be_written_stops_the_workers(prompts, tmp_path, monkeypatch):
    looked, drawn, real = threading.Event(), [], Sampler._draw_once

    def full(self):
        looked.set()
        raise MachineError("disk full")

    def draw(self, *args):
        drawn.append(1)
        if len(drawn) > 1:  # on a busy machine the whole set could be drawn before anybody looks
            assert looked.wait(60)
        return real(self, *args)

    monkeypatch.setattr(GrowingPreview, "refresh", full)
    monkeypatch.setattr(Sampler, "_draw_once", draw)
    with pytest.raises(MachineError, match="disk full"):
        _grow(prompts, tmp_path / "x", 60, "--workers", "1")
    assert len(drawn) < 12, "twelve batches would be the whole set"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("draw")]


def test_the_contact_sheet_says_which_pictures_have_no_image(prompts, tmp_path, monkeypatch):
    real = Sampler._draw_once

    def blank(self, texts, seeds, *more):
        images, reasons = real(self, texts, seeds, *more)
        return images, ["blank picture", *reasons[1:]]

    monkeypatch.setattr(Sampler, "_draw_once", blank)
    _grow(prompts, tmp_path / "x", 20)
    assert "Without an image: 4 failed: blank picture." in (tmp_path / "x" / "preview.html").read_text()


def test_a_validation_set_is_named_so_and_found_by_readers(prompts, dataset, tmp_path):
    _grow(prompts, tmp_path / "x", 60, "--split", "val")
    assert {p.name for p in (tmp_path / "x").glob("*.tar")} == {f"val-0000{n}.tar" for n in range(3)}
    assert "val-*.tar" in (tmp_path / "x" / "README.md").read_text()
    mine, theirs = ShardFolder(tmp_path / "x", "val"), ShardFolder(dataset)
    assert [sample.jpg for sample in mine.sequential()] == [sample.jpg for sample in theirs.sequential()]
    verify_shards(["verify", str(tmp_path / "x")])
    assert TestSet(tmp_path / "x").class_ids == tuple("0123456789")
    main(["redraw", str(tmp_path / "x"), "--index", "7"])


# ------------------------------------------------------------------ growing


def _grow(prompts, out, n, *more):
    main(["--prompts", str(prompts), "--out", str(out), *QUICK, "--num-images", str(n), *more])


@pytest.mark.parametrize("first", [20, 33, 40])
def test_an_extended_set_is_the_set_drawn_at_once(prompts, dataset, tmp_path, first, capsys):
    _grow(prompts, tmp_path / "x", first)
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "x").glob("train-*.tar")}
    _grow(prompts, tmp_path / "x", 60, "--extend")
    assert identity(tmp_path / "x") == identity(dataset)
    same = [name for name, time in kept.items() if (tmp_path / "x" / name).stat().st_mtime_ns == time]
    assert len(same) == first // 20, "full shards are not drawn again"
    _grow(prompts, tmp_path / "x", 60, "--extend")
    assert "nothing to do" in capsys.readouterr().err


def test_a_set_grows_with_a_longer_table_that_begins_with_its_own(prompts, dataset, tmp_path):
    build("clip-templates", load_classes("lab-digits"), 33, 0, tmp_path / "short.parquet")
    main(["--prompts", str(tmp_path / "short.parquet"), "--out", str(tmp_path / "x"), *QUICK])
    build("clip-templates", load_classes("lab-digits"), 60, 1, tmp_path / "other.parquet")
    with pytest.raises(InputError, match="does not begin with the table of 33 rows"):
        _grow(tmp_path / "other.parquet", tmp_path / "x", 60, "--extend")
    _grow(prompts, tmp_path / "x", 60, "--extend")
    assert identity(tmp_path / "x") == identity(dataset)
    main(["redraw", str(tmp_path / "x"), "--index", "40"])


def test_only_more_images_extend_a_set(prompts, tmp_path):
    _grow(prompts, tmp_path / "x", 40)
    before = identity(tmp_path / "x")
    with pytest.raises(InputError, match="has 40 images, 20 were asked; a set only grows"):
        _grow(prompts, tmp_path / "x", 20, "--extend")
    with pytest.raises(
        InputError,
        match="another plan: guidance_scale 2.0 there, 3.0 asked, num_samples 40 there, 60 asked; choose a new --out$",
    ):
        _grow(prompts, tmp_path / "x", 60, "--extend", "--guidance-scale", "3")
    with pytest.raises(InputError, match="made by another plan: num_samples 40 there, 60 asked; .*--extend"):
        _grow(prompts, tmp_path / "x", 60)
    assert identity(tmp_path / "x") == before


def test_a_set_that_is_being_drawn_does_not_grow(prompts, tmp_path):
    _grow(prompts, tmp_path / "x", 33)
    with claim(tmp_path / "x", "train-00001"), pytest.raises(InputError, match="train-00001 is being drawn"):
        _grow(prompts, tmp_path / "x", 60, "--extend")


@pytest.mark.parametrize("stop_at", ["partial shard", "indexes", "plan"])
def test_growing_can_be_stopped_anywhere(prompts, dataset, tmp_path, monkeypatch, stop_at):
    from synclones.generate import extend

    _grow(prompts, tmp_path / "x", 33)
    steps = {"partial shard": "_remove_shard", "indexes": "_remove_indexes", "plan": "write_atomic"}

    def fail(*_):
        raise MachineError("stopped")

    with monkeypatch.context() as patch, pytest.raises(MachineError, match="stopped"):
        patch.setattr(extend, steps[stop_at], fail)
        _grow(prompts, tmp_path / "x", 60, "--extend")
    _grow(prompts, tmp_path / "x", 60, "--extend")
    assert identity(tmp_path / "x") == identity(dataset)


@pytest.mark.parametrize("stop_at", ["", "sync", "_remove_indexes"])
def test_a_set_grows_in_a_new_folder_beside_the_smaller_one(prompts, dataset, tmp_path, monkeypatch, stop_at, capsys):
    from synclones.generate import extend

    _grow(prompts, tmp_path / "x", 33)
    before, grow = identity(tmp_path / "x"), ("--extend", "--parent", str(tmp_path / "x"))

    def fail(*_):
        raise MachineError("stopped")

    if stop_at:
        with monkeypatch.context() as patch, pytest.raises(MachineError, match="stopped"):
            patch.setattr(extend, stop_at, fail)
            _grow(prompts, tmp_path / "y", 60, *grow)
    _grow(prompts, tmp_path / "y", 60, *grow)
    assert identity(tmp_path / "y") == identity(dataset) and identity(tmp_path / "x") == before
    shared = [(tmp_path / name / "train-00000.tar").stat().st_ino for name in ("x", "y")]
    assert len(set(shared)) == 1, "a full shard takes no room twice"
    assert f"  generate {tmp_path / 'x'}  " in trace(tmp_path / "y") and "changed since" not in trace(tmp_path / "y")
    capsys.readouterr()
    _grow(prompts, tmp_path / "y", 60, *grow)
    main(["--config", str(tmp_path / "y" / "config.yaml")])
    assert capsys.readouterr().err.count("nothing to do") == 2


def test_what_cannot_grow_in_a_new_folder_is_refused_and_nothing_is_written(prompts, tmp_path):
    _grow(prompts, tmp_path / "x", 33)
    grow = ("--extend", "--parent", str(tmp_path / "x"))
    with pytest.raises(InputError, match="a set grows there beside its --parent"):
        _grow(prompts, tmp_path / "x", 60, *grow)
    with pytest.raises(InputError, match="guidance_scale 2.0 there, 3.0 asked"):
        _grow(prompts, tmp_path / "y", 60, *grow, "--guidance-scale", "3")
    (tmp_path / "x" / "SHA256SUMS").unlink()
    with pytest.raises(VerificationError, match="unfinished"):
        _grow(prompts, tmp_path / "y", 60, *grow)
    assert not (tmp_path / "y").exists()


# ------------------------------------------------------------------ bad input


def _refused(tmp_path, kind, *flags: str) -> str:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(kind) as caught:
        main([*flags])
    assert sorted(tmp_path.rglob("*")) == before, "nothing may be written"
    text = str(caught.value)
    assert "\n" not in text
    return text


def _copy_of_generator(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GENERATOR, tmp_path / "model"))


def test_no_model_loads_before_input_is_checked(prompts, tmp_path, monkeypatch):
    def never(*args):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("synclones.generate.workers.load_pipeline", never)
    out = str(tmp_path / "x")
    assert "did you mean '--guidance-scale'" in _refused(tmp_path, InputError, "--guidence-scale", "2", "--out", out)
    assert "--num-inference-steps" in _refused(tmp_path, InputError, "--num-inference-steps", "many", "--out", out)
    assert "did you mean 'synclr'" in _refused(tmp_path, InputError, "--preset", "sycnlr", "--out", out)
    assert "choose 50" in _refused(
        tmp_path, InputError, "--images-per-shard", "33", "--prompts", str(prompts), "--out", out
    )
    assert "expected 1 to 100" in _refused(tmp_path, InputError, "--jpeg-quality", "0", "--out", out)
    assert "has 60 rows" in _refused(
        tmp_path, InputError, "--num-images", "61", "--prompts", str(prompts), "--out", out
    )
    assert "K/N" in _refused(tmp_path, InputError, "--part", "0/4", "--prompts", str(prompts), "--out", out)
    assert "did you mean 'DDIMScheduler'" in _refused(
        tmp_path, InputError, "--preset", "lab", "--scheduler", "DDIMSheduler", "--prompts", str(prompts), "--out", out
    )
    assert "multiple of 8" in _refused(
        tmp_path, InputError, "--preset", "lab", "--size-px", "30", "--prompts", str(prompts), "--out", out
    )
    assert "larger than the drawn" in _refused(
        tmp_path, InputError, "--preset", "lab", "--stored-px", "64", "--prompts", str(prompts), "--out", out
    )


def test_a_config_file_with_a_mistake_names_line_and_key(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("model: lab\nguidence_scale: 2\n")
    text = _refused(tmp_path, InputError, "--config", str(config), "--out", str(tmp_path / "x"))
    assert text.startswith(f"{config}:2: key 'guidence_scale'") and "did you mean 'guidance_scale'" in text
    config.write_text("model: lab\nnum_images: soon\n")
    assert "num_images: got 'soon'" in _refused(tmp_path, InputError, "--config", str(config))


def test_a_missing_empty_or_bad_prompt_table_is_refused(tmp_path, prompts):
    out = ("--out", str(tmp_path / "x"))
    assert "no file" in _refused(tmp_path, InputError, "--prompts", str(tmp_path / "none.parquet"), *out)
    table = pq.read_table(prompts)
    bad = tmp_path / "bad.parquet"
    pq.write_table(table.slice(0, 0), bad)
    assert "no rows" in _refused(tmp_path, InputError, "--prompts", str(bad), *out)
    column = table.column("prompt").to_pylist()
    column[17] = "  "
    pq.write_table(table.replace_schema_metadata({}).set_column(1, "prompt", [column]), bad)
    text = _refused(tmp_path, InputError, "--prompts", str(bad), *out)
    assert "row 17" in text and "prompt" in text


def test_a_model_folder_that_is_missing_or_incomplete_is_refused(tmp_path, prompts):
    flags = ("--prompts", str(prompts), "--out", str(tmp_path / "x"), "--model")
    assert "no folder" in _refused(tmp_path, InputError, *flags, str(tmp_path / "nothing"))
    model = _copy_of_generator(tmp_path)
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    assert "unet" in _refused(tmp_path, InputError, *flags, str(model))
    (model / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"x")
    assert "is a pickle" in _refused(tmp_path, InputError, *flags, str(model))
    weights.write_bytes(data[:-100])
    assert "cut short" in _refused(tmp_path, InputError, *flags, str(model))
    weights.write_bytes(data)
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    assert "FluxPipeline" in _refused(tmp_path, InputError, *flags, str(model))
    (model / "model_index.json").write_text(json.dumps(index | {"unet": ["evil", "Net"]}))
    assert "'evil'" in _refused(tmp_path, InputError, *flags, str(model))
    (model / "model_index.json").write_text("{")
    assert "not JSON" in _refused(tmp_path, InputError, *flags, str(model))
    (model / "model_index.json").unlink()
    assert "model_index.json is missing" in _refused(tmp_path, InputError, *flags, str(model))


def test_a_hub_id_without_a_network_says_how_to_use_a_folder(tmp_path, prompts, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    text = _refused(
        tmp_path, MachineError, "--model", "nobody/nothing", "--prompts", str(prompts), "--out", str(tmp_path / "x")
    )
    assert "--model path/to/folder" in text


def test_a_folder_of_another_plan_is_refused_and_says_what_differs(copy_of_dataset, prompts, tmp_path):
    flags = ("--prompts", str(prompts), "--out", str(copy_of_dataset), *QUICK)
    text = _refused(tmp_path, InputError, *flags, "--seed", "1", "--guidance-scale", "3")
    assert "seed 0 there, 1 asked" in text and "guidance_scale 2.0 there, 3.0 asked" in text
    assert "num_samples" not in text
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.tex").write_text("x")
    assert "'thesis.tex'" in _refused(tmp_path, InputError, "--prompts", str(prompts), "--out", str(strange), *QUICK)


def test_versions_belong_to_the_plan(copy_of_dataset, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr("synclones.generate.plan.versions", lambda: dict.fromkeys(LIBRARIES, "9.9"))
    text = _refused(tmp_path, InputError, "--prompts", str(prompts), "--out", str(copy_of_dataset), *QUICK)
    assert "versions.torch" in text and "'9.9' asked" in text


def test_exit_codes_and_the_one_line_reach_the_shell(copy_of_dataset, tmp_path):
    bad = synclones("generate", "--guidence-scale", "2", cwd=tmp_path)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("synclones: error: --guidence-scale") and bad.stderr.count("\n") == 1
    (copy_of_dataset / "train-00001.tar").write_bytes(b"short")
    broken = synclones("shards", "verify", str(copy_of_dataset), cwd=tmp_path)
    assert broken.returncode == 3 and "train-00001.tar" in broken.stderr
    assert list(tmp_path.iterdir()) == [copy_of_dataset]


def test_sigterm_stops_with_143_and_the_line_that_resumes(prompts, dataset, tmp_path):
    command = [sys.executable, str(ROOT / "generate" / "run.py"), "--prompts", str(prompts), "--out", "x", *QUICK]
    slow = [*command[:-1], "400"]  # steps: long enough to be stopped in the middle
    process = subprocess.Popen(slow, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        while not (tmp_path / "x" / "log").exists():
            assert process.poll() is None
        process.terminate()
        _, errors = process.communicate(timeout=25)
    finally:
        process.kill()
    assert process.returncode == 143 and "run the same command again to resume" in errors


@pytest.mark.root
def test_a_full_disk_exits_4_leaves_nothing_partial_and_the_rerun_finishes(dataset, prompts, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=220k", "tmpfs", str(disk)], check=True)
    try:
        command = ("generate", "--prompts", str(prompts), "--out", str(disk / "x"), *QUICK, "--workers", "1")
        full = synclones(*command, cwd=tmp_path)
        assert full.returncode == 4, full.stderr
        assert "No space left on device" in full.stderr and full.stderr.count("synclones: error:") == 1
        for tar in (disk / "x").glob("*.tar"):
            assert tar.read_bytes() == (dataset / tar.name).read_bytes()
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert synclones(*command, cwd=tmp_path).returncode == 0
        assert identity(disk / "x") == identity(dataset)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_two_commands_on_one_folder_share_the_work(dataset, prompts, tmp_path):
    command = [sys.executable, str(ROOT / "generate" / "run.py"), "--prompts", str(prompts), "--out", "x", *QUICK]
    both = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert identity(tmp_path / "x") == identity(dataset)
    assert os.listdir(tmp_path / "x" / "log")
