"""What a training would take: its plan, with the rate measured on this machine.

In: a `Job`. Out: lines on the terminal; nothing is written.
"""

import time

from accelerate import Accelerator

from synclones.base.config import format_duration
from synclones.models.folder import num_parameters
from synclones.train.job import Job
from synclones.train.loop import Trainer

MEASURED_STEPS = 3


def dry_run(job: Job, accelerator: Accelerator) -> None:
    """Print data, network, length, rate, time and cost, measured on three steps after one to warm up."""
    config = job.config
    # The first step is left out: it allocates, and compiles where that was asked for.
    trainer = Trainer(job, accelerator)
    trainer.start()
    started = 0.0
    for number, batch in enumerate(job.loader().batches(0, MEASURED_STEPS + 1)):
        if number == 1:
            _synchronize(trainer)
            started = time.monotonic()
        trainer.train_step(batch)
    _synchronize(trainer)
    rate = MEASURED_STEPS * config.batch_size / (time.monotonic() - started)
    if job.rank:
        return
    # One process speaks for all: the rate is of the whole job.
    images = job.num_steps * config.batch_size
    print("\n".join([job.mixed.table(), *job.measured.lines()]))
    moving = sum(p.numel() for p in trainer.parameters.values())
    trained = f", {moving / 1e6:.2f} M trained" if moving < num_parameters(trainer.learner.network) else ""
    print(f"images     {config.image_size_px} px, {config.decode} decoding, {config.interpolation}")
    print(
        f"network    {config.architecture}: {num_parameters(trainer.learner.network) / 1e6:.2f} M parameters{trained}"
    )
    if trainer.began:
        print(f"begins     {trainer.began}")
    print(f"length     {job.num_steps} steps of {config.batch_size}: {images} images, plan {job.plan_id}")
    print(
        f"rate       {rate:.0f} images/s on {trainer.accelerator.device}, {job.precision}, {job.world_size} processes"
    )
    print(f"time       {format_duration(images / rate)}")
    for reached in config.expected:
        print(f"expected   {reached}")
    if config.price_per_hour:
        dollars = images / rate / 3600 * config.price_per_hour * job.world_size
        print(f"cost       {dollars:.2f} dollars at {config.price_per_hour} per hour and process")


def _synchronize(trainer: Trainer) -> None:
    if trainer.accelerator.device.type == "cuda":
        import torch

        torch.cuda.synchronize()
