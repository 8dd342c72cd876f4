"""Sets made of other sets' samples: nested, unchanged, exact whatever the number of restarts, and readable by all."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import identity, run_command
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_helpers import write_finished, write_folder, write_set

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_file
from synclones.base.manifest import trace
from synclones.shards.index import content_hash
from synclones.shards.read import ShardFolder
from synclones.shards.run import main
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.tools.made import ParentSet
from synclones.shards.tools.subset import SubsetConfig, choose
from synclones.shards.unfinished import is_unfinished, resume_command
from synclones.shards.verify import verify


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    """21 stored samples of three classes in three shards."""
    return write_finished(tmp_path_factory.mktemp("parent") / "set")


def samples(folder: Path) -> dict[int, object]:
    return {sample.index: sample for sample in ShardFolder(folder).sequential()}


def subset(parent: Path, out: Path, *flags: str) -> Path:
    main(["subset", str(parent), "--out", str(out), *flags])
    return out


# ------------------------------------------------------------------ which samples

sizes = st.lists(st.integers(1, 12), min_size=1, max_size=6)


def chosen(labels: np.ndarray, seed: int, **size) -> set[int]:
    config = SubsetConfig(Path("set"), out=Path("new"), seed=seed, **size)
    names = tuple(map(str, range(int(labels.max()) + 1)))
    parent = ParentSet(Path("set"), None, names, "", 0)
    index = np.arange(len(labels)) * 3 + 5
    return set(choose(config, parent, index, labels).tolist())


@settings(max_examples=200, deadline=None)
@given(sizes, st.integers(0, 2**40), st.data())
def test_a_smaller_subset_is_contained_in_a_larger_one_and_classes_are_balanced(per_class, seed, data):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(per_class)), per_class))
    small, large = sorted(data.draw(st.lists(st.integers(1, len(labels)), min_size=2, max_size=2)))
    few, many = chosen(labels, seed, count=small), chosen(labels, seed, count=large)
    assert few <= many and (len(few), len(many)) == (small, large)
    counts = np.bincount(labels[sorted(few)], minlength=len(per_class))
    # As equal as possible: a class has fewer than another only when all of it is taken, or by one.
    assert all(counts[c] == per_class[c] or counts[c] >= counts.max() - 1 for c in range(len(per_class)))
    each = data.draw(st.integers(1, min(per_class)))
    assert np.bincount(labels[sorted(chosen(labels, seed, per_class=each))]).tolist() == [each] * len(per_class)
    assert chosen(labels, seed, per_class=each) == chosen(labels, seed, count=each * len(per_class))
    low, high = sorted(data.draw(st.lists(st.floats(0.5, 1), min_size=2, max_size=2)))
    some = chosen(labels, seed, fraction=low)
    assert some <= chosen(labels, seed, fraction=high)
    assert np.bincount(labels[sorted(some)], minlength=len(per_class)).tolist() == [
        int(np.floor(low * size + 0.5)) for size in per_class
    ]


def test_another_seed_chooses_others():
    labels = np.zeros(100, np.int64)
    assert len(chosen(labels, 0, count=50) & chosen(labels, 1, count=50)) < 40


# ------------------------------------------------------------------ the subset as a set


def test_a_subset_is_a_set_with_its_parents_samples_unchanged(parent, tmp_path):
    small = subset(parent, tmp_path / "small", "--per-class", "4", "--images-per-shard", "5")
    assert verify(small).num_shards == 3 and verify(small).num_samples == 12
    ours, theirs = samples(small), samples(parent)
    assert all(theirs[index] == sample for index, sample in ours.items())
    rows, parents = ({r.key: r for s in f.shards for r in f.rows(s)} for f in map(ShardFolder, (small, parent)))
    assert all(row.crc32 == parents[key].crc32 for key, row in rows.items()), "the tar bytes of a sample are the same"
    source = LabelledSource(small)
    assert source.class_ids == ("a", "b", "c") and np.bincount([source.label(n) for n in range(12)]).tolist() == [4] * 3
    assert "shards subset" in trace(small) and content_hash(parent)[:16] in trace(small)
    plan = json.loads((small / "plan.json").read_text())
    assert plan["parents"] == [content_hash(parent)] and plan["rule"] == {
        "images_per_shard": 5,
        "per_class": 4,
        "seed": 0,
    }


def test_a_subset_of_a_subset_is_the_subset_itself(parent, tmp_path):
    large = subset(parent, tmp_path / "large", "--count", "15")
    direct = subset(parent, tmp_path / "direct", "--count", "6")
    assert samples(subset(large, tmp_path / "by-way", "--count", "6")) == samples(direct)


def test_the_same_command_changes_nothing_and_another_is_refused(parent, tmp_path, capsys):
    small = subset(parent, tmp_path / "small", "--count", "6")
    before = {path.name: sha256_file(path) for path in small.iterdir()}
    subset(parent, small, "--count", "6")
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"holds another set: .*rule.count 6 there, 7 asked"):
        subset(parent, small, "--count", "7")
    assert {path.name: sha256_file(path) for path in small.iterdir()} == before


def test_other_readers_read_a_subset_as_it_is(parent, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import load_dataset
    from timm.data import create_dataset

    small = subset(parent, tmp_path / "small", "--count", "8", "--images-per-shard", "3")
    stored = sorted(samples(small).values(), key=lambda s: s.index)
    loaded = load_dataset(str(small), cache_dir=str(tmp_path / "cache"))["train"]
    assert [(r["txt"], r["cls"], r["json"]["index"]) for r in loaded] == [(s.txt, s.label, s.index) for s in stored]
    read = list(ShardFolder(small).webdataset())
    assert [(s["__key__"], s["jpg"]) for s in read] == [(f"{s.index:010d}", s.jpg) for s in stored]
    dataset = create_dataset("wds/set", root=str(small), split="train", is_training=False, batch_size=1)
    assert len(dataset) == 8 and sorted(label for _, label in dataset) == sorted(s.label for s in stored)


def test_two_processes_that_make_one_subset_share_the_work(parent, tmp_path):
    flags = ("--fraction", "1", "--images-per-shard", "1")
    whole, out = identity(subset(parent, tmp_path / "whole", *flags)), tmp_path / "out"
    command = (sys.executable, "-m", "synclones.cli", "shards", "subset", str(parent), "--out", str(out), *flags)
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0] and identity(out) == whole
    assert any("21 images in 21 shards" in text for text in said) and not list(out.glob(".*"))


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def _die_in(monkeypatch, number: int, command: list[str]) -> bool:
    """Run a command that dies at its ``number``-th sync or rename; return whether it came to that."""
    calls = iter(range(1, 10**6))

    def dying(original):
        def call(*args, **kwargs):
            if next(calls) == number:
                raise Killed
            return original(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", dying(os.fsync))
        patch.setattr(os, "replace", dying(os.replace))
        try:
            main(command)
        except Killed:
            return True
    return False


def test_dying_at_any_operation_and_again_leaves_the_bytes_of_an_undisturbed_subset(parent, tmp_path, monkeypatch):
    flags = ("--per-class", "3", "--images-per-shard", "5")
    whole, died = identity(subset(parent, tmp_path / "whole", *flags)), 0
    for number in range(1, 500):
        out = tmp_path / str(number)
        command = ["subset", str(parent), "--out", str(out), *flags]
        if not _die_in(monkeypatch, number, command):
            break
        died += 1
        _die_in(monkeypatch, 3, command)  # the second start dies too
        if is_unfinished(out) and (out / "config.yaml").exists():
            assert resume_command(out).startswith("synclones shards subset --config ")
        subset(parent, out, *flags)
        assert identity(out) == whole and not list(out.glob(".*")), number
    assert died > 30, "the sweep must reach every step"


KILLED = """
import os, signal, sys
real, calls = os.fsync, iter(range(1, 10**6))
def fsync(descriptor):
    real(descriptor)
    if next(calls) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync
