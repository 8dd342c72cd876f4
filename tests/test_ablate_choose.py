"""A choice as a file: what the learner is unsure of, a table that begins with the earlier one, and a manifest."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from shard_helpers import PLAN, sample

from synclones.ablate import choose as room
from synclones.ablate.choose import ChooseConfig, run_choose
from synclones.base.errors import InputError, MachineError
from synclones.base.files import sha256_file
from synclones.base.manifest import Parent, trace, write_manifest
from synclones.models.folder import export_classifier
from synclones.models.network import Classifier, Preprocessing, create_network
from synclones.prompts.build import build
from synclones.prompts.classes.lists import load_classes
from synclones.prompts.table import PromptTable
from synclones.shards.index import content_hash, finish_folder
from synclones.shards.schema import shard_name
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.write import ShardWriter

CLASSES = tuple(str(digit) for digit in range(10))
SHAPE = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Forty candidates of ten classes, and two learners."""
    base = tmp_path_factory.mktemp("practice")
    build("clip-templates", load_classes("lab-digits"), 40, 1, base / "candidates.parquet")
    build("clip-templates", load_classes("lab-digits"), 20, 0, base / "start.parquet")
    (base / "c").mkdir()
    with ShardWriter(base / "c", shard_name("train", 0, 1), PLAN) as writer:
        writer.add_batch(0, [replace(sample(i), label=i % 10) for i in range(40)])
        writer.finish()
    finish_folder(base / "c")
    prompts = Parent("prompts", str(base / "candidates.parquet"), PromptTable(base / "candidates.parquet").check())
    facts = {"classes": list(CLASSES), "content_hash": content_hash(base / "c")}
    write_manifest(base / "c", "generate", {}, [prompts], {"ok": 40}, {}, facts)
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = create_network("vit_tiny_patch16_224", len(CLASSES), 16, SHAPE)
        torch.nn.init.normal_(network.head.weight, std=3.0)  # sure of some images, and of others not
        export_classifier(
            base / f"r{seed}", Classifier(network, Preprocessing(size_px=16), CLASSES), SHAPE, "{weights_sha256}"
        )
    return base


def asked(world, out, **more):
    return ChooseConfig(**{"candidates": world / "c", "out": out, "learner": (str(world / "r0"),)} | more)


def scores(out):
    with (out / "scores.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_the_images_of_the_highest_entropy_of_each_class_are_taken(world, tmp_path):
    out = tmp_path / "choice"
    run_choose(asked(world, out, take=10))
    rows = scores(out)
    # The same computed plainly.
    source, (classifier, _) = LabelledSource(world / "c"), room_model(world / "r0")
    pixels = np.stack([source.read(i).pixels for i in range(40)])
    with torch.inference_mode():
        p = classifier(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255).double().softmax(1)
    entropy = -(p * p.log()).sum(1).numpy()
    assert np.allclose([row["score"] for row in rows], entropy, atol=1e-5) and np.ptp(entropy) > 0.1
    best = [max(range(digit, 40, 10), key=lambda i: rows[i]["score"]) for digit in range(10)]
    assert [int(line) for line in (out / "images.txt").read_text().split()] == sorted(best)
    assert [int(row["index"]) for row in rows if row["taken"]] == sorted(best)
    # The manifest names everything by hash, and the trace of whoever trains on the file goes through it.
    record = json.loads((out / "manifest.json").read_text())
    assert record["files"] == {"images.txt": sha256_file(out / "images.txt")} and record["counts"]["taken"] == 10
    assert {parent["name"] for parent in record["parents"]} == {"candidates", "learner", "policy"}
    assert "recipe clip-templates" in trace(out)


def room_model(folder):
    from synclones.models.folder import load_classifier

    return load_classifier(folder)


def test_the_same_choice_is_made_once_and_another_is_refused(world, tmp_path, capsys):
    out = tmp_path / "choice"
    run_choose(asked(world, out))
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.suffix != ".lock"}
    run_choose(asked(world, out))
    assert "nothing to do" in capsys.readouterr().err
    for more, expected in (({"seed": 1}, "seed 0 there, 1 asked"), ({"policy": "margin"}, "is of another choice")):
        with pytest.raises(InputError, match=expected):
            run_choose(asked(world, out, **more))
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.suffix != ".lock"} == before


