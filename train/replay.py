"""Repeats a step whose gradient was no number: from the checkpoint before it, with a look at every image and layer.

In: a capsule in a run folder. Out: lines on the terminal; nothing is written.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from synclones.base.errors import InputError, VerificationError

if TYPE_CHECKING:  # importing them loads torch
    import torch

    from synclones.shards.loading.batch import Batch
    from synclones.train.loop import Trainer

SHOWN = 8


@dataclass(frozen=True)
class ReplayConfig:
    """Repeat a step whose gradient was not finite, and say where that began."""

    capsule: Path
    """File that the training named, in its run folder."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to repeat it; bit for bit only on the kind of device, and with as many processes, as it was."""


def replay(config: ReplayConfig) -> None:
    """Go from the newest checkpoint to the step of a capsule, and print what it did.

    Raises:
        InputError: the capsule is of another training than its folder.
    """
    from synclones.base.config import load
    from synclones.train.job import prepare
    from synclones.train.launch import start_accelerator
    from synclones.train.loop import Trainer
    from synclones.train.recovery.capsule import read_capsule
    from synclones.train.recovery.folder_names import SETTINGS
    from synclones.train.settings import TrainConfig

    capsule = read_capsule(config.capsule)
    # The settings of the run, but for what would write into its folder or hold up a look at it.
    settings = load(TrainConfig, ["--config", str(capsule.run / SETTINGS)], "synclones train replay")
    quiet: dict[str, Any] = {"out": capsule.run, "track": "none", "compile": False, "device": config.device}
    job = prepare(replace(settings, **quiet), 0, 1)
    if job.plan_id != capsule.plan_id:
        raise InputError(f"{config.capsule}: of another training than {capsule.run}; put it back where it was written")
    trainer = Trainer(job, start_accelerator(job))
    trainer.watch.keeps_capsules = False
    trainer.resume(keep_metrics=True)
    if trainer.step > capsule.step:
        raise InputError(f"{config.capsule}: step {capsule.step + 1} is before the oldest checkpoint kept")
    trainer.start()
    print(f"{capsule.run}: from step {trainer.step} to step {capsule.step + 1}", flush=True)
    for batch in job.loader().batches(trainer.step, capsule.step + 1):
        if batch.step < capsule.step:
            trainer.train_step(batch)
        else:
            _look(trainer, batch)


def _look(trainer: "Trainer", batch: "Batch") -> None:
    """Take one step and print losses, gradients and the first layer whose output is no number."""
    first_layer, norms = _watch_layers(trainer), _watch_gradients(trainer)
    try:
        trainer.train_step(batch)
        trainer.watch.refuse()
        outcome = "the gradient is finite here: it is another one on this device or with one process"
    except VerificationError as error:
        outcome = str(error).split(": ", 1)[-1]
    print(outcome)
    # Where it began: the first layer in the order of computation, the parameters it reached.
    if first_layer:
        print(f"first layer whose output is not finite: {first_layer[0]}")
    bad = [name for name, norm in norms.items() if not math.isfinite(norm)]
    if bad:
        print(f"gradients that are not finite: {len(bad)} of {len(norms)}, such as {', '.join(bad[:3])}")
    finite = sorted((norm, name) for name, norm in norms.items() if math.isfinite(norm))
    for norm, name in finite[::-1][:3]:
        print(f"  norm {norm:.3g}: {name}")
    _print_samples(trainer, batch)


def _print_samples(trainer: "Trainer", batch: "Batch") -> None:
    """Print the images of the largest losses, those that are no numbers first."""
    losses = trainer.watch.losses.float().tolist()
    order = sorted(range(len(losses)), key=lambda at: (math.isfinite(losses[at]), -losses[at]))
    bad = sum(not math.isfinite(loss) for loss in losses)
    print(f"losses of {len(losses)} images, {bad} of them not finite; the largest:")
    for at in order[:SHOWN]:
        part = trainer.job.mixed.parts[int(batch.source[at])]
        named = f"sample {int(batch.index[at])} of {part.source.folder}"
        print(f"  {losses[at]:.4g}: {named}, label {int(batch.labels[at])}, showing {int(batch.times_seen[at])}")


def _watch_layers(trainer: "Trainer") -> list[str]:
    """Return a list that receives the name of the first layer without layers of its own whose output is no number."""
    first: list[str] = []

    def watch(name: str, output: "torch.Tensor | Any") -> None:
        import torch

        if not first and isinstance(output, torch.Tensor) and not torch.isfinite(output).all():
            first.append(name)

    for name, layer in trainer.learner.network.named_modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda _, __, output, name=name: watch(name, output))
    return first


def _watch_gradients(trainer: "Trainer") -> dict[str, float]:
    """Return a dictionary that receives the norm of every parameter's gradient before it is clipped."""
    norms: dict[str, float] = {}
    for name, parameter in trainer.parameters.items():

        def note(of: "torch.Tensor", name: str = name) -> None:
            norms[name] = float(of.grad.norm()) if of.grad is not None else 0.0

        parameter.register_post_accumulate_grad_hook(note)
    return norms
