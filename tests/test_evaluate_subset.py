"""Fewer images: the same ones in every copy of a set, and no more than the accuracy needs, however one looks."""

import io
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from test_evaluate import DIGITS, ONE_THREAD, _files, _model

from synclones.base.errors import InputError
from synclones.evaluate import predict
from synclones.evaluate.answers.predictions import CLEAN, EvaluatedModel
from synclones.evaluate.bounds import stopped
from synclones.evaluate.bounds.stopped import Stopped, enough
from synclones.evaluate.checks import training_data
from synclones.evaluate.run import main
from synclones.evaluate.settings import EvaluateConfig
from synclones.evaluate.stored import pieces
from synclones.evaluate.stored.results import read_cells
from synclones.evaluate.subsets import choice, until
from synclones.evaluate.subsets.choice import Orders, subsets
from synclones.evaluate.subsets.subset import hash_of
from synclones.evaluate.subsets.until import until_sure
from synclones.evaluate.suite import open_suite, read_suite

IMAGES, BLOCK = 400, 40
SUITE = """
title: small
classes: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
sets:
  - {name: val, role: reference, layout: folders, path: val}
  - {name: R, layout: folders, path: r}
  - {name: C, layout: corrupted, path: c, corruptions: [fog], severities: [1, 2]}
  - {name: others, layout: outliers, path: o}
"""


def write(folder, start, images, colour):
    """Images of one colour in folders of ten classes, called by their numbers."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    for number in range(start, start + images):
        path = folder / str(number % 10) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """400 images, two corrupted copies, 240 others of the classes, 90 of none; two models' folders."""
    folder = tmp_path_factory.mktemp("suite")
    write(folder / "val", 0, IMAGES, "red")
    for severity in (1, 2):
        write(folder / "c" / "fog" / str(severity), 0, IMAGES, (100 * severity, 0, 0))
    write(folder / "r", 1000, 240, "green")
    write(folder / "o", 2000, 90, "blue")
    (folder / "suite.yaml").write_text(SUITE)
    for seed, name in enumerate(("good", "bad")):
        _model(folder / "models" / name, DIGITS, seed)
    return folder


@pytest.fixture
def sets(root):
    return open_suite(read_suite(str(root / "suite.yaml")), root)


class Oracle:
    """Stands for forward passes: right for a share of the images, decided by their names; counts what it is asked."""

    def __init__(self, **rates):
        self.rates, self.asked, self.stop_after = rates, [], None

    def __call__(self, model, test_set, positions, condition):
        if len(self.asked) == self.stop_after:
            raise KeyboardInterrupt
        names = [test_set.file_name(position) for position in positions]
        self.asked.append((model.name, str(test_set.folder), str(condition), *names))
        labels = test_set.labels[positions.start : positions.stop].astype(np.int64)
        luck = np.array([int(hash_of(name, model.name)[:8], 16) / 2**32 for name in names])
        answers = np.where(luck < self.rates[model.name], labels, (labels + 1) % 10)
        logits = 4 * np.eye(10, dtype=np.float32)[answers]
        index = [test_set.source.index(test_set.position(position)) for position in positions]
        return logits, labels, np.array(index, dtype=np.int64)

    def images(self, condition="clean", folder="val"):
        own = [asked for asked in self.asked if asked[2] == condition and asked[1].endswith(folder)]
        return [name for asked in own for name in asked[3:]]


@pytest.fixture
def oracle(monkeypatch):
    oracle = Oracle(good=0.95, bad=0.4)
    monkeypatch.setattr(predict, "_predict_batch", oracle)
    for module in (until, stopped):
        monkeypatch.setattr(module, "BLOCK", BLOCK)
    return oracle


def evaluate(root, out, *more, models=("good",), suite=True):
    given = [str(root / "models" / name) for name in models]
    data = ("--suite", root / "suite.yaml", "--data-root", root) if suite else ("--data", root / "val")
    quick = ("--batch-size", 16, "--resamples", 100, "--epsilons-255", 1, *ONE_THREAD)
    main([*map(str, ("--model", *given, *data, "--out", out, *quick, *more))])
    return {(cell.dataset, cell.metric, cell.model): cell for cell in read_cells(out)}


def names(of):
    return {of.test_set.file_name(number) for number in range(len(of.test_set))}


