"""Captions written by many processes at once: who does what, what kills cost, and that the file never tells."""

import fcntl
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_prompts_models import _echo, _Server
from tiny_writers import write_blip2

from synclones.base.errors import InputError, VerificationError
from synclones.base.json_file import canonical_json
from synclones.prompts.captions import describe
from synclones.prompts.captions.journal import caption_facts
from synclones.prompts.captions.pieces import Work, cut
from synclones.prompts.run import main
from synclones.shards.lock import claim

SETTINGS = {"model": "m", "seed": 1}


class _Job:
    """Work whose captions tell which batch they were written in; ``asked`` lists the batches, in their order."""

    def __init__(self, out, asked, rows=50, batch_size=3, settings=SETTINGS):
        self.work, self.asked = Work(out, settings, rows, batch_size), asked

    def answer(self, start, stop, before):
        keys = [str(number) for number in range(start, stop)]
        if all(key in self.work.earlier for key in keys):
            return [self.work.earlier[key] for key in keys], 0
        self.asked.append((start, stop))
        made = [{"key": key, "caption": f"row {key} of {start}:{stop}", "fault": ""} for key in keys]
        return made, stop - start

    def run(self):
        work = self.work
        if work.begin():
            work.divide(self.answer, "captions")
            return work.finish(lambda records: (pa.Table.from_pylist(records), {"good": len(records)}))
        return None


@pytest.fixture
def alone(tmp_path):
    """The file that one process writes."""
    assert _Job(tmp_path / "alone" / "c.parquet", []).run() is not None
    return (tmp_path / "alone" / "c.parquet").read_bytes()


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 16), (64, 16), (65, 16), (5000, 3), (1_281_167, 16)])
def test_pieces_are_whole_batches_that_cover_every_row_once(rows, batch_size):
    made = cut(rows, batch_size)
    assert [piece.number for piece in made] == list(range(len(made)))
    assert [made[0].start, *(piece.stop for piece in made)] == [*(piece.start for piece in made), rows]
    assert all(piece.start % batch_size == 0 and piece.start < piece.stop for piece in made)
    assert len({piece.stop - piece.start for piece in made[:-1]}) <= 1 and len(made) < 2000


def test_one_that_joins_midway_does_what_nobody_holds_and_nothing_is_done_twice(tmp_path, alone, capsys):
    out, asked = tmp_path / "c.parquet", []
    first, second = _Job(out, asked), _Job(out, asked)
    answer, done = first.answer, []

    def joined(start, stop, before):
        if not done:
            done.append(second.run())  # a whole other process, while this one holds its first piece
        return answer(start, stop, before)

    first.answer = joined
    assert first.run() is not None and done == [None]
    assert sorted(asked) == [(start, min(start + 3, 50)) for start in range(0, 50, 3)], "each batch once"
    assert asked[-4:] == [(0, 3), (3, 6), (6, 9), (9, 12)], "the held piece was left to its holder"
    printed = capsys.readouterr().out
    assert "1 of 5 pieces are left, held by" in printed and f"process {os.getpid()}" in printed
    assert out.read_bytes() == alone and [path.name for path in tmp_path.iterdir() if path.is_file()] == ["c.parquet"]
    assert not out.with_name("c.parquet.parts").exists()


def test_a_process_that_stands_still_keeps_one_piece_and_no_more(tmp_path, alone, capsys):
    out, asked = tmp_path / "c.parquet", []
    assert Work(out, SETTINGS, 50, 3).begin()
    with claim(tmp_path / "c.parquet.parts", "piece-00002") as held:
        held.path.write_text("node7 process 12")
        assert _Job(out, asked).run() is None and not out.exists()
        assert "1 of 5 pieces are left, held by node7 process 12" in capsys.readouterr().out
    assert not any(24 <= start < 36 for start, _ in asked) and len(asked) == 13
    assert _Job(out, asked).run() is not None
    assert len(asked) == 17 and out.read_bytes() == alone


