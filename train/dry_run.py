"""What a training would take: its plan, with the rate measured on this machine.

In: a `Job`. Out: lines on the terminal; nothing is written.
"""

import time
from dataclasses import replace

from accelerate import Accelerator

from synclones.base.dry_run import DryRun
from synclones.base.units import format_count
from synclones.models.folder import num_parameters
from synclones.shards.loading.batch import Batch
from synclones.train.caching import why_not_cached
from synclones.train.job import Job
from synclones.train.loop import Trainer

MEASURED_STEPS = 3
# On a CPU a step of a batch for GPUs takes minutes and memory that is not there, and its rate is that of a smaller one.
PIXELS_ON_A_CPU = 20 * 224**2


def dry_run(job: Job, accelerator: Accelerator) -> None:
    """Print data, network, length, rate, time and cost, measured on three steps after one to warm up."""
    config, measured = job.config, _measured(job)
    batch_size = measured.config.batch_size
    # The first step is left out: it allocates, and compiles where that was asked for.
    trainer = Trainer(measured, accelerator)
    trainer.start()
    started = 0.0
    for number, batch in enumerate(measured.loader().batches(0, MEASURED_STEPS + 1)):
        if number == 1:
            _synchronize(trainer)
            started = time.monotonic()
        trainer.train_step(batch)
    _synchronize(trainer)
    rate = MEASURED_STEPS * batch_size / (time.monotonic() - started)
    rate_of_features = _rate_of_features(trainer, batch) if job.caches_features else rate
    if job.rank:
        return
    # One process speaks for all: the rate is of the whole job.
    images = job.num_steps * config.batch_size
    dry = DryRun("train")
    dry.line("", "\n".join([job.mixed.table(), *job.measured.lines()]), data=job.mixed.rows())
    parameters, moving = num_parameters(trainer.learner.network), sum(p.numel() for p in trainer.parameters.values())
    trained = f", {moving / 1e6:.2f} M trained" if moving < parameters else ""
    dry.line("images", f"{config.image_size_px} px, {config.decode} decoding, {config.interpolation}")
    named = f"{config.architecture}: {parameters / 1e6:.2f} M parameters{trained}"
    dry.line("network", named, architecture=config.architecture, parameters=parameters, trained=moving)
    if trainer.began:
        dry.line("begins", trainer.began, begins=trainer.began)
    facts = {"steps": job.num_steps, "batch_size": config.batch_size, "images": images, "plan_id": job.plan_id}
    dry.line("length", f"{job.num_steps} steps of {config.batch_size}: {images} images, plan {job.plan_id}", **facts)
    many = format_count(job.world_size, "process")
    many += f", measured on {batch_size} images a step" if batch_size < config.batch_size else ""
    dry.rate(rate, "images", f"on {trainer.accelerator.device}, {job.precision}, {many}")
    seconds = images / rate
    if job.caches_features:
        unique = sum(part.unique for part in job.mixed.parts)
        seconds = unique / rate + images / rate_of_features
        dry.line("features", f"of {unique} images once, then read from files: {rate_of_features:.0f} images/s")
    elif job.objective.has_features:
        dry.line("features", f"at every showing: {why_not_cached(config, job.objective, job.mixed)}")
    dry.time(seconds, config.price_per_hour, job.world_size)
    for reached in config.expected:
        dry.line("expected", reached, expected=list(config.expected))
    dry.print()


def _measured(job: Job) -> Job:
    """Return the training with the batches that are measured: on a CPU no more pixels than it has time for."""
    config = job.config
    sides = [config.image_size_px] * config.views + [config.local_size_px] * config.local_views
    images = PIXELS_ON_A_CPU // sum(side**2 for side in sides)
    # Every process has whole groups of a caption, and pairs of images where they are mixed.
    least = 2 * config.images_per_caption * job.world_size
    batch_size = max(images // least, 1) * least
    if job.device != "cpu" or batch_size >= config.batch_size:
        return job
    return replace(job, config=replace(config, batch_size=batch_size, micro_batch_size=0))


def _rate_of_features(trainer: Trainer, batch: Batch) -> float:
    """Return the images per second of steps on features that are there."""
    rows = trainer.job.objective.features(trainer.learner, trainer.presenter.images(batch)).cpu()
    batch = replace(batch, pixels=rows[:, None])
    started = 0.0
    for number in range(MEASURED_STEPS + 1):
        if number == 1:
            _synchronize(trainer)
            started = time.monotonic()
        trainer.train_step(batch)
    _synchronize(trainer)
    return MEASURED_STEPS * trainer.job.config.batch_size / (time.monotonic() - started)


def _synchronize(trainer: Trainer) -> None:
    if trainer.accelerator.device.type == "cuda":
        import torch

        torch.cuda.synchronize()