# ------------------------------------------------------------------ a fixed number


def test_a_subset_is_the_same_images_in_every_copy_and_holds_every_smaller_one(sets):
    small, large = subsets(sets, 60), subsets(sets, 100)
    val, r, fog1, fog2, others = large
    assert names(val) == names(fog1) == names(fog2) and len(names(val)) == 100
    assert val.test_set.folder != fog1.test_set.folder and names(r).isdisjoint(names(val))
    assert [of.title for of in large] == [
        *("val (100 of 400)", "R (100 of 240)", "C (100 of 400)/fog/1", "C (100 of 400)/fog/2", "others")
    ]
    assert others is sets[-1], "a set with fewer images stays as it is"
    assert small[-1].title == "others (60 of 90)"
    assert all(names(a) < names(b) for a, b in zip(small, large, strict=True))
    assert [of.test_set.labels.tolist() for of in (val, fog1)] == [[int(n[0]) for n in sorted(names(val))]] * 2
    assert subsets(sets, 0) == sets


def test_parts_of_other_sizes_keep_one_name(sets):
    # Numbers are means over the parts of one name: two names would be two sets.
    fewer = replace(sets[3], test_set=sets[3].test_set.choose(np.arange(30)))
    shown = subsets([*sets[:3], fewer], 50)
    assert [of.title for of in shown[2:]] == ["C (at most 50 each)/fog/1", "C (at most 50 each)/fog/2"]
    assert [len(of.test_set) for of in shown[2:]] == [50, 30]


def test_names_of_parts_are_hashed_once(sets, monkeypatch):
    hashed, real = [], choice.hashed_order
    monkeypatch.setattr(choice, "hashed_order", lambda names: hashed.append(len(names)) or real(names))
    subsets(sets, 10)
    assert hashed == [400, 240, 90]  # val and both severities have the same names
    # A set that is not the whole of its folder has no listing: its names are read, but hashed once, too.
    orders = Orders()
    some = [sets[k].test_set.choose(np.arange(0, 400, 2)) for k in (2, 3)]
    assert orders.of(some[0]) is orders.of(some[1]) and hashed[3:] == [200]


def test_a_subset_is_evaluated_and_named(root, oracle, tmp_path, capsys):
    cells = evaluate(root, tmp_path / "r", "--subset", 64)
    assert len(oracle.images()) == 64 and len(set(oracle.images("fgsm epsilon_255 1"))) == 64
    accuracy = cells["val (64 of 400)", "accuracy", "good"]
    assert accuracy.n == 64 and accuracy.interval == "wilson" and not accuracy.notes
    # The oracle answers by name: were the corrupted images others, the ratio would not be 1 on every resample.
    ratio = next(cell for (_, metric, _), cell in cells.items() if metric == "r_cc")
    assert ratio.value == ratio.ci_low == ratio.ci_high == 1.0 and ratio.settings["set"] == "C (64 of 400)"
    evaluate(root, tmp_path / "none", "--subset", 64, "--dry-run")
    plan = capsys.readouterr().out
    assert "reference  val (64 of 400): 64 images" in plan and "corrupted  C (64 of 400)/fog/2: 64 images" in plan
    evaluate(root, tmp_path / "none", "--outliers", root / "o", "--subset", 64, "--dry-run", suite=False)
    plan = capsys.readouterr().out
    assert "val: 64 of 400 images" in plan and "o (64 of 90): 64 images" in plan


def test_training_on_the_whole_folder_is_noticed_of_some_of_its_images(sets, monkeypatch):
    asked = []
    monkeypatch.setattr(training_data, "trained_on", lambda *given: asked.append(given[2]) or "this test set")
    model = SimpleNamespace(name="m", folder="somewhere")
    chosen = subsets(sets, 10)[:1]
    pairs = training_data.seen_in_training([model], chosen, say=False)
    assert asked == [sets[0].test_set.content_hash] and pairs == {("m", chosen[0].test_set.source_hash)}
    assert chosen[0].test_set.content_hash != sets[0].test_set.content_hash


# ------------------------------------------------------------------ until the accuracy is known