from synclones.shards.run import main
main(sys.argv[2:])
"""


def killed(tmp_path: Path, at: int, *command: str) -> int:
    """Run a verb in a process of its own that dies by SIGKILL after its ``at``-th sync; return its exit code."""
    return run_command(sys.executable, "-c", KILLED, str(at), *command, cwd=tmp_path).returncode


def test_sigkill_leaves_an_unfinished_set_that_its_own_settings_finish(parent, tmp_path):
    whole = identity(subset(parent, tmp_path / "whole", "--count", "6"))
    out = tmp_path / "out"
    assert killed(tmp_path, 7, "subset", str(parent), "--out", str(out), "--count", "6") == -signal.SIGKILL
    assert is_unfinished(out)
    with pytest.raises(VerificationError, match="unfinished, .*synclones shards subset --config"):
        main(["verify", str(out)])
    main(["subset", "--config", str(out / "config.yaml")])
    assert identity(out) == whole


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ((), "--count, --fraction, --per-class: give exactly one of them"),
        (("--count", "3", "--fraction", "0.5"), "give exactly one of them"),
        (("--count", "0"), "--count: 0 was given, expected 1 to"),
        (("--count", "22"), "--count: 22 asked, .* has 21 images"),
        (("--fraction", "1.5"), "--fraction: 1.5 was given, expected"),
        (("--fraction", "0.01"), "0.01 of 21 images is none of them"),
        (("--per-class", "9"), r"--per-class: 9 asked, class \d \([abc]\) of .* has [67]"),
        (("--count", "3", "--seed", "-1"), "--seed: -1 was given"),
    ],
)
def test_a_size_that_cannot_be_is_refused_before_anything_is_written(parent, tmp_path, flags, line):
    with pytest.raises(InputError, match=line):
        subset(parent, tmp_path / "small", *flags)
    assert list(tmp_path.iterdir()) == []


def _bad_places(parent: Path, tmp_path: Path) -> dict[str, tuple[Path, Path, str]]:
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    (strangers / "notes.txt").write_text("mine")
    bare = write_folder(tmp_path / "bare")
    return {
        "no such folder": (tmp_path / "none", tmp_path / "new", "no such folder"),
        "a store as the set": (Path("s3://bucket/x"), tmp_path / "new", "is read from a disk only"),
        "a store as --out": (parent, Path("s3://bucket/x"), "is read from a disk only"),
        "somebody's files": (parent, strangers, "holds 'notes.txt' but no plan.json"),
        "a drawn set": (parent, bare, "holds another set: it was drawn"),
        "the set itself": (parent, parent, "is the set that is read"),
        "a file": (parent, strangers / "notes.txt", "is no folder"),
        "a set without a manifest": (bare, tmp_path / "new", "no manifest.json"),
    }


def test_bad_places_are_refused_and_left_as_they_are(parent, tmp_path):
    for name, (folder, out, line) in _bad_places(parent, tmp_path).items():
        with pytest.raises(InputError, match=line):
            subset(folder, out, "--count", "3")
        assert not (tmp_path / "new").exists(), name
    assert (tmp_path / "strangers" / "notes.txt").read_text() == "mine"


def test_an_unfinished_or_damaged_parent_is_refused(parent, tmp_path):
    part = write_finished(tmp_path / "part")
    for name in ("SHA256SUMS", "info.json", "manifest.json"):
        (part / name).unlink()
    with pytest.raises(VerificationError, match="the folder is unfinished"):
        subset(part, tmp_path / "new", "--count", "3")
    assert not (tmp_path / "new").exists()
    harmed = write_finished(tmp_path / "harmed")
    (harmed / "train-00001.tar").write_bytes(bytes((harmed / "train-00001.tar").stat().st_size))
    with pytest.raises(VerificationError, match=r"train-00001.tar: sample 0000000008 is damaged"):
        subset(harmed, tmp_path / "new", "--fraction", "1")
    assert not list((tmp_path / "new").glob("train-*")), "no shard under its final name"


def test_a_dry_run_says_what_would_be_and_writes_nothing(parent, tmp_path, capsys):
    subset(parent, tmp_path / "new", "--count", "7", "--dry-run")
    assert "7 of 21 images in 1 shard, 2 to 3 of each of 3 classes" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


# ------------------------------------------------------------------ merging


def merge(*folders: Path, out: Path, more: tuple[str, ...] = ()) -> Path:
    main(["merge", *map(str, folders), "--out", str(out), *more])
    return out


def test_parts_of_one_set_are_merged_to_its_samples(parent, tmp_path):
    all_of_it = samples(parent)
    first = subset(parent, tmp_path / "first", "--count", "9")
    rest = write_finished(tmp_path / "other-numbers")  # the very same numbers: they clash
    with pytest.raises(InputError, match=r"both have a sample \d+ \(9 such\); --renumber keeps both"):
        merge(first, rest, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert samples(merge(first, _others(tmp_path, parent, first), out=tmp_path / "new")) == all_of_it
    assert verify(tmp_path / "new").num_samples == 21


def _others(tmp_path: Path, parent: Path, first: Path) -> Path:
    """The samples of the parent that are not in ``first``, as a set."""
    from synclones.base.json_file import canonical_json
    from synclones.base.manifest import write_manifest
    from synclones.shards.index import finish_folder
    from synclones.shards.write import ShardWriter

    folder = tmp_path / "others"
    folder.mkdir()
    (folder / "plan.json").write_bytes(canonical_json({"plan_id": "rest", "num_shards": 1}))
    with ShardWriter(folder, "train-00000", "rest") as writer:
        writer.add_batch(0, [sample for index, sample in samples(parent).items() if index not in samples(first)])
        writer.finish()
    facts = {"content_hash": finish_folder(folder), "classes": ["a", "b", "c"]}
    write_manifest(folder, "test", {}, [], {}, {}, facts)
    return folder


def test_renumbering_keeps_everything_and_says_where_it_came_from(parent, tmp_path):
    small = subset(parent, tmp_path / "small", "--count", "6")
    both = merge(parent, small, out=tmp_path / "both", more=("--renumber", "--images-per-shard", "15"))
    ours = samples(both)
    assert verify(both).num_samples == 27 and verify(both).num_shards == 3, "no shard holds samples of two sets"
    for sample in samples(small).values():
        moved = ours[sample.index + 24]  # behind the parent's last planned index
        facts = json.loads(moved.json)
        assert (moved.jpg, moved.txt, moved.label, moved.seed) == (sample.jpg, sample.txt, sample.label, sample.seed)
        assert facts["index"] == moved.index and facts["merged"] == {"parent": 1, "index": sample.index}
    lines = trace(both).splitlines()
    assert len([line for line in lines if content_hash(parent)[:16] in line]) == 2, "both parents, down to the first"


def test_class_lists_are_joined_on_request_only(tmp_path, parent):
    other = write_finished(tmp_path / "other")
    record = json.loads((other / "manifest.json").read_text()) | {"classes": ["b", "z", "a"]}
    (other / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="class 0 is b, in .* it is a; --renumber joins the class lists"):
        merge(parent, other, out=tmp_path / "new")
    both = LabelledSource(merge(parent, other, out=tmp_path / "new", more=("--renumber",)))
    assert both.class_ids == ("a", "b", "c", "z")
    assert [both.label(21 + n) for n in range(3)] == [1, 3, 0]


def test_sets_that_cannot_be_one_are_refused(tmp_path, parent):
    val = write_set(tmp_path / "val", "val", 1)
    for folders, line in (
        ((parent, val), "is a val set, .* a train set"),
        ((parent,), "folders: one was given"),
        ((parent, tmp_path / "none"), "no such folder"),
        ((parent, Path("s3://bucket/x")), "is read from a disk only"),
    ):
        with pytest.raises(InputError, match=line):
            merge(*folders, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
