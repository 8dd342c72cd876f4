"""A retried set: a new version beside the old one, equal to what more attempts would have drawn at once."""

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import NOTES, QUICK, ROOT, identity, run_command, synclones
from test_generate import _refused

from synclones.base.errors import InputError, MachineError, VerificationError
from synclones.generate.plan import read_plan
from synclones.generate.run import main
from synclones.generate.sampling.sampler import Sampler
from synclones.generate.sampling.seeds import sample_seed
from synclones.shards.index import content_hash
from synclones.shards.read import ShardFolder
from synclones.shards.run import main as shards_main

HARNESS = Path(__file__).with_name("retry_harness.py")
SMALL = [*QUICK[:2], "--batch-size", "5", "--images-per-shard", "10", "--num-inference-steps", "1"]


def _blank(seed: int) -> bool:
    return seed * 2654435761 % 2**32 >> 29 == 0


@pytest.fixture(autouse=True)
def some_broken(monkeypatch):
    """One picture of eight is blank: a function of its seed alone."""
    real = Sampler._draw_once

    def draw(self, prompts, seeds, *more):
        images, _ = real(self, prompts, seeds, *more)
        return images, ["blank picture" if _blank(seed) else "" for seed in seeds]

    monkeypatch.setattr(Sampler, "_draw_once", draw)


def _draw(prompts, out, *more):
    main(["--prompts", str(prompts), *SMALL, "--out", str(out), *more])


def _retry(parent, out, *more, status="failed"):
    main(["--retry", status, "--parent", str(parent), "--out", str(out), *more])


def _rows(folder: Path) -> list[dict]:
    return [row for path in sorted(folder.glob("train-*.parquet")) for row in pq.read_table(path).to_pylist()]


def _but(row: dict) -> dict:
    """A row without places in the tar, whose samples name another plan."""
    return {name: row[name] for name in ("index", "status", "reason", "attempt", "seed", "label", "scores")}


def _seeds_of(index: int) -> list[bool]:
    return [_blank(sample_seed(0, attempt, index)) for attempt in range(8)]


def test_a_retried_set_is_the_set_that_more_attempts_draw_at_once(prompts, tmp_path):
    _draw(prompts, tmp_path / "v1", "--max-attempts", "1")
    before = identity(tmp_path / "v1")
    failed = [row["index"] for row in _rows(tmp_path / "v1") if row["status"] == "failed"]
    assert 2 <= len(failed) <= 20 and failed == [i for i in range(60) if _seeds_of(i)[0]]
    _retry(tmp_path / "v1", tmp_path / "v2", "--max-attempts", "3")
    _draw(prompts, tmp_path / "once", "--max-attempts", "4")
    assert [_but(row) for row in _rows(tmp_path / "v2")] == [_but(row) for row in _rows(tmp_path / "once")]
    pairs = zip(ShardFolder(tmp_path / "v2").sequential(), ShardFolder(tmp_path / "once").sequential(), strict=True)
    for mine, theirs in pairs:
        assert (mine.index, mine.jpg, mine.txt) == (theirs.index, theirs.jpg, theirs.txt)
    assert identity(tmp_path / "v1") == before, "the parent is as it was"
    assert {row["attempt"] for row in _rows(tmp_path / "v2") if row["index"] in failed} <= {1, 2, 3}


def test_only_shards_with_such_samples_are_written_again(prompts, tmp_path):
    _draw(prompts, tmp_path / "v1", "--max-attempts", "1")
    _retry(tmp_path / "v1", tmp_path / "v2", "--max-attempts", "2")
    touched = {f"train-{row['index'] // 10:05d}" for row in _rows(tmp_path / "v1") if row["status"] == "failed"}
    assert 0 < len(touched) < 6
    for path in (tmp_path / "v1").glob("train-*"):
        other = tmp_path / "v2" / path.name
        assert (path.read_bytes() == other.read_bytes()) == (path.stem not in touched)
        assert path.samefile(other) == (path.stem not in touched), "the others are links: no bytes are copied"
    for sample in ShardFolder(tmp_path / "v1").sequential():
        assert ShardFolder(tmp_path / "v2").get(sample.index) == sample, "what was good stays, byte for byte"


