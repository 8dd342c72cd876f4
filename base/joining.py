"""Joins the processes of a job whose launcher may start them again: those of one start find each other alone.

In: the variables of a launcher. Out: torch's process group, which Accelerate then takes as it is.
"""

import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from synclones.base import machine
from synclones.base.errors import MachineError

if TYPE_CHECKING:  # importing it takes a second
    from torch.distributed import Store

_PAUSE_S = 0.05


def join_started_again(device: str, timeout_s: float) -> None:
    """Form the process group where torchrun may start processes again (``--max-restarts``); else leave it to others.

    torchrun keeps one store for all starts: a process would read there where its neighbours of an earlier start
    listened, be refused, and use up the restarts, or wait for ever. So rank 0 gives each start a name of its own.

    Args:
        device: cpu or cuda.
        timeout_s: longest wait for the others.

    Raises:
        MachineError: not all processes come.
    """
    if machine.world_size() == 1 or os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") == "0":
        return
    import torch.distributed as distributed

    timeout = timedelta(seconds=timeout_s)
    store, rank, world_size = next(distributed.rendezvous("env://", timeout=timeout))
    name = _name_of_start(distributed.PrefixStore("synclones", store), rank, world_size, timeout_s)
    distributed.init_process_group(
        backend="gloo" if device == "cpu" else "nccl",
        store=distributed.PrefixStore(name, store),
        rank=rank,
        world_size=world_size,
        timeout=timeout,
    )


def _name_of_start(store: "Store", rank: int, world_size: int, timeout_s: float) -> str:
    """Return a name that the living processes agree on, whatever dead ones have left in the store.

    Every process asks under a number nobody had before; rank 0 answers all that it sees, and is done when each rank has
    taken its answer. An answer to a dead process' number is never read.
    """
    own = os.urandom(8).hex()
    deadline = time.monotonic() + timeout_s
    if rank:
        store.set(f"asks/{rank}", own)
        _wait_for(store, [f"answer/{own}"], deadline)
        name: str = store.get(f"answer/{own}").decode()
        store.set(f"taken/{name}/{rank}", "")
        return name
    waiting = set(range(1, world_size))
    while waiting:
        for other in list(waiting):
            if store.check([f"asks/{other}"]):
                store.set(f"answer/{store.get(f'asks/{other}').decode()}", own)
            if store.check([f"taken/{own}/{other}"]):
                waiting.discard(other)
        _refuse_late(deadline, waiting)
    return own


def _wait_for(store: "Store", keys: list[str], deadline: float) -> None:
    while not store.check(keys):
        _refuse_late(deadline, keys)


def _refuse_late(deadline: float, what: Any) -> None:
    if what and time.monotonic() > deadline:
        raise MachineError("not all processes of this job came in time; run the same command again to resume")
    time.sleep(_PAUSE_S if what else 0)
