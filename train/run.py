"""Trains a clone on labelled shards, and survives being killed.

In: dataset folders. Out: a run folder with checkpoints, metrics and ``export/``. Run the same command again to resume,
with any number of processes; without arguments it trains on the lab's digits.

    synclones train --recipe vit-b16 --data data/x --out runs/x
"""

import contextlib
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from synclones.base import machine
from synclones.base.errors import InputError
from synclones.base.manifest import MANIFEST_FILE
from synclones.base.output import say
from synclones.base.process import run_main, stop_on_signals
from synclones.base.resume import by_settings, resumed_by, typed
from synclones.base.stage import Stage, Verb
from synclones.base.units import format_count
from synclones.base.weights import refuse_old_libraries
from synclones.lab.world import SYNTHETIC, ensure_synthetic, lab_classes
from synclones.train.export.onnx_export import OnnxConfig, write_onnx
from synclones.train.recipe_text import RECIPES, print_recipe
from synclones.train.replay import ReplayConfig, replay
from synclones.train.settings import TrainConfig
from synclones.train.token_column import TokenizeConfig, tokenize

if TYPE_CHECKING:  # importing it would load torch for --help
    from accelerate import Accelerator

    from synclones.train.job import Job


def main(argv: list[str]) -> None:
    """Run one verb; ``run`` when none is given."""
    STAGE.main(argv)


def run(config: TrainConfig) -> None:
    """Train what the settings say in a process of its own."""
    stop_on_signals()
    perform(config)


def perform(config: TrainConfig) -> None:
    """Train what the settings say, on the lab's digits when they name no data."""
    refuse_old_libraries()
    machine.check_launch()
    from synclones.train.job import check_settings
    from synclones.train.recovery.run_folder import check_place

    check_place(config)
    if not config.data:
        of_the_lab = not config.recipe or config.recipe.startswith("lab")
        if config.dry_run and not (of_the_lab and (SYNTHETIC / MANIFEST_FILE).exists()):
            if machine.rank() == 0:
                first = f"a training would first draw {SYNTHETIC}; " if of_the_lab else ""
                print_recipe(config, f"none given; {first}with --data a dry run measures rate, time and cost here")
            return
        if not of_the_lab:
            raise InputError(
                f"--data: none was given, and the recipe {config.recipe} is not the lab's; give a dataset folder"
            )
        check_settings(config, machine.world_size(), lab_classes())  # before half a minute of drawing
        config = replace(config, data=(str(ensure_synthetic()),))
    train(config, machine.rank(), machine.world_size())


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
    import torch

    from synclones.train.dry_run import dry_run
    from synclones.train.job import prepare
    from synclones.train.launch import start_accelerator
    from synclones.train.recovery.run_folder import own

    job = prepare(config, rank, world_size)
    accelerator = start_accelerator(job)
    torch.set_num_threads(config.torch_threads or machine.cores())  # Accelerate has just set another number
    if config.dry_run:
        dry_run(job, accelerator)
        return
    for sentence in config.mixture().notes if rank == 0 else ():
        say(sentence)
    with own(job) if rank == 0 else contextlib.nullcontext():
        _train(job, accelerator)


def _train(job: "Job", accelerator: "Accelerator") -> None:
    from synclones.train.export.finish import end_weights, finish, print_result
    from synclones.train.loop import Trainer
    from synclones.train.recovery.agreement import agreed
    from synclones.train.recovery.folder_names import EXPORT
    from synclones.train.recovery.run_folder import is_finished, save_config

    # The first process decides for all: another one may see the folder a moment later, or through another cache.
    if agreed(is_finished(job) if job.rank == 0 else None):
        if job.rank == 0:
            done = job.objective.after_end(job.task, job.config.out / EXPORT)
            state = f"complete, {format_count(job.num_steps, 'step')}; {done or 'nothing to do'}"
            say(f"{job.config.out}: {state}")
            print_result(job)
        return
    trainer = Trainer(job, accelerator)
    trainer.resume()
    if job.rank == 0:
        save_config(job)
        if trainer.step:
            say(f"{job.config.out}: resuming after step {trainer.step} of {job.num_steps}")
        elif trainer.began:
            say(trainer.began)
        say("\n".join([job.mixed.table(), *job.measured.lines()]))
    with resumed_by(typed(by_settings(["train"], job.config.out))):
        metrics = trainer.train()
        trainer.take_best()
        trainer.choose()
        end_weights(job, trainer)
        if accelerator.is_main_process:
            finish(job, trainer, metrics, lab_classes())
        accelerator.wait_for_everyone()
    accelerator.end_training()


def _tokenize(config: TokenizeConfig) -> None:
    refuse_old_libraries()
    print(tokenize(config))


def _onnx(config: OnnxConfig) -> None:
    refuse_old_libraries()
    print(write_onnx(config))


def _replay(config: ReplayConfig) -> None:
    refuse_old_libraries()
    replay(config)


STAGE = Stage(
    name="train",
    phrase="Train a clone on shards; the same command resumes after any kill.",
    verbs={
        "run": Verb(TrainConfig, run, json=True),
        "replay": Verb(ReplayConfig, _replay, ("runs/x/capsule-00000007.json",)),
        "tokenize": Verb(TokenizeConfig, _tokenize, ("data/x", "data/x --caption-column caption --text-length 32")),
        "onnx": Verb(OnnxConfig, _onnx, ("runs/x --out model.onnx",)),
    },
    examples=(
        "synclones train",
        "synclones train --recipe vit-b16 --data data/x --out runs/x --dry-run",
        "synclones train --recipe vit-b16 --data data/x data/real:2 --out runs/x",
    ),
    presets=RECIPES,
    implied=_implied,
)

if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
