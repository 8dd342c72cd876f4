"""One worker: claims shards, draws their batches, stores them, until nothing is left for it.

In: a `Worker` (plan, prompt table, what draws a batch, target). Out: finished shards. Workers (threads of a process,
processes of a machine, machines on one file system or store) never talk to each other: a lock or lease per shard
divides the work, the plan decides the bytes. A worker starts with its own share and then helps with what nobody holds.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from synclones.generate.plan import Plan
from synclones.generate.progress import DrawProgress
from synclones.generate.target import Target
from synclones.prompts.schema import PromptRow
from synclones.prompts.table import PromptTable
from synclones.shards.schema import FailedSample, Sample
from synclones.shards.write import ShardWriter, is_complete


@dataclass(frozen=True, kw_only=True)
class Worker:
    """What one worker draws, with what, and where its shards go."""

    plan: Plan
    table: PromptTable
    """Its own: a reader is not shared between threads."""
    draw: Callable[[Sequence[PromptRow]], list[Sample | FailedSample]]
    """Draws the rows of one batch."""
    target: Target
    stop: threading.Event
    """Ends the work after the batch that is being drawn."""
    progress: DrawProgress


def shard_order(shards: Sequence[int], worker: int, num_workers: int) -> list[int]:
    """Return a worker's own share, then everybody else's, which each worker begins at another one."""
    own = list(shards[worker::num_workers])
    others = [shard for position, shard in enumerate(shards) if position % num_workers != worker]
    turn = len(others) * worker // num_workers
    return own + others[turn:] + others[:turn]


def work(worker: Worker, shards: Sequence[int]) -> None:
    """Draw every shard of ``shards`` that is neither complete nor held by another worker."""
    torch.set_num_threads(worker.plan.threads_per_worker)  # for the calling thread, whatever OMP_NUM_THREADS says
    for shard in shards:
        if worker.stop.is_set():
            return
        name = worker.plan.shard_name(shard)
        with worker.target.hold(name) as hold:
            if hold is not None and _draw_shard(worker, shard, hold.lost) and hold.publish():
                worker.progress.shard_done(name)
            elif hold is None and is_complete(worker.target.folder, name):  # by another process, meanwhile
                worker.progress.shard_passed(name, sum(map(len, worker.plan.batches(shard))))


def _draw_shard(worker: Worker, shard: int, lost: threading.Event) -> bool:
    """Draw the batches that the shard's journal lacks; return whether the shard is finished."""
    plan, folder, name = worker.plan, worker.target.folder, worker.plan.shard_name(shard)
    if is_complete(folder, name):
        return True  # by a process that was killed before it published the shard
    batches = plan.batches(shard)
    with ShardWriter(folder, name, plan.plan_id) as writer:
        worker.progress.shard_resumed(name, len(writer.rows))
        for number in range(writer.next_batch, len(batches)):
            if worker.stop.is_set() or lost.is_set():
                return False
            rows = worker.table.rows(batches[number].start, batches[number].stop)
            samples = worker.draw(rows)
            writer.add_batch(number, samples)
            worker.progress.batch_done(len(rows), sum(isinstance(sample, FailedSample) for sample in samples))
        writer.finish()
    return True
