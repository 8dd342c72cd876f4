"""Draws shards with the workers of this process: threads that share the weights and divide the shards.

In: a checked `Job` and the shards that are missing. Out: finished shards in its folder. Also the sampler of one worker,
for whoever draws a single batch, and the batch size that is measured with it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from synclones.base.errors import Stopped
from synclones.generate.generators.generator import load_pipeline
from synclones.generate.generators.kernels import speed_up
from synclones.generate.job import Job
from synclones.generate.plan import PLAN_FILE, Plan
from synclones.generate.preview.sheet import GrowingPreview
from synclones.generate.progress import Progress
from synclones.generate.settings import num_workers
from synclones.prompts.table import PromptTable, class_names

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from synclones.generate.sampling.sampler import Sampler


def draw(
    job: Job,
    missing: list[int],
    in_store: Callable[..., None] | None = None,
    look: Callable[[], None] | None = None,
) -> int:
    """Draw ``missing`` shards; return the number of images this process drew.

    When the set's place is an object store, ``in_store`` draws them and ``look`` writes the contact sheet now and then.
    """
    from synclones.generate.sampling.sampler import Sampler
    from synclones.generate.worker import redraws_alike, shard_order, work

    plan, workers, folder = job.plan, num_workers(job.config, job.device), job.config.out
    pipeline, gates = _load(job), job.gates.open(job.device)
    done = plan.num_samples - sum(len(batch) for shard in missing for batch in plan.batches(shard))
    progress = Progress(folder, plan.num_samples, done, job.rank, job.world_size)
    if job.device != "cpu" and in_store is None:
        alike = redraws_alike(plan, folder, job.table, Sampler(pipeline, plan, gates, job.sources))
        if alike is not None:
            progress.redrawn(alike)
    stop, reports = threading.Event(), (progress.batch_done, progress.shard_done)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="draw")
    share, shares = job.part
    mine = [shard for shard in missing if shard % shares == share]
    jobs, draw_shards, turn = [], in_store or partial(work, retry=job.retry), _turn(job.device)
    for worker in range(workers):
        order = shard_order(mine, job.rank * workers + worker, job.world_size * workers)
        table, sampler = PromptTable(job.table.path), Sampler(pipeline, plan, gates, job.sources, turn)
        jobs.append(pool.submit(draw_shards, plan, folder, table, sampler, order, stop, *reports))
    look = look or GrowingPreview(folder, plan, class_names(job.table.metadata)).look
    _wait(pool, jobs, stop, look if job.rank == 0 else lambda: None)
    progress.close()
    return progress.drawn


def _turn(device: str) -> AbstractContextManager:
    """What a worker holds while it draws: on a GPU one worker draws while the other encodes and writes its pictures."""
    return nullcontext() if device == "cpu" else threading.Lock()


def one_sampler(job: Job) -> "Sampler":
    """The sampler of a single worker."""
    from synclones.generate.sampling.sampler import Sampler

    return Sampler(_load(job), job.plan, job.gates.open(job.device), job.sources)


def with_measured_batch_size(job: Job) -> Job:
    """The job with the batch size that is measured now, or was by whoever began before."""
    from synclones.generate.batch_size import measured_batch_size, settle_batch_size

    def sampler(plan: Plan) -> "Sampler":
        # Not compiled: every size would be, for minutes, and the sizes' order would be the same.
        return one_sampler(replace(job, plan=replace(plan, compiled=False)))

    def measure(plan: Plan) -> int:
        return measured_batch_size(plan, job.table, sampler, job.device)

    if job.config.dry_run and not (job.config.out / PLAN_FILE).exists():
        plan = replace(job.plan, batch_size=measure(job.plan))
    else:
        plan = settle_batch_size(job.config.out, job.plan, measure)
    return replace(job, plan=plan, config=replace(job.config, batch_size=plan.batch_size))


def _load(job: Job) -> "DiffusionPipeline":
    import torch

    plan = job.plan
    torch.set_num_threads(plan.threads_per_worker)
    torch.backends.cudnn.benchmark = False  # a choice of kernels by timing would change bytes between runs
    torch.backends.cudnn.deterministic = True
    pipeline = load_pipeline(job.generator, plan.scheduler, plan.dtype, job.device)
    speed_up(pipeline, plan.compiled, plan.attention)
    return pipeline


def _wait(pool: ThreadPoolExecutor, jobs: list, stop: threading.Event, meanwhile: Callable[[], None]) -> None:
    """Wait for all workers; the first failure stops the others after their batch and is raised."""
    pending = set(jobs)
    try:
        while pending:  # short waits, so that signals reach the main thread
            meanwhile()
            finished, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
            for job in finished:
                job.result()  # raises the worker's own exception
    except Stopped:
        raise  # the process leaves without its workers: a batch may take minutes
    except BaseException:
        stop.set()
        pool.shutdown()
        raise
    pool.shutdown()