def test_ranks_of_one_job_begin_apart_and_only_the_first_speaks(tmp_path, monkeypatch, capsys):
    begun = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        out, asked = tmp_path / f"{rank}" / "c.parquet", []
        assert _Job(out, asked, rows=90).run() is not None
        assert len(asked) == 30, "every rank can do all of it"
        begun.append(asked[0][0])
        capsys.readouterr()
        assert _Job(out, asked, rows=90).run() is None
        assert ("complete; nothing to do" in capsys.readouterr().out) == (rank == 0)
    assert begun == [0, 24, 60]
    assert len({(tmp_path / f"{rank}" / "c.parquet").read_bytes() for rank in range(3)}) == 1


def test_a_torn_batch_is_written_again_and_a_damaged_piece_named(tmp_path, alone):
    out, asked = tmp_path / "c.parquet", []
    job = _Job(out, asked)
    answer = job.answer

    def dies(start, stop, before):
        if start == 18:
            raise KeyboardInterrupt
        return answer(start, stop, before)

    job.answer = dies
    with pytest.raises(KeyboardInterrupt):
        job.run()
    part = tmp_path / "c.parquet.parts" / ".piece-00001.part"
    whole = part.read_bytes()
    assert asked == [(0, 3), (3, 6), (6, 9), (9, 12), (12, 15), (15, 18)]
    part.write_bytes(whole[:-20].replace(b"row 15", b"row 99") + b'\n{"half')
    job = _Job(out, asked)
    job.work.finish = lambda make: None
    job.run()
    assert asked[6:8] == [(15, 18), (18, 21)] and len(asked) == 18, "the torn batch alone is asked for again"
    finished = tmp_path / "c.parquet.parts" / "piece-00003.jsonl"
    finished.write_bytes(finished.read_bytes().replace(b"row 37", b"row 73"))
    with pytest.raises(VerificationError, match="piece-00003.jsonl: damaged; delete this file"):
        _Job(out, asked).run()
    finished.unlink()
    assert _Job(out, asked).run() is not None and out.read_bytes() == alone


def test_other_settings_on_one_file_are_refused_while_it_is_written_and_after(tmp_path):
    out = tmp_path / "c.parquet"
    assert Work(out, SETTINGS, 50, 3).begin()
    before = sorted(path.name for path in tmp_path.rglob("*"))
    for other, match in (
        (Work(out, SETTINGS | {"seed": 2}, 50, 3), "begun with other settings: seed 1 there, 2 asked"),
        (Work(out, SETTINGS, 50, 4), "batch_size 3 there, 4 asked"),
        (Work(out, SETTINGS, 51, 3), "rows 50 there, 51 asked"),
    ):
        with pytest.raises(InputError, match=match):
            other.begin()
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert _Job(out, []).run() is not None
    with pytest.raises(InputError, match="exists .seed 1 there, 2 asked.; choose another file"):
        Work(out, SETTINGS | {"seed": 2}, 50, 3).begin()
    folder = tmp_path / "d.parquet.parts"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="has no settings.json; choose another --out"):
        Work(tmp_path / "d.parquet", SETTINGS, 50, 3).begin()
    assert (folder / "thesis.txt").read_text() == "mine"


def test_what_a_kill_behind_the_last_rename_left_is_removed_by_the_same_command(tmp_path, alone, capsys):
    out, asked = tmp_path / "c.parquet", []
    job = _Job(out, asked)
    job.work._sweep = lambda: None
    assert job.run() is not None and out.with_name("c.parquet.parts").exists()
    assert _Job(out, []).run() is None and "complete; nothing to do" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir() if path.name != "alone"] == ["c.parquet"]
    assert out.read_bytes() == alone


# ------------------------------------------------------------------ an earlier version's journal


def _earlier(path, keys, settings=SETTINGS):
    """What one process of an earlier version left, killed in the middle of a line."""
    records = [{"key": str(key), "caption": f"earlier {key}", "fault": ""} for key in keys]
    path.write_bytes(b"".join(canonical_json(line) + b"\n" for line in ({"settings": settings}, *records)) + b'{"ke')


