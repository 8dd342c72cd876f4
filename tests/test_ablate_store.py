"""The store of steps: one claim each, growth that waits for readers, records that say what is whole."""

import json
import os
import subprocess
import sys

import pytest

from synclones.ablate.steps import Step
from synclones.ablate.store import Store


def drawing(size: int) -> Step:
    return Step("drawn", "generate", {"preset": "lab", "num-images": size}, size=size)


def training(on: Step) -> Step:
    return Step("clone", "train", {"recipe": "lab", "data": [on]})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "out")


def finish(store: Store, step: Step) -> None:
    store.beside(step, "").parent.mkdir(parents=True, exist_ok=True)
    store.finish(step, [], step.size, 1.0, 1.0)


def test_sizes_of_a_set_are_one_step_that_is_done_once_it_is_large_enough(store):
    small, large = drawing(100), drawing(400)
    assert (small.key, small.identity, training(small).address) == (large.key, large.identity, training(large).address)
    finish(store, large)
    assert store.is_done(small) and store.is_done(large) and not store.is_done(drawing(500))


def test_tables_of_several_sizes_are_files_of_their_own_and_what_is_drawn_from_them_is_one(store):
    tables = [Step("table", "prompts build", {"recipe": "class-name", "num-images": n}, size=n) for n in (100, 400)]
    assert tables[0].path(store.out) != tables[1].path(store.out)
    drawn = [Step("drawn", "generate", {"prompts": t, "num-images": t.size}, size=t.size) for t in tables]
    assert drawn[0].path(store.out) == drawn[1].path(store.out)


def test_a_claim_is_one_and_lives_as_long_as_the_command_that_inherited_it(store):
    step = drawing(100)
    held = store.begin(step)
    assert held is not None and store.begin(step) is None
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=held.descriptors, stdout=subprocess.DEVNULL
    )
    held.release()  # as when the engine is killed
    assert store.begin(step) is None
    child.communicate(b"\n", timeout=60)
    again = store.begin(step)
    assert again is not None
    again.release()


def test_a_set_does_not_grow_while_it_is_read_nor_is_it_read_while_it_grows(store):
    drawn = drawing(100)
    finish(store, drawn)
    readers = [store.begin(training(drawn)), store.begin(Step("other", "train", {"seed": 1, "data": [drawn]}))]
    assert all(readers)  # several at once
    assert store.begin(drawing(400)) is None
    for reader in readers:
        reader.release()
    growing = store.begin(drawing(400))
    assert growing is not None and store.begin(training(drawn)) is None
    growing.release()
    assert store.begin(training(drawn)) is not None


def test_growth_takes_away_what_says_that_the_set_is_whole_and_goes_on_to_where_it_was_going(store):
    small, large = drawing(100), drawing(400)
    words, size = store_words(store, small)
    assert size == 100 and "--extend" not in words
    os.makedirs(store.beside(small, ""))
    (store.beside(small, "") / "plan.json").write_text("{}")
    finish(store, small)
    words, size = store_words(store, large)
    assert (words[-1], words[words.index("--num-images") + 1], size) == ("--extend", "400", 400)
    assert not store.is_done(small)  # until it has ended
    # Killed there, and asked for less: the set cannot shrink, so that the larger one is made first.
    words, size = store_words(store, small)
    assert (words[words.index("--num-images") + 1], size) == ("400", 400)
    store.finish(small, [], size, 1.0, 1.0)
    assert store.is_done(large) and json.loads(store.beside(large, ".step.json").read_text())["size"] == 400


def store_words(store: Store, step: Step) -> tuple[list[str], int]:
    store.beside(step, "").parent.mkdir(parents=True, exist_ok=True)
    return store.words(step)


def test_the_last_line_of_a_log_that_says_error_is_the_reason(store):
    step = drawing(100)
    assert store.last_line(step) == "it left no log"
    store.beside(step, "").parent.mkdir(parents=True)
    store.beside(step, ".log").write_text(
        "begin\nsynclones: error: --preset 'x' is unknown\nsynclones: warning: late\n"
    )
    assert store.last_line(step) == "--preset 'x' is unknown"
    store.fail(step, store.last_line(step), 2)
    assert store.failure(step) == "--preset 'x' is unknown" and store.failure(step, since=4e9) == ""
    finish(store, step)
    assert store.failure(step) == ""
