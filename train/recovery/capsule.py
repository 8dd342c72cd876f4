"""What is kept of a step whose gradient is no number: which images it saw, so that it can be looked at again.

In: a `Job` and a step. Out: ``capsule-00000007.json`` in the run folder, a few kB; `read_capsule` checks one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError
from synclones.base.files import write_atomic
from synclones.base.json_file import pretty_json, read_json
from synclones.train.job import Job

FORMAT, MOST_SAMPLES = 1, 64


@dataclass(frozen=True)
class Capsule:
    """A step that went wrong."""

    run: Path
    plan_id: str
    step: int
    """Counted from 0: so many steps were taken before it."""


def write_capsule(job: Job, step: int, suspects: list[dict[str, Any]]) -> Path:
    """Write down step 0..num_steps-1; ``suspects``: images whose loss is no number, where they are known."""
    path = job.config.out / f"capsule-{step + 1:08d}.json"
    content = {
        **{"format": FORMAT, "plan_id": job.plan_id, "step": step, "seed": job.config.seed},
        **{"world_size": job.world_size, "device": job.device, "precision": job.precision},
        "not_finite": suspects[:MOST_SAMPLES],
    }
    write_atomic(path, pretty_json(content))
    return path


def read_capsule(path: Path) -> Capsule:
    """Read one that `write_capsule` wrote; its run is the folder that it lies in.

    Raises:
        InputError: there is none, or it is another kind of file.
    """
    try:
        content = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such file; give the capsule that a training named") from None
    except ValueError as error:
        raise InputError(f"{path}: no capsule of a training ({error})") from None
    is_ours = isinstance(content, dict) and content.get("format") == FORMAT
    if not is_ours or type(content.get("step")) is not int or content["step"] < 0:
        raise InputError(f"{path}: no capsule of a training; give one that a training named")
    return Capsule(path.absolute().parent, str(content.get("plan_id")), content["step"])