def test_whole_batches_of_an_earlier_version_are_taken_over(tmp_path, capsys):
    out, asked = tmp_path / "c.parquet", []
    _earlier(tmp_path / "c.parquet.journal", range(17))
    table, _ = _Job(out, asked).run()
    captions = table["caption"].to_pylist()
    assert captions[:15] == [f"earlier {n}" for n in range(15)] and captions[15] == "row 15 of 15:18"
    assert asked[0] == (15, 18) and len(asked) == 12
    assert "17 captions of an earlier version are taken over" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [out], "its journal goes with the rest"


# What decided a caption in the journals of the earlier version, by its commands.
EARLIER_SETTINGS = {
    "caption": ["model", "revision", "model_sha256", "prompt", "max_new_tokens"],
    "write": ["model", "revision", "server", "seed", "words", "captions_per_class", "batch_size", "temperature",
              "top_p", "max_tokens", "classes_sha256", "places"],
}  # fmt: skip


@pytest.mark.parametrize("verb", ["caption", "write"])
def test_a_whole_journal_of_the_earlier_commands_needs_no_model_any_more(verb, tmp_path, monkeypatch):
    out, again = tmp_path / "c.parquet", tmp_path / "again" / "c.parquet"
    server = _Server(_echo)
    if verb == "caption":
        (tmp_path / "images").mkdir()
        for number in range(5):
            Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(tmp_path / "images" / f"{number}.png")
        monkeypatch.setattr(describe, "load_text_model", lambda *_: None)
        monkeypatch.setattr(describe, "describe", lambda _, images, *__: [f"a red of {i[0, 0, 0]}" for i in images])
        flags = ["--images", str(tmp_path / "images"), "--model", str(write_blip2(tmp_path / "blip2"))]
    else:
        flags = ["--classes", "lab-digits", "--captions-per-class", "2", "--server", server.url]
    main([verb, *flags, "--out", str(out)])
    facts, rows = caption_facts(out), pq.read_table(out).to_pylist()
    keys = [row.get("image_sha256", str(number)) for number, row in enumerate(rows)]
    lines = [{"settings": {name: facts[name] for name in EARLIER_SETTINGS[verb]}}]
    lines += [{"key": key, **row} for key, row in zip(keys, rows, strict=True)]
    again.parent.mkdir()
    again.with_name("c.parquet.journal").write_bytes(b"".join(canonical_json(line) + b"\n" for line in lines))
    monkeypatch.setattr(describe, "load_text_model", lambda *_: pytest.fail("a model was loaded"))
    asked = len(server.requests)
    main([verb, *flags, "--out", str(again)])
    assert pq.read_table(again).to_pylist() == rows and len(server.requests) == asked
    assert list(again.parent.iterdir()) == [again]
    server.close()


def test_an_earlier_journal_that_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    out, journal = tmp_path / "c.parquet", tmp_path / "c.parquet.journal"
    _earlier(journal, range(3), SETTINGS | {"seed": 2})
    with pytest.raises(InputError, match="other settings: seed 2 there, 1 asked; choose another --out, or delete it"):
        _Job(out, []).run()
    journal.write_text("hello\n")
    with pytest.raises(InputError, match="is no journal of captions"):
        _Job(out, []).run()
    _earlier(journal, range(3))
    with journal.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as its writer does
        with pytest.raises(InputError, match="another process is writing these captions"):
            _Job(out, []).run()
    assert list(tmp_path.iterdir()) == [journal]
    journal.write_bytes(b'{"settin')  # killed in its first line
    assert _Job(out, []).run() is not None


# ------------------------------------------------------------------ commands


