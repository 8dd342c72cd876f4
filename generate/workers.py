"""Draws shards with the workers of this process: threads that share the weights and divide the shards.

In: a checked `Job`, its target and the shards that are missing. Out: finished shards. Also the sampler of one worker,
for drawing a single batch, and the batch size that is measured with it.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from synclones.base.errors import Stopped
from synclones.base.process import stop_if_asked, stopping_between_steps
from synclones.generate.generators.generator import Generator, load_pipeline
from synclones.generate.generators.kernels import speed_up
from synclones.generate.job import Job
from synclones.generate.plan import PLAN_FILE, Plan
from synclones.generate.progress import DrawProgress
from synclones.generate.settings import num_workers
from synclones.generate.target import Target
from synclones.prompts.schema import PromptRow
from synclones.prompts.table import PromptTable
from synclones.shards.schema import FailedSample, Sample
from synclones.shards.write import stored_rows

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from synclones.generate.sampling.sampler import Sampler


def draw(job: Job, target: Target, missing: list[int], refresh_preview: Callable[[], None]) -> int:
    """Draw ``missing`` shards into ``target``; return the number of images this process drew.

    Args:
        refresh_preview: is called twice a second by the main process, and cheap while nothing is due.
    """
    from synclones.generate.sampling.sampler import Sampler
    from synclones.generate.worker import Worker, shard_order, work

    plan, count = job.plan, num_workers(job.config, job.device)
    new_sampler = partial(Sampler, _load(job), plan, job.gates.open(job.device), job.sources)
    already_done = plan.num_samples - sum(len(batch) for shard in missing for batch in plan.batches(shard))
    names = [plan.shard_name(shard) for shard in missing]
    begun = {name: rows for name in names if (rows := stored_rows(target.folder, name))}
    progress = DrawProgress(target.folder, plan.num_samples, already_done, job.rank, job.world_size, begun)
    if job.device != "cpu" and target.keeps_shards:
        _compare_one_batch(job, target, new_sampler(), progress)

    # Each worker begins with its own share of this job's part, so that workers meet as late as possible.
    part, parts = job.part
    wanted = set(job.config.shards or missing)
    shards = [shard for shard in missing if shard % parts == part and shard in wanted]
    stop, pool, gpu_lock = (
        threading.Event(),
        ThreadPoolExecutor(count, thread_name_prefix="draw"),
        _gpu_lock(job.device),
    )
    running = []
    for number in range(count):
        worker = Worker(
            plan=plan,
            table=PromptTable(job.table.path),
            draw=_draw_rows(job, new_sampler(gpu_lock)),
            target=target,
            stop=stop,
            progress=progress,
        )
        order = shard_order(shards, job.rank * count + number, job.world_size * count)
        running.append(pool.submit(work, worker, order))
    try:
        _wait(pool, running, stop, refresh_preview if job.rank == 0 else lambda: None)
    except (Exception, KeyboardInterrupt):  # of a notebook, which lives on: nobody draws there any more
        progress.close()
        raise
    progress.close(whole=not target.missing())
    return progress.drawn


def _draw_rows(job: Job, sampler: "Sampler") -> Callable[[Sequence[PromptRow]], list[Sample | FailedSample]]:
    """Return what draws one batch of prompt rows: all of them, or in a retry only what is drawn again."""
    from synclones.generate.batch import draw_batch

    draw_all = partial(draw_batch, job.plan, sampler)
    return draw_all if job.retry is None else partial(job.retry.draw, job.plan, draw_all)


def _compare_one_batch(job: Job, target: Target, sampler: "Sampler", progress: DrawProgress) -> None:
    """Log whether a finished batch, drawn again on this GPU, has the stored bytes."""
    from synclones.generate.redraw import redraws_alike

    alike = redraws_alike(job.plan, target.folder, job.table, sampler)
    if alike is not None:
        progress.redrawn(alike)


def _gpu_lock(device: str) -> AbstractContextManager:
    """Return what a worker holds while it draws: of a GPU's workers one draws while the other encodes and writes."""
    return nullcontext() if device == "cpu" else threading.Lock()


def one_sampler(job: Job) -> "Sampler":
    """Return the sampler of a single worker."""
    from synclones.generate.sampling.sampler import Sampler

    return Sampler(_load(job), job.plan, job.gates.open(job.device), job.sources)


def with_measured_batch_size(job: Job) -> Job:
    """Return the job with a measured batch size: measured now, or by the process that began the set."""
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
    return load_for(job.plan, job.generator, job.device)


def load_for(plan: Plan, generator: Generator, device: str) -> "DiffusionPipeline":
    """Load a generator as a plan says; sets torch's threads and kernels for the whole process."""
    import torch

    torch.set_num_threads(plan.threads_per_worker)
    torch.backends.cudnn.benchmark = False  # a choice of kernels by timing would change bytes between runs
    torch.backends.cudnn.deterministic = True
    pipeline = load_pipeline(generator, plan.scheduler, plan.dtype, device)
    speed_up(pipeline, plan.compiled, plan.attention)
    return pipeline


def _wait(
    pool: ThreadPoolExecutor, workers: list[Future], stop: threading.Event, meanwhile: Callable[[], None]
) -> None:
    """Wait for all workers; the first failure stops the others after their batch and is raised."""
    pending = set(workers)
    try:
        with stopping_between_steps():  # a stop leaves at once, but through the target, which gives its leases back
            while pending:  # short waits, so that signals reach the main thread
                stop_if_asked()
                meanwhile()
                finished, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
                for worker in finished:
                    worker.result()  # raises the worker's own exception
    except Stopped:
        raise  # the process leaves without its workers: a batch may take minutes
    except BaseException:
        stop.set()
        pool.shutdown()
        raise
    pool.shutdown()