def test_the_new_version_names_its_parent_and_every_reader_takes_it(prompts, tmp_path, capsys):
    _draw(prompts, tmp_path / "v1", "--max-attempts", "1")
    _retry(tmp_path / "v1", tmp_path / "v2", "--max-attempts", "3")
    first, second = content_hash(tmp_path / "v1"), content_hash(tmp_path / "v2")
    assert first != second
    step = {"status": "failed", "attempts": 3, "parent": first}
    assert json.loads((tmp_path / "v2" / "plan.json").read_text())["retries"] == [step]
    manifest = json.loads((tmp_path / "v2" / "manifest.json").read_text())
    assert manifest["content_hash"] == second
    assert {p["name"]: p["content_hash"] for p in manifest["parents"]}["earlier version"] == first
    assert manifest["counts"]["planned"] == 60 == sum(manifest["counts"][s] for s in ("ok", "failed", "dropped"))
    shards_main(["verify", str(tmp_path / "v2")])
    capsys.readouterr()
    main(["redraw", str(tmp_path / "v2"), "--random", "60"])
    assert "60 images" in capsys.readouterr().out
    traced = synclones("trace", str(tmp_path / "v2"), cwd=tmp_path)
    assert traced.returncode == 0 and first[:16] in traced.stdout and traced.stdout.count(str(prompts)) == 2
    sums = run_command("sha256sum", "--quiet", "-c", "SHA256SUMS", cwd=tmp_path / "v2")
    assert sums.returncode == 0, sums.stderr
    shutil.rmtree(tmp_path / "v1")
    shards_main(["verify", str(tmp_path / "v2")])
    main(["redraw", str(tmp_path / "v2"), "--random", "60"])


def test_versions_follow_versions(prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "_blank", lambda seed: seed * 2654435761 % 2**32 >> 31 == 0)  # half
    _draw(prompts, tmp_path / "v1", "--max-attempts", "1")
    _retry(tmp_path / "v1", tmp_path / "v2", "--max-attempts", "1")
    _retry(tmp_path / "v2", tmp_path / "v3", "--max-attempts", "2")
    _draw(prompts, tmp_path / "once", "--max-attempts", "4")
    assert [_but(row) for row in _rows(tmp_path / "v3")] == [_but(row) for row in _rows(tmp_path / "once")]
    assert [step["parent"] for step in read_plan(tmp_path / "v3").retries] == [
        *(content_hash(tmp_path / "v1"), content_hash(tmp_path / "v2"))
    ]
    with pytest.raises(InputError, match="has no dropped sample"):
        _retry(tmp_path / "v3", tmp_path / "v4", status="dropped")
    main(["redraw", str(tmp_path / "v3"), "--random", "60"])


def test_dropped_samples_get_attempts_that_were_never_used(prompts, tmp_path):
    _draw(prompts, tmp_path / "v1", "--max-attempts", "2", "--on-blank", "drop")
    dropped = [row for row in _rows(tmp_path / "v1") if row["status"] == "dropped"]
    assert dropped and {row["attempt"] for row in dropped} == {0}
    _retry(tmp_path / "v1", tmp_path / "v2", "--max-attempts", "2", status="dropped")
    for row in (_rows(tmp_path / "v2")[row["index"]] for row in dropped):
        assert row["attempt"] == 2 and row["status"] == ("dropped" if _seeds_of(row["index"])[2] else "ok")
    main(["redraw", str(tmp_path / "v2"), "--random", "60"])


def test_processes_and_parts_do_not_change_the_new_version(prompts, tmp_path):
    _draw(prompts, tmp_path / "v1", "--max-attempts", "1")
    _retry(tmp_path / "v1", tmp_path / "x", "--max-attempts", "2", "--workers", "3")
    for part in ("2/2", "1/2"):
        _retry(tmp_path / "v1", tmp_path / "y", "--max-attempts", "2", "--part", part)
    assert identity(tmp_path / "x") == identity(tmp_path / "y")


def test_without_hard_links_shards_are_copied(prompts, tmp_path, monkeypatch):
    _draw(prompts, tmp_path / "v1", "--max-attempts", "1")
    _retry(tmp_path / "v1", tmp_path / "x", "--max-attempts", "2")

    def refuse(*names):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    _retry(tmp_path / "v1", tmp_path / "y", "--max-attempts", "2")
    assert identity(tmp_path / "x") == identity(tmp_path / "y")
    assert not any(p.samefile(tmp_path / "y" / p.name) for p in (tmp_path / "v1").glob("train-*"))

    def broken(*names):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", broken)
    with pytest.raises(MachineError, match="Input/output"):
        _retry(tmp_path / "v1", tmp_path / "z", "--max-attempts", "2")


