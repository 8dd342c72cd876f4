"""Joins the processes of a training, and begins what it logs to.

In: a `Job`. Out: an `Accelerator`.
"""

from datetime import timedelta
from typing import Any

from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs

from synclones.base.config import to_dict
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
    """Begin to log to what ``--track`` chose, or go on where an earlier start of this training stopped.

    TensorBoard forgets what was logged after ``step``; wandb and trackio know the training again by its folder and
    plan.
    """
    tracker, name = job.config.track, job.config.out.resolve().name
    if tracker == "none":
        return
    named = {
        "tensorboard": (tracker, {"purge_step": step + 1}),
        "trackio": (name, {"name": f"{name}-{job.plan_id}", "resume": "allow"}),
        "wandb": (
            "synclones",
            {"name": name, "id": f"{name}-{job.plan_id}", "resume": "allow", "dir": str(job.config.out)},
        ),
    }
    project, settings = named[tracker]
    config = None if tracker == "tensorboard" else _plain(to_dict(job.config))  # which shows only numbers and texts
    accelerator.init_trackers(project, config, init_kwargs={tracker: settings})


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as trackers take them: numbers and texts."""
    return {name: value if isinstance(value, int | float | str) else str(value) for name, value in settings.items()}
