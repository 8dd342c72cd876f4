"""Processes of one start find each other, whatever those of an earlier start have left in the launcher's store."""

import threading

import pytest
import torch.distributed as distributed

from synclones.base import joining
from synclones.base.errors import MachineError


def _started(store, world_size: int, timeout_s: float = 10.0) -> list[str]:
    names: list[str] = [""] * world_size

    def join(rank: int) -> None:
        names[rank] = joining._name_of_start(store, rank, world_size, timeout_s)

    threads = [threading.Thread(target=join, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return names


@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_each_start_has_a_name_of_its_own_that_all_its_processes_know(world_size):
    store = distributed.HashStore()
    starts = [_started(store, world_size) for _ in range(3)]
    assert all(len(set(names)) == 1 for names in starts)
    assert len({names[0] for names in starts}) == 3


def test_a_process_that_asked_and_died_is_not_waited_for():
    store = distributed.HashStore()
    store.set("asks/1", "of a dead one")
    store.set("answer/of a dead one", "the name of an earlier start")
    store.set("taken/the name of an earlier start/1", "")
    names = _started(store, 3)
    assert len(set(names)) == 1 and names[0] != "the name of an earlier start"


@pytest.mark.parametrize("rank", [0, 1])
def test_what_never_comes_ends_the_wait(rank):
    with pytest.raises(MachineError, match="not all processes of this job came in time"):
        joining._name_of_start(distributed.HashStore(), rank, 2, 0.3)


def test_only_a_launcher_that_may_start_processes_again_is_met_so(monkeypatch):
    monkeypatch.setattr(distributed, "rendezvous", lambda *a, **k: pytest.fail("asked for"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    joining.join_started_again("cpu", 1)
    monkeypatch.delenv("TORCHELASTIC_MAX_RESTARTS")
    joining.join_started_again("cpu", 1)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("WORLD_SIZE", "1")
    joining.join_started_again("cpu", 1)