def test_looking_ends_when_the_accuracy_is_known_and_numbers_are_of_the_images_seen(root, oracle, tmp_path):
    cells = evaluate(root, tmp_path / "r", "--until", "4pp")
    titles = [title for title, metric, _ in cells if metric == "accuracy"]
    val = next(title for title in titles if title.startswith("val"))
    accuracy = cells[val, "accuracy", "good"]
    assert accuracy.n % BLOCK == 0 and accuracy.n < IMAGES and val == f"val ({accuracy.n} of 400, until 4 pp)"
    assert accuracy.interval == "sequence" and accuracy.ci_high - accuracy.ci_low <= 0.08
    whole = np.mean([int(hash_of(f"{n % 10}/{n:04d}.png", "good")[:8], 16) / 2**32 < 0.95 for n in range(IMAGES)])
    assert accuracy.ci_low <= whole <= accuracy.ci_high
    # One pass for each image that was looked at, its logits are those of the final set too; attacks on these alone.
    assert len(oracle.images()) == len(set(oracle.images())) == accuracy.n
    assert sorted(oracle.images("fgsm epsilon_255 1")) == sorted(oracle.images())
    assert sorted(oracle.images(folder="fog/2")) == sorted(oracle.images()), "the corrupted copies of the same images"
    assert len(oracle.images(folder="/o")) == 90
    ece = cells[val, "ece", "good"]
    assert ece.n == accuracy.n and "chosen by looking at the accuracy" in ece.notes[-1]
    assert ece.logits == accuracy.logits and "not on other images" in accuracy.notes[0]
    assert cells[f"C ({accuracy.n} of 400)/fog/1", "accuracy_corruption_severity", "good"].n == accuracy.n


def test_a_width_that_no_part_of_the_images_has_is_an_evaluation_of_all(root, oracle, tmp_path):
    plain = evaluate(root, tmp_path / "plain")
    oracle.asked.clear()
    cells = evaluate(root, tmp_path / "r", "--until", "0.01")
    assert cells == plain and len(oracle.images()) == IMAGES
    ours, theirs = (
        {name: data for name, data in _files(tmp_path / folder).items() if not name.endswith(".safetensors")}
        for folder in ("r", "plain")
    )
    assert ours.keys() == theirs.keys()
    ours["report.html"] = ours["report.html"].replace(b" --until 0.01", b"")  # of the command
    assert [name for name in ours if ours[name] != theirs[name]] == []


@pytest.mark.parametrize("after", [1, 7, 25])
def test_killed_and_started_again_no_batch_is_predicted_twice(root, oracle, tmp_path, monkeypatch, after):
    monkeypatch.setattr(pieces, "SECONDS", 0.0)
    evaluate(root, tmp_path / "whole", "--until", "4pp", suite=False)
    uninterrupted = list(oracle.asked)
    oracle.asked.clear()
    oracle.stop_after = after
    with pytest.raises(BaseException):  # noqa: B017  # whatever the end of a process is made of
        evaluate(root, tmp_path / "r", "--until", "4pp", suite=False)
    oracle.stop_after = None
    evaluate(root, tmp_path / "r", "--until", "4pp", suite=False)
    assert sorted(oracle.asked) == sorted(uninterrupted) and len(set(oracle.asked)) == len(oracle.asked)
    assert _files(tmp_path / "r") == _files(tmp_path / "whole")
    evaluate(root, tmp_path / "r", "--until", "4pp", suite=False)
    assert len(oracle.asked) == len(uninterrupted), "the third time nothing is predicted"


class Ranks:
    """Two processes as threads: what they gather and what the first says goes through a list."""

    def __init__(self, monkeypatch):
        self.barrier, self.values, self.own = threading.Barrier(2, timeout=60), [None, None], threading.local()
        monkeypatch.setattr(predict, "gather_object", lambda mine: sum(self.swap(mine), []))
        monkeypatch.setattr(predict, "broadcast_object_list", lambda values: [self.swap(values[0])[0]])

    def swap(self, value):
        self.values[self.own.rank] = value
        self.barrier.wait()
        both = list(self.values)
        self.barrier.wait()
        return both

    def run(self, work):
        done = [None, None]

        def one(rank):
            self.own.rank = rank
            done[rank] = work(rank)

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(2)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        return done