def test_a_dry_run_prints_number_rate_time_and_dollars_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = write_blip2(tmp_path / "blip2")
    (tmp_path / "images").mkdir()
    for number in range(5):
        Image.new("RGB", (40, 40), (number * 50, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    before = sorted(tmp_path.rglob("*"))
    flags = ["--images", "images", "--model", str(model), "--max-new-tokens", "2", "--batch-size", "2"]
    main(["caption", *flags, "--device", "cpu", "--dry-run", "--price-per-hour", "3600"])
    shown = capsys.readouterr().out
    for words in (
        "5 images, 5 of them left",
        "one batch of 2 in",
        "on cpu",
        "with eight",
        "at 3600 dollars per hour",
    ):
        assert words in shown
    seconds = float(shown.split("one batch of 2 in ")[1].split(" s")[0])
    amount, unit = shown.split("cost       ")[1].split(" ")[:2]
    dollars = float(amount) / {"cents": 100, "dollars": 1}[unit]
    assert dollars == pytest.approx(2.5 * seconds, abs=0.02), "a dollar a second, two and a half batches"
    server = _Server(_echo)
    main(["write", "--classes", "lab-digits", "--captions-per-class", "3", "--batch-size", "4", "--server", server.url]
         + ["--dry-run", "--price-per-hour", "2"])  # fmt: skip
    shown = capsys.readouterr().out
    counted = "30 captions of 10 concepts, 30 of them left"
    for words in (counted, "Write one caption", "on the server", "cents at 2 dollars"):
        assert words in shown
    assert len(server.requests) == 4, "one batch"
    server.close()
    assert sorted(tmp_path.rglob("*")) == before


def test_batch_size_and_rate_are_printed_while_it_runs(tmp_path, monkeypatch, capsys):
    _Job(tmp_path / "c.parquet", [], rows=50, batch_size=10).run()
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"50 of 50 captions, [\d.,]+ captions/s, batch size 10", line)


def test_a_gpu_of_its_own_for_every_process_of_a_machine(monkeypatch, tmp_path):
    moved = []

    class Model:
        def to(self, device):
            moved.append(device)
            return self

        def eval(self):
            return self

    class Loader:
        from_pretrained = staticmethod(lambda *_, **__: Model())

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("transformers.AutoModelForCausalLM", Loader)
    monkeypatch.setattr("transformers.AutoTokenizer", Loader)
    for name, value in (("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    from synclones.prompts.captions.transformers_model import TextModelFolder, load_text_model

    for rank in range(4):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        load_text_model(TextModelFolder("m", tmp_path, "", ""), "text", "cuda", "--model")
    assert moved == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]


def test_an_image_in_two_pieces_has_one_caption(tmp_path, monkeypatch):
    """Shown twice, it may be told apart by rounding; the file has what the first said."""
    (tmp_path / "images").mkdir()
    for number in range(9):
        Image.new("RGB", (8, 8), (0 if number in (0, 8) else number * 20, 0, 0)).save(
            tmp_path / "images" / f"{number}.png"
        )
    monkeypatch.setattr(describe, "load_text_model", lambda *_: None)
    calls = []
    monkeypatch.setattr(
        describe,
        "describe",
        lambda model, images, *_: [f"the caption {len(calls)}" for _ in images if not calls.append(1)],
    )
    model = write_blip2(tmp_path / "blip2")
    out = tmp_path / "c.parquet"
    flags = ["--images", str(tmp_path / "images"), "--model", str(model), "--device", "cpu", "--batch-size", "1"]
    main(["caption", *flags, "--out", str(out)])
    rows = pq.read_table(out).to_pylist()
    assert len(calls) == 9 and len({row["caption"] for row in rows}) == 8
    assert rows[0]["caption"] == rows[8]["caption"] == "the caption 1"


# ------------------------------------------------------------------ kills


def _killed(tmp_path, seed, kills, timeout):
    harness = Path(__file__).with_name("caption_kill_harness.py")
    done = subprocess.run(
        [sys.executable, str(harness), str(tmp_path / "work"), str(seed), str(kills)],
        capture_output=True, text=True, timeout=timeout, cwd=harness.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_three_at_once_and_ten_kills_give_the_file_of_one_process(tmp_path):
    found = _killed(tmp_path, 0, 10, 300)
    assert sum(found["kills"].values()) >= 10 and len(found["equal"]) >= 4
    assert all(found["equal"]) and found["leftovers"] == []


@pytest.mark.slow
@pytest.mark.timeout(1900)
def test_a_hundred_kills_give_the_file_of_one_process(tmp_path):
    found = _killed(tmp_path, 1, 100, 1800)
    assert sum(found["kills"].values()) >= 100 and len(found["kills"]) == 5
    assert all(found["equal"]) and found["leftovers"] == []
