"""One worker: claims shards, draws their batches, stores them, until nothing is left for it.

In: plan, prompt table, sampler, dataset folder. Out: finished shards. Workers (threads of a process, processes of a
machine, machines on one file system) never talk to each other: a lock per shard divides the work, the plan decides the
bytes. A worker starts with its own share and then helps with what nobody holds.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import simplejpeg
import torch

from synclones.base.json_file import canonical_json
from synclones.generate.plan import Plan
from synclones.generate.retry import Retry
from synclones.generate.sampling.sampler import DrawnBatch, Sampler
from synclones.prompts.table import PromptRow, PromptTable
from synclones.shards.lock import claim
from synclones.shards.read import ShardFolder
from synclones.shards.schema import FailedSample, Sample, SampleRow
from synclones.shards.write import ShardWriter, is_complete

BatchDone = Callable[[int], None]
ShardDone = Callable[[str], None]
DrawRows = Callable[[Plan, Sampler, Sequence[PromptRow]], list[Sample | FailedSample]]


def shard_order(shards: Sequence[int], worker: int, num_workers: int) -> list[int]:
    """A worker's own share first, then everybody else's, each beginning at another place."""
    own = list(shards[worker::num_workers])
    others = [shard for place, shard in enumerate(shards) if place % num_workers != worker]
    turn = len(others) * worker // num_workers
    return own + others[turn:] + others[:turn]


def work(
    plan: Plan,
    folder: Path,
    table: PromptTable,
    sampler: Sampler,
    shards: Sequence[int],
    stop: threading.Event,
    on_batch: BatchDone,
    on_shard: ShardDone,
    retry: Retry | None = None,
) -> None:
    """Draw every shard of ``shards`` that is neither complete nor held by another worker; ``stop`` ends it early.

    ``retry``: take what it does not draw again from an earlier version of the set.
    """
    draw = draw_batch if retry is None else retry.draw
    torch.set_num_threads(plan.threads_per_worker)  # holds for the calling thread, whatever OMP_NUM_THREADS says
    for shard in shards:
        name = plan.shard_name(shard)
        if stop.is_set() or is_complete(folder, name):
            continue
        claimed = claim(folder, name)
        if claimed is None:
            continue
        with claimed:
            if not is_complete(folder, name) and _draw_shard(plan, folder, table, sampler, shard, stop, on_batch, draw):
                on_shard(name)


def _draw_shard(
    plan: Plan,
    folder: Path,
    table: PromptTable,
    sampler: Sampler,
    shard: int,
    stop: threading.Event,
    on_batch: BatchDone,
    draw: DrawRows,
) -> bool:
    """Draw the batches that the shard's journal lacks; return whether the shard is finished."""
    batches = plan.batches(shard)
    with ShardWriter(folder, plan.shard_name(shard), plan.plan_id) as writer:
        for number in range(writer.next_batch, len(batches)):
            if stop.is_set():
                return False
            rows = table.rows(batches[number].start, batches[number].stop)
            writer.add_batch(number, draw(plan, sampler, rows))
            on_batch(len(rows))
        writer.finish()
    return True


def draw_batch(
    plan: Plan, sampler: Sampler, rows: Sequence[PromptRow], earlier: Sequence[SampleRow] = ()
) -> list[Sample | FailedSample]:
    """Draw and encode one batch of prompt rows, in their order; ``earlier`` as in `Sampler.draw`."""
    images = sampler.source_images([row.source_key for row in rows])
    drawn = sampler.draw([row.prompt for row in rows], [row.index for row in rows], images, earlier)
    return [_to_sample(plan, row, drawn, position) for position, row in enumerate(rows)]


def redraws_alike(plan: Plan, folder: Path, table: PromptTable, sampler: Sampler) -> bool | None:
    """Draw the first batch of a finished shard again: whether its images have the stored bytes; None without a shard.

    Bytes are promised on CPU. On a GPU kernels may differ between drivers and devices of one name, so a process that
    resumes there says whether it continues the same images or only the same prompts and seeds.
    """
    shard = next((n for n in range(plan.num_shards) if is_complete(folder, plan.shard_name(n))), None)
    if shard is None:
        return None
    batch = plan.batches(shard)[0]
    drawn = draw_batch(plan, sampler, table.rows(batch.start, batch.stop))
    stored = {
        sample.index: sample.jpg for sample in ShardFolder(folder, plan.split).sequential([plan.shard_name(shard)])
    }
    return all(stored.get(s.index) == (s.jpg if isinstance(s, Sample) else None) for s in drawn)


def _to_sample(plan: Plan, row: PromptRow, drawn: DrawnBatch, position: int) -> Sample | FailedSample:
    seed, attempt, verdict = drawn.seeds[position], drawn.attempts[position], drawn.verdicts[position]
    shared: dict[str, Any] = {
        "index": row.index,
        "label": row.label if plan.has_labels else None,
        "seed": seed,
        "attempt": attempt,
        "reason": verdict.reason,
        "scores": verdict.scores,
    }
    if verdict.status != "ok":
        return FailedSample(status=verdict.status, **shared)
    facts = {
        "index": row.index,
        "seed": seed,
        "attempt": attempt,
        "class_id": row.class_id,
        "caption_id": row.caption_id,
        "plan": plan.plan_id,
    }
    jpg = simplejpeg.encode_jpeg(
        drawn.images[position], quality=plan.jpeg_quality, colorspace="RGB", colorsubsampling="420"
    )
    return Sample(jpg=jpg, json=canonical_json(facts), txt=row.prompt, **shared)