def test_two_processes_end_at_the_image_of_one(sets, oracle, tmp_path, monkeypatch):
    classifier = SimpleNamespace(class_ids=DIGITS, preprocessing="as it is", mean=torch.zeros(1))
    models = [EvaluatedModel(name, classifier, name) for name in ("good", "bad")]
    alone = until_sure(models, sets, 0.04, 16, tmp_path / "1", 0, 1)
    asked = sorted(oracle.asked)
    oracle.asked.clear()
    ranks = Ranks(monkeypatch)
    both = ranks.run(lambda rank: until_sure(models, sets, 0.04, 16, tmp_path / "2", rank, 2))
    for ours in both:
        assert [(of.title, of.test_set.content_hash, of.note) for of in ours] == [
            (of.title, of.test_set.content_hash, of.note) for of in alone
        ]
    assert sorted(oracle.asked) == asked and len(alone[0].test_set) < IMAGES
    assert _files(tmp_path / "1") == _files(tmp_path / "2")
    key = predict.logits_key(models[0], alone[0].test_set, CLEAN)
    assert f"{key}.safetensors" in _files(tmp_path / "1")


def test_a_comparison_that_is_decided_ends_the_looking(root, oracle, tmp_path, capsys):
    cells = evaluate(root, tmp_path / "two", "--until", "2pp", models=("good", "bad"), suite=False)
    accuracies = [cell for (_, metric, _), cell in cells.items() if metric == "accuracy"]
    assert {cell.n for cell in accuracies} == {2 * BLOCK}
    assert all(cell.ci_high - cell.ci_low > 0.04 for cell in accuracies), "of neither is it known to 2 points"
    assert "every two models are told apart" in capsys.readouterr().err
    alone = evaluate(root, tmp_path / "one", "--until", "2pp", suite=False)
    assert next(cell.n for (_, metric, _), cell in alone.items() if metric == "accuracy") > 2 * BLOCK


def test_a_pair_that_does_not_differ_is_looked_at_until_that_is_known():
    rng = np.random.default_rng(0)
    right = rng.random(4000) < 0.5
    other = right ^ (rng.random(4000) < 0.001)
    pair = [right, other]
    ends = [n for n in range(500, 4001, 500) if enough([own[:n] for own in pair], 40_000, 0.01)]
    assert ends and not enough([right], 40_000, 0.01) and not enough([right, rng.random(4000) < 0.5], 40_000, 0.01)
    assert "difference on all 40,000 is known to 1 pp" in enough([own[: ends[0]] for own in pair], 40_000, 0.01)


def test_many_pairs_are_told_apart_with_the_certainty_of_one():
    drawn = np.random.default_rng(0).permutation(np.repeat([1.0, -1.0, 0.0], [90, 30, 380]))
    one, of_many = (stopped.difference_interval(drawn, 50_000, 0.01, 0.05 / pairs) for pairs in (1, 78))
    assert of_many.low < one.low and of_many.high > one.high and one.value == of_many.value == 0.12


def test_intervals_of_stopped_images_are_those_of_the_order_in_which_they_came():
    rng = np.random.default_rng(0)
    drawn, correct = rng.permutation(1024), np.repeat([True, False], 512)
    item = Stopped(5000, 0.02, drawn)
    share, difference = item.share(correct.astype(float)), item.difference(correct - 0.0)
    assert share.value == difference.value == 0.5 and share.low < 0.5 < share.high
    # In the order of their positions all the right ones come first, and what comes last is no longer drawn.
    assert Stopped(5000, 0.02, np.arange(1024)).difference(correct - 0.0) != difference


@pytest.mark.parametrize(
    "flags, match",
    [
        ({"until": 60.0}, "--until: 60.0 was given, expected 0 to 49"),
        ({"until": 1.0, "subset": 100}, "finds out how many images are enough"),
        ({"until": 1.0, "protocol": ("corrected", "paper")}, "the papers' numbers are of all images"),
        ({"subset": 10**10}, "--subset: 10000000000 was given"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(flags, match):
    with pytest.raises(InputError, match=match):
        EvaluateConfig(**flags)


@pytest.mark.parametrize("text", ["one", "1%", "1 p", "nan"])
def test_what_is_no_number_of_points_is_refused(text, tmp_path):
    with pytest.raises(InputError, match="--until: got .* expected points of 100 such as 1pp or 0.5"):
        main(["--until", text, "--out", str(tmp_path / "r")])
