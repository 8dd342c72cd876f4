"""Finds the training objectives: every file of ``train/objectives/`` is one, so adding an objective is adding a file.

An objective file has a docstring, the ``COLUMNS`` of a data set that it needs, ``num_outputs(num_classes)`` of the
network's head, and ``losses(batch, model, config)``, which returns per-image tensors by name: ``loss`` is what is
minimised, and the mean of each is logged under its name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from torch import Tensor, nn

from synclones.base.errors import InputError
from synclones.train.settings import TrainConfig

OBJECTIVES = Path(__file__).resolve().parent / "objectives"
LOSS = "loss"
AVAILABLE_COLUMNS = ("label",)


@dataclass(frozen=True)
class TrainingBatch:
    """What an objective computes its losses of, on the device."""

    images: Tensor
    """float32[n, 3, size, size] in 0..1, augmented."""
    labels: Tensor
    """int64[n]."""


@dataclass(frozen=True)
class Objective:
    """What a training minimises."""

    name: str
    num_outputs: Callable[[int], int]
    """Number of classes -> outputs of the network."""
    losses: Callable[[TrainingBatch, nn.Module, TrainConfig], dict[str, Tensor]]
    """float32[n] by name, ``loss`` among them; the model takes images and returns its outputs."""


def objective_names() -> list[str]:
    """Return the objectives there are, as written on the command line."""
    return sorted(path.stem.replace("_", "-") for path in OBJECTIVES.glob("*.py"))


def load_objective(name: str) -> Objective:
    """Load an objective by name.

    Raises:
        InputError: when there is none of that name, or it needs columns that no data set has.
    """
    if name not in objective_names():
        near = get_close_matches(name, objective_names(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(objective_names())}"
        raise InputError(f"--objective: {name!r} is unknown; {hint}")
    module = import_module(f"synclones.train.objectives.{name.replace('-', '_')}")
    missing = [column for column in module.COLUMNS if column not in AVAILABLE_COLUMNS]
    if missing:
        raise InputError(
            f"--objective {name}: needs the column {missing[0]!r}, batches have {', '.join(AVAILABLE_COLUMNS)}"
        )
    return Objective(name, module.num_outputs, module.losses)
