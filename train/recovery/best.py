"""The best measurement of a training, kept as a checkpoint of its own until the training ends.

In: the accuracy that each measurement selects by, checkpoints. Out: ``best/step-N`` in the run folder, and which step
that is, which every checkpoint of the training says. The one before stays as well: whichever checkpoint a training goes
on from, the best one that it names is there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synclones.base.errors import VerificationError
from synclones.train.recovery.checkpoint import Checkpoint, read_checkpoint, save_checkpoint

KEPT = 2


@dataclass(frozen=True)
class Best:
    """The best measurement so far."""

    step: int = 0
    """0 before the first one."""
    accuracy: float = -1.0

    def is_beaten_by(self, accuracy: float) -> bool:
        """Return whether a later measurement is better; the first of equals stays."""
        return accuracy > self.accuracy

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint says of it."""
        return {"step": self.step, "accuracy": self.accuracy}


def best_of(state: Any, where: Path) -> Best:
    """Return what a checkpoint's state says; nothing where it is of a training without a choice.

    Raises:
        VerificationError: it is damaged.
    """
    try:
        return Best(int(state["step"]), float(state["accuracy"])) if state is not None else Best()
    except (KeyError, TypeError, ValueError):
        raise VerificationError(f"{where}: damaged; remove it to go on from another") from None


def save_best(folder: Path, checkpoint: Checkpoint) -> None:
    """Keep a checkpoint as the best one."""
    save_checkpoint(folder, checkpoint, KEPT)


def read_best(folder: Path, best: Best, plan_id: str) -> Checkpoint:
    """Return the best checkpoint of a training.

    Raises:
        VerificationError: it is missing, damaged, or of another training.
    """
    path = folder / f"step-{best.step:08d}"
    checkpoint = read_checkpoint(path)
    if checkpoint.plan_id != plan_id:
        raise VerificationError(f"{path}: of another training; restore it, or train into another --out")
    return checkpoint