@pytest.mark.parametrize("stop_at", ["predicting", "writing"])
def test_stopped_anywhere_the_same_choice_comes_out(world, tmp_path, monkeypatch, stop_at):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run_choose(asked(world, whole))

    def fail(*_):
        raise MachineError("stopped")

    with monkeypatch.context() as patch, pytest.raises(MachineError):
        patch.setattr(room, {"predicting": "_answers", "writing": "write_manifest"}[stop_at], fail)
        run_choose(asked(world, stopped))
    assert not (stopped / "manifest.json").exists()
    run_choose(asked(world, stopped))
    for name in ("images.txt", "scores.csv", "plan.json"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()


def test_prompts_that_are_taken_are_appended_to_the_earlier_table(world, tmp_path):
    out, earlier = tmp_path / "choice", PromptTable(world / "start.parquet")
    run_choose(asked(world, out, policy="entropy-prompts", table=world / "start.parquet", take=10))
    table, candidates = PromptTable(out / "prompts.parquet"), PromptTable(world / "candidates.parquet")
    assert table.num_rows == 30 and table.prefix_sha256(20) == earlier.check() and table.class_ids() == CLASSES
    record = json.loads((out / "manifest.json").read_text())
    assert record["files"] == {"prompts.parquet": table.check()}
    new = table.rows(20, 30)
    taken = [int(row["index"]) for row in scores(out) if row["taken"]]
    assert [json.loads(row.detail)["candidate"] for row in new] == taken
    assert [row.prompt for row in new] == [candidates.rows(i, i + 1)[0].prompt for i in taken]
    assert sorted(row.label for row in new) == list(range(10))
    assert not {row.caption_id for row in new} & {row.caption_id for row in table.rows(0, 20)}


def test_two_learners_and_a_teacher(world, tmp_path):
    both = (str(world / "r0"), str(world / "r1"))
    run_choose(asked(world, tmp_path / "d", policy="disagreement", learner=both, take=10))
    assert max(row["score"] for row in scores(tmp_path / "d")) > 0.01
    run_choose(asked(world, tmp_path / "t", policy="difficulty", learner=(), teacher=str(world / "r1"), take=10))
    run_choose(asked(world, tmp_path / "u", policy="random", learner=(), take=10))
    assert {row["score"] for row in scores(tmp_path / "u")} == {0} and not (tmp_path / "u" / "logits").exists()
    with pytest.raises(InputError, match="hold the same weights"):
        run_choose(asked(world, tmp_path / "x", policy="disagreement", learner=(both[0], both[0])))


@pytest.mark.parametrize(
    "more, expected",
    [
        ({"learner": ()}, "--learner: 0 were given, the score entropy takes 1"),
        ({"teacher": "t"}, "--teacher: the score entropy asks none"),
        ({"policy": "entropy-prompts"}, "--table: the policy entropy-prompts appends prompts"),
        ({"policy": "at-once"}, "draws all at once, and chooses nothing"),
        ({"learner": ("absent",)}, "absent: no such model"),
        ({"take": 50}, "class 0 has 4 candidates, 5 are to be taken"),
    ],
)
def test_what_does_not_fit_is_refused(world, tmp_path, more, expected):
    with pytest.raises(InputError, match=expected):
        run_choose(asked(world, tmp_path / "x", **more))
    assert not (tmp_path / "x").exists()


def test_a_folder_of_something_else_is_refused(world, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine.txt").write_text("")
    with pytest.raises(InputError, match="which no choice wrote"):
        run_choose(asked(world, tmp_path / "x"))
