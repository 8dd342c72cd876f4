"""--batch-size auto: measured once, frozen into the plan, read by everyone who comes later."""

import subprocess
import sys

import pytest
import torch
from conftest import GENERATOR, identity

import synclones.generate.batch_size as probe
from synclones.base.errors import InputError
from synclones.generate.batch_size import candidates, fastest
from synclones.generate.plan import read_plan
from synclones.generate.run import main
from synclones.shards.read import ShardFolder

AUTO = ["--model", str(GENERATOR), "--num-inference-steps", "1", "--images-per-shard", "20", "--batch-size", "auto"]


@pytest.mark.parametrize("size", [1, 7, 20, 250, 1000, 10_000, 9973])
def test_candidates_divide_a_shard_and_about_double(size):
    found = candidates(size, 10**6)
    assert found[0] == 1 and all(size % n == 0 and n <= 256 for n in found)
    assert all(b >= 1.6 * a for a, b in zip(found, found[1:], strict=False))
    assert candidates(size, 5)[-1] <= 5, "no batch is larger than the set"


def test_the_smallest_size_that_none_beats_clearly_is_chosen():
    speed = {1: 10.0, 2: 18.0, 4: 18.1, 8: 40.0}
    assert fastest(list(speed), speed.__getitem__, lambda: True) == (2, {1: 10.0, 2: 18.0, 4: 18.1})
    assert fastest([1, 2, 4], {1: 1.0, 2: 2.0, 4: 4.0}.__getitem__, lambda: True)[0] == 4
    assert fastest([1, 2, 4], {1: 1.0, 2: 2.0, 4: 4.0}.__getitem__, lambda: False)[0] == 1, "memory is nearly full"


def test_a_size_that_does_not_fit_ends_the_search():
    def rate(size):
        if size > 2:
            raise torch.cuda.OutOfMemoryError
        return float(size)

    assert fastest([1, 2, 4, 8], rate, lambda: True) == (2, {1: 1.0, 2: 2.0})
    with pytest.raises(torch.cuda.OutOfMemoryError):
        fastest([4, 8], rate, lambda: True)


def test_what_was_measured_is_frozen_and_the_set_is_that_of_the_same_number(prompts, tmp_path, capsys):
    flags = [*AUTO, "--prompts", str(prompts), "--num-images", "40"]
    main([*flags, "--out", str(tmp_path / "auto")])
    size = read_plan(tmp_path / "auto").batch_size
    assert f"{size} chosen" in capsys.readouterr().err and 20 % size == 0
    main([*flags, "--out", str(tmp_path / "fixed"), "--batch-size", str(size)])
    assert identity(tmp_path / "auto") == identity(tmp_path / "fixed")
    main([*flags, "--out", str(tmp_path / "auto")])  # auto once more: nothing to do
    said = capsys.readouterr().err
    assert "nothing to do" in said and "chosen" not in said
    main(["redraw", str(tmp_path / "auto"), "--index", "7"])
    assert ShardFolder(tmp_path / "auto").num_samples == 40


def test_of_processes_that_begin_together_one_measures(prompts, tmp_path):
    flags = ["--prompts", str(prompts), "--num-images", "40", "--out", str(tmp_path / "x"), "--workers", "1"]
    command = [sys.executable, "-m", "synclones.generate.run", *AUTO, *flags]
    started = [
        subprocess.Popen(
            [*command, "--part", part], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for part in ("1/2", "2/2")
    ]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert sum("chosen" in text for text in said) == 1
    assert ShardFolder(tmp_path / "x").num_samples == 40
    assert (tmp_path / "x" / "SHA256SUMS").exists() and not list((tmp_path / "x").glob(".*"))


def test_a_dry_run_measures_and_writes_nothing(prompts, tmp_path, capsys):
    main([*AUTO, "--prompts", str(prompts), "--num-images", "20", "--out", str(tmp_path / "x"), "--dry-run"])
    assert "chosen" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_what_is_wrong_is_said_before_anything_is_measured(prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "measured_batch_size", lambda *a: pytest.fail("measured"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    for more, match in (
        (["--out", str(tmp_path / "mine")], "holds 'notes.txt'"),
        (["--out", str(tmp_path / "x"), "--stored-px", "64"], "--stored-px"),
        (["--out", str(tmp_path / "x"), "--batch-size", "automatic"], "--batch-size"),
    ):
        with pytest.raises(InputError, match=match):
            main([*AUTO, "--prompts", str(prompts), *more])
    assert not (tmp_path / "x").exists() and len(list((tmp_path / "mine").iterdir())) == 1