def test_a_shard_that_got_lost_comes_back_by_the_same_command(prompts, tmp_path):
    _draw(prompts, tmp_path / "v1", "--max-attempts", "1")
    _retry(tmp_path / "v1", tmp_path / "v2", "--max-attempts", "2")
    before = identity(tmp_path / "v2")
    for path in (tmp_path / "v2").glob("train-*.tar"):
        path.unlink()
    _retry(tmp_path / "v1", tmp_path / "v2", "--max-attempts", "2")
    assert identity(tmp_path / "v2") == before


def test_what_cannot_be_retried_is_refused(prompts, tmp_path):
    _draw(prompts, tmp_path / "v1", "--max-attempts", "1")
    old, new = str(tmp_path / "v1"), str(tmp_path / "v2")
    parent = ("--parent", old)
    assert "give both" in _refused(tmp_path, InputError, *parent, "--out", new)
    assert "give both" in _refused(tmp_path, InputError, *SMALL, "--prompts", str(prompts), "--retry", "failed")
    assert "choose a new folder" in _refused(tmp_path, InputError, *parent, "--retry", "failed")
    flags = (*parent, "--retry", "failed", "--out", new)
    assert "not both at once" in _refused(tmp_path, InputError, *flags, "--extend")
    text = _refused(tmp_path, InputError, *flags, "--guidance-scale", "3")
    assert "made by another plan" in text and "guidance_scale 2.0 there, 3.0 asked" in text
    text = _refused(tmp_path, InputError, *parent, "--retry", "dropped", "--out", new)
    assert "has no dropped sample" in text
    _retry(tmp_path / "v1", tmp_path / "v2", "--max-attempts", "2")
    assert "retries" in _refused(tmp_path, InputError, *flags, "--max-attempts", "3")
    for more in ([], ["--extend"]):
        with pytest.raises(InputError, match="made by another plan: retries"):
            _draw(prompts, tmp_path / "v2", "--max-attempts", "1", *more)
    (tmp_path / "v1" / "SHA256SUMS").unlink()
    with pytest.raises(VerificationError, match="unfinished"):
        _retry(tmp_path / "v1", tmp_path / "v5")


def test_a_parent_with_a_damaged_picture_is_named_and_nothing_false_is_published(prompts, tmp_path):
    _draw(prompts, tmp_path / "v1", "--max-attempts", "1")
    shard = next(row["index"] // 10 for row in _rows(tmp_path / "v1") if row["status"] == "failed")
    tar = tmp_path / "v1" / f"train-{shard:05d}.tar"
    data = bytearray(tar.read_bytes())
    data[2000] ^= 1
    tar.write_bytes(data)
    with pytest.raises(VerificationError, match=f"train-{shard:05d}.tar: sample .* is damaged"):
        _retry(tmp_path / "v1", tmp_path / "v2")
    assert not (tmp_path / "v2" / "manifest.json").exists()


# ------------------------------------------------------------------ killed anywhere


@pytest.fixture(scope="module", params=[1, pytest.param(0, marks=pytest.mark.slow)], ids=["1 of each", "every one"])
def trials(prompts, tmp_path_factory, request) -> dict:
    """What came of kills at operations of each kind, of our retry and of a naive one; the generator is loaded once."""
    folder = tmp_path_factory.mktemp("kills")
    command = (sys.executable, str(HARNESS), str(folder), str(prompts), str(request.param))
    done = run_command(*command, cwd=ROOT, timeout_s=580)
    assert done.returncode == 0, done.stderr[-2000:]
    ours, naive = map(json.loads, done.stdout.splitlines()[-2:])
    return {"of each": request.param, "ours": ours, "naive": naive}


def test_a_retry_killed_at_any_operation_leaves_the_parent_whole_and_ends_with_the_same_bytes(trials):
    result = trials["ours"]
    NOTES.append(f"retry killed at operations, by kind: {result['kills']}; all reruns equal, parent whole")
    for kind in ("link", "rename", "append", "draw"):
        assert result["kills"].get(kind, 0) >= (trials["of each"] or 3), result["kills"]
        assert trials["of each"] or result["kills"][kind] == result["operations"][kind]
    assert all(result["equal"]) and len(result["equal"]) == sum(result["kills"].values())
    assert all(result["whole"]) and result["leftovers"] == []


def test_writing_again_in_place_fails_the_same_test(trials):
    result = trials["naive"]
    assert sum(result["kills"].values()) >= 3
    assert not all(result["whole"])
