"""Joins the processes of a training, and begins what it logs to.

In: a `Job`. Out: an `Accelerator`.
"""

from datetime import timedelta

from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs

from synclones.base.joining import join_started_again
from synclones.base.machine import check_world_size
from synclones.train.job import Job


def start_accelerator(job: Job) -> Accelerator:
    """Join the other processes.

    Raises:
        InputError: when the launcher and Accelerate count them differently.
        MachineError: not all come.
    """
    tracker = job.config.track
    join_started_again(job.device, job.config.timeout_s)
    accelerator = Accelerator(
        mixed_precision="bf16" if job.precision == "bf16" else "no",
        cpu=job.device == "cpu",
        log_with=None if tracker == "none" else tracker,
        project_dir=job.config.out,
        # Else Accelerate would take the number from the environment, and divide gradients by it.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=job.config.timeout_s))],
    )
    check_world_size(job.world_size, accelerator.num_processes)
    return accelerator


def start_trackers(accelerator: Accelerator, job: Job, step: int) -> None:
    """Begin to log to what ``--track`` chose; TensorBoard forgets what an earlier start logged after ``step``."""
    if job.config.track == "tensorboard":
        accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": step + 1}})
    elif job.config.track == "trackio":
        accelerator.init_trackers(job.config.out.resolve().name)
