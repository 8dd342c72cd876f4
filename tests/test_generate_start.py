"""Several commands that begin at the same moment: one plan, one owner, whoever is first."""

import json
import threading
from dataclasses import replace

from synclones.base.errors import InputError
from synclones.generate.plan import claim_folder, read_plan


def _at_once(jobs):
    """The results or errors of functions that start together."""
    barrier, results = threading.Barrier(len(jobs)), [None] * len(jobs)

    def run(position, job):
        barrier.wait()
        try:
            results[position] = job()
        except InputError as error:
            results[position] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_processes_that_begin_together_agree_on_one_plan(dataset, tmp_path):
    plan = read_plan(dataset)
    for turn in range(100):
        folder = tmp_path / str(turn)
        resumed = _at_once([lambda: claim_folder(folder, plan)] * 6)  # noqa: B023 - called before the next turn
        assert sorted(resumed) == [False, True, True, True, True, True]
        assert read_plan(folder) == plan


def test_of_two_plans_that_begin_together_one_is_refused(dataset, tmp_path):
    plans = [replace(read_plan(dataset), seed=seed) for seed in (1, 2)]
    for turn in range(100):
        folder = tmp_path / str(turn)
        jobs = [lambda plan=plan: claim_folder(folder, plan) for plan in plans]  # noqa: B023
        results = _at_once(jobs)
        winner = results.index(False)
        assert read_plan(folder) == plans[winner]
        assert "made by another plan: seed" in str(results[1 - winner])


def test_leftovers_of_a_killed_start_do_not_stand_in_the_way(dataset, tmp_path):
    plan = read_plan(dataset)
    (tmp_path / ".plan.json.tmp-1-dead").write_bytes(b"{")
    assert claim_folder(tmp_path, plan) is False
    assert json.loads((tmp_path / "plan.json").read_bytes())["seed"] == plan.seed
