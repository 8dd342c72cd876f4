"""Progress tells the truth: what was done before counts and is no speed, 100 % is all, lines come every 30 s."""

import io
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from synclones.base.output import shaped
from synclones.base.progress import BYTES, Progress, read_beats, remove_dead_beats


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(autouse=True)
def no_thread(monkeypatch):
    """The tests tick themselves."""
    monkeypatch.setattr(threading.Thread, "start", lambda self: None)


def passing(progress, clock, seconds, each=0):
    """Let seconds pass, a tick each, as the thread does."""
    for _ in range(seconds):
        clock.now += 1
        progress.add(each) if each else None
        progress.tick()


def frames(terminal):
    """What a terminal showed, one after the other."""
    return [frame.strip() for frame in re.split(r"[\r\n]", terminal.getvalue()) if "%" in frame]


# ------------------------------------------------------------------ in a pipe


def test_a_line_comes_every_thirty_seconds_though_nothing_is_done(clock, capsys):
    with Progress("images", 300, 60, clock=clock) as progress:
        passing(progress, clock, 29)
        assert capsys.readouterr().err == ""
        passing(progress, clock, 1)
        assert capsys.readouterr().err == "60 of 300 images, ETA unknown\n"
        passing(progress, clock, 30)
        assert capsys.readouterr().err == "60 of 300 images, nothing new for 60 s, ETA unknown\n"


def test_what_was_done_before_is_counted_and_is_no_speed(clock, capsys):
    progress = Progress("images", 1000, 600, clock=clock)
    passing(progress, clock, 30, each=2)
    assert capsys.readouterr().err == "660 of 1,000 images, 2.0 images/s, ETA 3 min\n"
    progress.also_done(200)  # by others
    assert progress.rate == pytest.approx(2) and progress.eta_s == pytest.approx(70)


def test_processes_that_share_the_work_share_the_time_left(clock):
    progress = Progress("images", 100, clock=clock, shares=4)
    passing(progress, clock, 10, each=1)
    assert progress.eta_s == pytest.approx(90 / 4)


def test_the_first_piece_which_loads_a_model_is_left_out_of_the_rate_once_there_is_another(clock):
    progress = Progress("images", 100, clock=clock)
    clock.now += 50
    progress.add(10)
    assert progress.rate == pytest.approx(10 / 50)
    clock.now += 1
    progress.add(10)  # of another worker, which began with the first
    assert progress.rate == pytest.approx(20 / 51)
    clock.now += 20
    progress.add(10)
    assert progress.rate == pytest.approx(10 / 20)


def test_the_rate_is_that_of_the_last_minutes(clock):
    progress = Progress("images", 10**6, clock=clock)
    passing(progress, clock, 400, each=10)
    passing(progress, clock, 400, each=1)
    assert progress.rate == pytest.approx(1, rel=0.01)


def test_bytes_are_said_as_megabytes(clock, capsys):
    progress = Progress(BYTES, 3_000_000_000, what="data/x", clock=clock)
    passing(progress, clock, 30, each=12_345_678)
    assert capsys.readouterr().err == "data/x: 370.4 MB of 3.0 GB, 12.3 MB/s, ETA 4 min\n"


def test_a_quiet_command_says_nothing_and_a_verbose_one_more_often(clock, capsys):
    for quiet, verbose, lines in ((True, False, 0), (False, True, 6), (False, False, 1)):
        with shaped(quiet, verbose):
            passing(Progress("images", 300, clock=clock), clock, 30)
        assert len(capsys.readouterr().err.splitlines()) == lines


# ------------------------------------------------------------------ on a terminal


def test_a_bar_moves_every_second_begins_with_what_is_there_and_ends_full(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("images", 300, 60, clock=clock) as progress:
        passing(progress, clock, 3, each=1)
        progress.note("loss {0.5}")
        passing(progress, clock, 1)
        progress.add(237)
    shown = frames(terminal)
    assert "60 of 300 images" in shown[0] and shown[0].startswith("20%")
    assert [re.search(r"(\d+) of", frame)[1] for frame in shown[1:5]] == ["61", "62", "63", "63"]
    assert "loss {0.5}" in shown[4]
    assert shown[-1].startswith("100%") and "300 of 300 images" in shown[-1] and "ETA" not in shown[-1]


def test_a_hundred_percent_is_shown_when_all_is_done_and_not_before(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress("images", 100_000, 99_999, clock=clock)
    passing(progress, clock, 2)
    progress.close()
    assert all(frame.startswith("99%") for frame in frames(terminal))


def test_a_bar_ends_where_a_failure_left_it(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(OSError), Progress("images", 10, clock=clock) as progress:
        progress.add(4)
        raise OSError
    assert frames(terminal)[-1].startswith("40%") and terminal.getvalue().endswith("\n")


def test_a_bar_is_full_when_others_did_the_rest(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress("images", 100, clock=clock, shares=2)
    progress.add(50)
    progress.close(whole=True)
    assert frames(terminal)[-1].startswith("100%")


# ------------------------------------------------------------------ for others


def test_another_process_reads_how_far_it_is_while_it_lives(tmp_path, clock):
    progress = Progress("images", 300, 60, what="x", folder=tmp_path, clock=clock)
    passing(progress, clock, 30, each=1)
    (beat,) = read_beats(tmp_path)
    assert (beat.done, beat.total, beat.unit, beat.what, beat.pid) == (90, 300, "images", "x", os.getpid())
    assert beat.rate == pytest.approx(1, rel=0.1)
    assert beat.is_alive
    progress.close()  # stopped: where it was is remembered
    assert read_beats(tmp_path)[0].done == 90
    Progress("images", 300, 90, folder=tmp_path, clock=clock).close(whole=True)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_not_alive_and_is_removed(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from synclones.base.progress import Progress\n"
        "Progress('images', 3, folder=Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    (beat,) = read_beats(tmp_path)
    assert not beat.is_alive
    living = Progress("images", 3, folder=tmp_path)
    (beat,) = read_beats(tmp_path)
    assert beat.is_alive and beat.pid == os.getpid()
    living.close()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"done": "x"}', "\0"])
def test_a_damaged_file_of_progress_is_passed_over(tmp_path, text):
    (tmp_path / ".progress-host-7.json").write_text(text)
    assert read_beats(tmp_path) == []
    remove_dead_beats(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_no_job(tmp_path, monkeypatch, clock):
    def full(value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("synclones.base.progress.pretty_json", full)
    progress = Progress("images", 3, folder=tmp_path, clock=clock)
    passing(progress, clock, 31)
    progress.close()


def test_the_thread_ticks_by_itself(tmp_path, monkeypatch):
    monkeypatch.undo()
    ticks = threading.Event()

    class Counted(Progress):
        def tick(self):
            ticks.set()

    monkeypatch.setattr("synclones.base.progress.TICK_S", 0.001)
    with Counted("images", 3, folder=tmp_path):
        assert ticks.wait(20)
    before = threading.active_count()
    time.sleep(0.01)
    assert threading.active_count() <= before
