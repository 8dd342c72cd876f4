"""A set that is not finished says so, is not called damaged, and names the command that goes on with it."""

import os
import re
import shlex
import shutil
import signal
import sys

import pytest
from conftest import QUICK, identity, run_command, synclones
from test_generate_stop import LIMIT_S, PLAIN, _begin, _wait_until

from synclones.base.errors import InputError, MachineError, VerificationError
from synclones.base.manifest import read_manifest
from synclones.base.progress import Progress
from synclones.generate.batch import draw_batch
from synclones.generate.run import main
from synclones.shards.run import main as shards_main
from synclones.shards.verify import verify
from synclones.shards.write import stored_rows

FINISHED = ("SHA256SUMS", "info.json", "sizes.json", "manifest.json")


@pytest.fixture
def half(dataset, prompts, tmp_path, monkeypatch):
    """The set with one shard of three, and a second one of which two of four batches are journalled."""
    monkeypatch.chdir(tmp_path)
    calls = []

    def fail_at_seventh(*given):
        calls.append(given)
        if len(calls) == 7:
            raise OSError(28, "No space left on device", "x")
        return draw_batch(*given)

    with monkeypatch.context() as patch:
        patch.setattr("synclones.generate.batch.draw_batch", fail_at_seventh)
        with pytest.raises(MachineError) as stopped:
            main(["--prompts", str(prompts), "--out", "half", *QUICK, "--workers", "1"])
    assert str(stopped.value).endswith(", or `synclones generate --config half/config.yaml`")
    return tmp_path / "half"


def test_the_command_that_a_failing_machine_prints_goes_on(half, dataset, capsys):
    main(["--config", "half/config.yaml"])
    assert "resuming, 30 of 60 images are there, 1 of 3 shards are complete" in capsys.readouterr().err
    assert identity(half) == identity(dataset)


def test_verify_does_not_call_an_unfinished_set_damaged(half, capsys):
    command = "synclones generate --config half/config.yaml"
    told = f"half: unfinished, 1 of 3 shards are complete and sound; go on with: {command}"
    with pytest.raises(VerificationError, match=f"^{re.escape(told)}$"):
        shards_main(["verify", "half"])
    assert capsys.readouterr() == ("", "")
    with pytest.raises(VerificationError, match="unfinished, 1 of 3 shards are complete; go on with"):
        verify(half)


def test_damage_in_an_unfinished_set_is_damage(half):
    tar = half / "train-00000.tar"
    data = tar.read_bytes()
    tar.write_bytes(data[:5000] + b"x" + data[5001:])
    (half / "train-00007.json").write_text("{}")
    with pytest.raises(VerificationError, match="train-00000.tar: damaged") as error:
        verify(half)
    assert "more problem" in str(error.value)


