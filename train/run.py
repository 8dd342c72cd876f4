"""Trains a clone on labelled shards, and survives being killed.

In: dataset folders. Out: a run folder with checkpoints, metrics and ``export/``. Run the same command again to resume,
with any number of processes; without arguments it trains on the lab's digits.

    synclones train --recipe vit-b16 --data data/x --out runs/x
"""

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from synclones.base import machine
from synclones.base.config import save
from synclones.base.errors import InputError
from synclones.base.manifest import MANIFEST_FILE
from synclones.base.process import run_main, stop_on_signals
from synclones.base.stage import Stage, Verb
from synclones.base.weights import refuse_old_libraries
from synclones.lab.world import ensure_synthetic
from synclones.shards.lock import Claim, claim
from synclones.train.settings import TrainConfig

if TYPE_CHECKING:  # importing it would load torch for --help
    from synclones.train.job import Job


def main(argv: list[str]) -> None:
    """Run one verb; ``run`` when none is given."""
    STAGE.main(argv)


def run(config: TrainConfig) -> None:
    """Train what the settings say, on the lab's digits when they name no data."""
    refuse_old_libraries()
    stop_on_signals()
    machine.check_launch()
    rank, world_size = machine.rank(), machine.world_size()
    if not config.data:
        config = replace(config, data=(str(ensure_synthetic()),))
    train(config, rank, world_size)


def _implied(flags: list[str]) -> list[str]:
    """Add the lab's recipe when nothing says what to train on, and let a length take the place of the recipe's."""
    return _one_length(_with_lab_recipe(flags))


def _with_lab_recipe(flags: list[str]) -> list[str]:
    """Add the lab's recipe when nothing says what to train on, or how."""
    chosen = any(flag.split("=")[0] in ("--data", "--recipe", "--config", "--help", "-h") for flag in flags)
    return flags if chosen else ["--recipe", "lab", *flags]


def _one_length(flags: list[str]) -> list[str]:
    """Let a length among the flags take the place of the recipe's, in whatever unit that is."""
    units = ("--samples", "--steps", "--epochs")
    given = {flag.split("=")[0] for flag in flags} & set(units)
    return [*flags, *(text for unit in units if given and unit not in given for text in (unit, "0"))]


def train(config: TrainConfig, rank: int, world_size: int) -> None:
    """Train what is missing of a run and, when nothing is, export it."""
    from synclones.train.job import prepare

    job = prepare(config, rank, world_size)
    if config.dry_run:
        from synclones.train.dry_run import dry_run

        dry_run(job)
        return
    with _own(job) if rank == 0 else contextlib.nullcontext():
        if not (config.out / MANIFEST_FILE).exists():
            _train(job)
        elif rank == 0:
            print(f"{config.out}: complete, {job.num_steps} steps; nothing to do", file=sys.stderr)


def _own(job: "Job") -> Claim:
    """Make the run folder this job's.

    Raises:
        InputError: when it belongs to another training, or another process trains in it.
    """
    from synclones.train.job import claim_plan

    job.config.out.mkdir(parents=True, exist_ok=True)
    held = claim(job.config.out, "run")
    if held is None:
        raise InputError(f"{job.config.out}: another process trains here; wait for it, or give another --out")
    try:  # the plan is looked at by whoever owns the folder: of two commands at once, only one writes it
        claim_plan(job)
        save(job.config, job.config.out / "config.yaml")
    except BaseException:
        held.path.unlink(missing_ok=True)
        held.release()
        raise
    return held


def _train(job: "Job") -> None:
    import torch

    from synclones.train.finish import finish
    from synclones.train.loop import Trainer, start_accelerator

    torch.set_num_threads(job.config.torch_threads or machine.cores())
    accelerator = start_accelerator(job)
    trainer = Trainer(job, accelerator)
    trainer.resume()
    if trainer.step and job.rank == 0:
        print(f"{job.config.out}: resuming after step {trainer.step} of {job.num_steps}", file=sys.stderr)
    metrics = trainer.train()
    if accelerator.is_main_process:
        finish(job, trainer, metrics)
    accelerator.wait_for_everyone()
    accelerator.end_training()


STAGE = Stage(
    name="train",
    phrase="Train a clone on labelled shards; the same command resumes after any kill.",
    verbs={"run": Verb(TrainConfig, run)},
    examples=(
        "synclones train",
        "synclones train --recipe vit-b16 --data data/x --out runs/x --dry-run",
        "synclones train --recipe vit-b16 --data data/x data/real:2 --out runs/x",
    ),
    presets=Path(__file__).resolve().parent / "recipes",
    implied=_implied,
)

if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
