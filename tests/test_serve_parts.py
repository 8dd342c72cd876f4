"""Parts of the browser's pages: curves that lose no spike, logs and shards that are read while they are written."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shard_helpers import PLAN, batches, sample, write_shard

from synclones.base.errors import InputError, VerificationError
from synclones.serve.pages.curves import curve, short, thinned, ticks
from synclones.serve.pages.frame import address, is_below
from synclones.shards.growing import growing_rows, growing_sample, growing_shards
from synclones.shards.journal import journalled_batches
from synclones.shards.schema import ShardFiles
from synclones.shards.write import ShardWriter
from synclones.train.progress import last_logged, logged

NUMBERS = st.floats(min_value=-1e299, max_value=1e299)


@given(NUMBERS, NUMBERS)
@example(0.0, 0.0)
@example(5e-324, 1e-323)
@example(1.0, 1.0 + 1e-16)
@example(-1e299, 1e299)
def test_ticks_are_few_rising_and_hold_what_is_drawn(low, high):
    low, high = min(low, high), max(low, high)
    made = ticks(low, high)
    slack = 1e-9 * max(abs(low), abs(high))
    assert 2 <= len(made) <= 12 and made == sorted(set(made))
    assert made[0] <= low + slack and high - slack <= made[-1]


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=40))
@settings(deadline=None)
def test_a_curve_of_any_numbers_stays_in_its_figure_or_says_where_they_end(values):
    drawn = curve("loss", {"a & <b>": [(10.0 * k, y) for k, y in enumerate(values)]}, "images seen")
    coordinates = re.findall(r"[ML](-?[0-9.]+) (-?[0-9.]+)", "".join(re.findall(r'class="line c0" d="([^"]*)"', drawn)))
    assert all(0 <= float(x) <= 430 and -0.1 <= float(y) <= 220 for x, y in coordinates)
    assert "nan" not in drawn and "inf" not in drawn.replace("no finite", "") and "<b>" not in drawn
    unfinished = [y for y in values if not abs(y) < 1e300]
    assert ("no finite number" in drawn) == bool(unfinished)


def test_one_spike_among_a_hundred_thousand_points_is_in_the_band():
    points = [(float(k), 1.0) for k in range(100_000)]
    points[54_321] = (54_321.0, 99.0)
    made = thinned(points)
    assert len(made) <= 400 and max(high for _, _, _, high in made) == 99.0
    assert made[-1][0] == 99_999.0 and min(low for _, low, _, _ in made) == 1.0


@pytest.mark.parametrize(
    "value, shown",
    [(0, "0"), (0.05, "0.05"), (250, "250"), (25_000, "25k"), (1.28e6, "1.28M"), (4e9, "4G"), (-2e6, "-2M")],
)
def test_numbers_at_axes_are_short(value, shown):
    assert short(value) == shown


def test_a_log_is_read_while_it_is_written(tmp_path):
    lines = [
        b'{"step": 1, "loss": 2.5, "note": "x"}',
        b"{torn",
        b'{"loss": 1}',
        b'{"step": 2, "loss": NaN}',
        b'{"step": 3, "lo',
    ]
    (tmp_path / "m.jsonl").write_bytes(b"\n".join(lines))
    records = logged(tmp_path / "m.jsonl")
    assert [record["step"] for record in records] == [1, 2] and records[0] == {"step": 1, "loss": 2.5}


def test_of_a_long_log_lines_are_read_evenly_and_the_last_one_always(tmp_path):
    (tmp_path / "m.jsonl").write_text("".join(f'{{"step": {k}}}\n' for k in range(1, 1001)))
    steps = [record["step"] for record in logged(tmp_path / "m.jsonl", most=50)]
    assert len(steps) == 50 and steps[0] == 1 and steps[-1] == 1000
    assert max(b - a for a, b in zip(steps, steps[1:], strict=False)) <= 40


def test_what_is_measured_now_and_then_is_not_lost_in_a_long_log(tmp_path):
    lines = [f'{{"step": {k}, "loss": 1}}\n' for k in range(1, 2001)]
    lines[1000:1000] = ['{"step": 1000, "validation_accuracy": 0.5}\n']
    (tmp_path / "m.jsonl").write_text("".join(lines))
    records = logged(tmp_path / "m.jsonl", most=50)
    assert len(records) == 51 and [r["step"] for r in records if "validation_accuracy" in r] == [1000]
    assert [record["step"] for record in last_logged(tmp_path / "m.jsonl", 3)] == [1998, 1999, 2000]


def test_a_log_that_is_a_folder_is_refused(tmp_path):
    with pytest.raises(VerificationError, match="no regular file"):
        logged(tmp_path)


# ------------------------------------------------------------------ shards that are being drawn


@pytest.fixture
def part(tmp_path) -> ShardFiles:
    """A shard of which two batches are stored, the second with a sample that failed."""
    with ShardWriter(tmp_path, "train-00001", PLAN) as writer:
        for number, batch in enumerate(batches(1)):
            writer.add_batch(number, batch)
    return ShardFiles(tmp_path, "train-00001")


def test_a_growing_shard_holds_the_samples_of_its_batches(part):
    (files,) = growing_shards(part.folder, "train")
    rows = growing_rows(files)
    assert rows["index"].to_pylist() == list(range(8, 16)) and growing_shards(part.folder, "val") == []
    for index, status in zip(rows["index"].to_pylist(), rows["status"].to_pylist(), strict=True):
        if status == "ok":
            assert growing_sample(files, rows, index) == sample(index)
        else:
            with pytest.raises(InputError, match=r"sample 13 has no image \(failed: not finite\)"):
                growing_sample(files, rows, index)
    with pytest.raises(InputError, match="sample 7 has no image"):
        growing_sample(files, rows, 7)


@pytest.mark.parametrize("damage", [0, 400, -1])
def test_a_byte_that_differs_is_not_shown(part, damage):
    data = bytearray(part.part.read_bytes())
    data[damage] ^= 1
    part.part.write_bytes(data)
    rows = growing_rows(part)
    with pytest.raises(VerificationError, match="is damaged"):
        for index in rows["index"].to_pylist():
            if index != 13:
                growing_sample(part, rows, index)


def test_a_torn_line_ends_the_journal_for_readers_too(part):
    whole = part.journal.read_bytes()
    part.journal.write_bytes(whole[:-5])
    assert [batch.batch for batch in journalled_batches(part)] == [0]
    part.journal.write_bytes(b"")
    assert len(growing_rows(part)) == 0


def test_between_the_tar_s_new_name_and_its_json_its_samples_stay_readable(part):
    part.part.rename(part.tar)
    (files,) = growing_shards(part.folder, "train")
    assert growing_sample(files, growing_rows(files), 9) == sample(9)


def test_the_journal_that_a_kill_left_beside_a_finished_shard_is_none_that_grows(tmp_path):
    write_shard(tmp_path, 0)
    (tmp_path / ".train-00000.part.jsonl").write_bytes(b"x")
    (tmp_path / ".train-abc.part.jsonl").write_bytes(b"x")
    assert growing_shards(tmp_path, "train") == []


# ------------------------------------------------------------------ addresses


def test_what_is_empty_is_left_out_of_an_address_and_the_rest_is_quoted():
    assert address("/images", folder="a/b&c", from_=None, text="", class_=0) == "/images?folder=a%2Fb%26c&class=0"


def test_a_file_is_below_a_folder_only_when_it_is_no_link(tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a").write_text("x")
    (tmp_path / "f" / "b").symlink_to(tmp_path / "f" / "a")
    assert is_below(tmp_path / "f" / "a", tmp_path / "f")
    assert not is_below(tmp_path / "f" / "b", tmp_path / "f") and not is_below(tmp_path / "f", tmp_path / "f")