def test_show_says_how_far_a_set_is_and_how_it_goes_on(half, tmp_path, capsys):
    shards_main(["show", "half"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "half: unfinished, 1 of 3 shards are complete"
    assert lines[1] == "next    synclones generate --config half/config.yaml"
    assert lines[2] == "half: 1 shard, 20 samples"
    for path in half.glob("train-00000.*"):
        path.unlink()
    shards_main(["show", "half"])
    assert capsys.readouterr().out.splitlines() == ["half: unfinished, 0 of 3 shards are complete", lines[1]]


def test_a_folder_that_was_moved_is_named_again(half, dataset, tmp_path, capsys, monkeypatch):
    shutil.move(half, tmp_path / "an other")
    shards_main(["show", "an other"])
    command = capsys.readouterr().out.splitlines()[1].split(maxsplit=1)[1]
    assert command == "synclones generate --config 'an other/config.yaml' --out 'an other'"
    main(shlex.split(command)[2:])
    assert identity(tmp_path / "an other") == identity(dataset)


def test_a_finished_set_that_lost_a_file_is_damaged(copy_of_dataset):
    (copy_of_dataset / "SHA256SUMS").unlink()
    with pytest.raises(VerificationError, match="SHA256SUMS: missing"):
        verify(copy_of_dataset)


def test_a_planned_set_is_drawn_by_its_own_settings(dataset, prompts, tmp_path, monkeypatch):
    """``--plan-only`` is of one run: the settings that are kept would otherwise plan for ever."""
    monkeypatch.chdir(tmp_path)
    main(["--prompts", str(prompts), "--out", "x", *QUICK, "--plan-only"])
    main(["--config", "x/config.yaml"])
    assert identity(tmp_path / "x") == identity(dataset)


@pytest.fixture
def shown(monkeypatch):
    """Every progress of the test, as (done at first, counted in the end, total)."""
    seen = []

    class Recorded(Progress):
        def __init__(self, unit, total, done=0, **more):
            super().__init__(unit, total, done, **more)
            self.first = done

        def close(self, whole=False):
            seen.append((self.first, self.done, self.total))
            super().close(whole)

    monkeypatch.setattr("synclones.generate.progress.Progress", Recorded)
    return seen


def test_a_resumed_bar_begins_with_what_is_journalled_and_ends_full(half, shown):
    main(["--config", "half/config.yaml"])
    assert shown == [(30, 60, 60)]


def test_a_bar_is_full_when_another_process_drew_the_rest(half, dataset, monkeypatch, shown):
    """Of several processes each counts its own images; a torn journal counts for less than its lines."""
    part = half / ".train-00001.part"
    part.write_bytes(part.read_bytes()[:-1])

    def others_were_faster(folder, name):
        for suffix in (".tar", ".parquet", ".json"):
            shutil.copy(dataset / f"train-00002{suffix}", half)
        return 0 if name == "train-00002" else stored_rows(folder, name)

    monkeypatch.setattr("synclones.generate.workers.stored_rows", others_were_faster)
    main(["--config", "half/config.yaml"])
    assert shown == [(30, 60, 60)]
    assert identity(half) == identity(dataset)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_prints_the_command_that_goes_on(prompts, tmp_path, number):
    out = tmp_path / "x"
    process = _begin(PLAIN, prompts, out, "--num-inference-steps", "400")
    try:
        _wait_until(lambda: list(out.glob("log/*.jsonl")), process)
        os.kill(process.pid, number)
        printed = process.communicate(timeout=LIMIT_S)[0]
    finally:
        process.kill()
    assert process.returncode == 128 + number
    last = printed.splitlines()[-1]
    assert last.endswith(f"run the same command again to resume, or `synclones generate --config {out}/config.yaml`")
    done = run_command(sys.executable, "-m", "synclones.cli", "shards", "show", str(out), cwd=tmp_path)
    assert f"next    synclones generate --config {out}/config.yaml" in done.stdout
    assert synclones("shards", "verify", str(out), cwd=tmp_path).returncode == 3


# ------------------------------------------------------------------ finished or not


@pytest.mark.parametrize("text", ["", "{}", '{"stage": "train"}', "[" * 100_000])
def test_a_set_with_a_manifest_that_is_none_is_finished_again(copy_of_dataset, dataset, prompts, text, capsys):
    (copy_of_dataset / "manifest.json").write_text(text)
    main(["--prompts", str(prompts), "--out", str(copy_of_dataset), *QUICK])
    assert "nothing to do" not in capsys.readouterr().err and identity(copy_of_dataset) == identity(dataset)
    facts = ("stage", "content_hash", "counts", "classes")
    ours, theirs = (read_manifest(folder) for folder in (copy_of_dataset, dataset))
    assert [ours[name] for name in facts] == [theirs[name] for name in facts]


@pytest.mark.parametrize("name", ["manifest.json", "config.yaml", "SHA256SUMS", "preview.html", "log"])
def test_what_lies_in_the_way_of_a_file_is_refused_before_anything_is_drawn(copy_of_dataset, prompts, name):
    (copy_of_dataset / "train-00001.json").unlink()
    in_the_way = copy_of_dataset / name
    if in_the_way.is_dir():
        shutil.rmtree(in_the_way)
        in_the_way.touch()
    else:
        in_the_way.unlink()
        in_the_way.mkdir()
    before = {path: path.stat().st_mtime_ns for path in copy_of_dataset.rglob("*")}
    with pytest.raises(InputError, match=f"{name}: (a|no) folder, where .* written; move it away"):
        main(["--prompts", str(prompts), "--out", str(copy_of_dataset), *QUICK])
    assert before == {path: path.stat().st_mtime_ns for path in copy_of_dataset.rglob("*")}
