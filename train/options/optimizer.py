"""The settings of the optimizer, its schedules and the moving average of the weights.

In and out: nothing; `TrainConfig` inherits them, so that every one is a flag and a key of recipes.
"""

import math
from dataclasses import dataclass
from typing import Literal

from synclones.base.config import Count

# What each number may be: (lowest, highest).
OPTIMIZER_RANGES: dict[str, tuple[float, float]] = {
    "beta1": (0, 0.99999),
    "beta2": (0, 0.9999999),
    "epsilon": (0, 1),
    "layer_decay": (0.01, 1),
    "step_factor": (0, 1),
    "warmup_steps": (0, 10**12),
    "warmup_samples": (0, 10**15),
    "weight_decay_end": (-1, 10),
    "ema_decay": (0, 0.9999999),
}


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """How weights are stepped, and how that changes over the training."""

    optimizer: Literal["adamw", "adam", "sgd", "lars", "muon"] = "adamw"
    """adamw and muon decay weights apart from the gradient (decoupled, times the learning rate); adam, sgd and lars add
    the decay to the gradient (coupled). muon: timm's, for hidden matrices; AdamW for head, vectors and embeddings."""
    beta1: float = 0.9
    """Decay of the gradient's mean in adamw, adam and muon's AdamW."""
    beta2: float = 0.999
    """Decay of the squared gradient's mean."""
    epsilon: float = 1e-8
    """Added to the root of the squared gradient's mean."""
    momentum: float = 0.9
    """Of sgd, lars and muon."""
    nesterov: bool = False
    """Nesterov's momentum in sgd, lars and muon."""
    layer_decay: float = 1.0
    """Learning rate of a layer over that of the next one (timm's layers, the full rate at the head); 1: all alike."""
    schedule: Literal["cosine", "linear", "step", "constant"] = "cosine"
    """How the learning rate goes on after the warm-up."""
    step_at: tuple[float, ...] = (0.6, 0.75, 0.9)
    """Shares of the training after which the step schedule multiplies the learning rate."""
    step_factor: float = 0.2
    """By what."""
    min_rate: float = 0.0
    """Learning rate at the end of cosine and linear."""
    warmup_steps: Count = 0
    """Length of the warm-up in steps, in place of the share."""
    warmup_samples: Count = 0
    """Length of the warm-up in images, in place of the share."""
    warmup_from: float = -1.0
    """Learning rate of the first step, exactly, such as 0 or 1e-6; -1: one step's share of the way up."""
    weight_decay_end: float = -1.0
    """Weight decay at the end, reached along half a cosine; -1: it stays."""

    @property
    def has_momentum(self) -> bool:
        """Whether sgd and lars keep a tensor per parameter."""
        return self.momentum > 0


@dataclass(frozen=True, kw_only=True)
class EmaSettings:
    """How slowly the average follows."""

    ema_decay: float = 0.0
    """Share of the moving average that each step keeps, such as 0.9999; 0 keeps no average."""
    ema_schedule: Literal["constant", "warmup", "cosine"] = "constant"
    """constant and warmup are timm's (warmup: 1 - t^(-2/3) until the decay is reached; the first step is copied);
    cosine rises from the decay to 1 over the training, a teacher's."""

    def decay(self, steps_done: int, num_steps: int) -> float:
        """Return the share that is kept after optimizer step ``steps_done``, 1..num_steps."""
        if self.ema_schedule == "cosine":
            # Grill et al. 2020 (BYOL), section 3.2: counted from 0, and without a step that copies.
            return 1 - (1 - self.ema_decay) * 0.5 * (1 + math.cos(math.pi * (steps_done - 1) / num_steps))
        if steps_done <= 1:
            return 0.0
        if self.ema_schedule == "warmup":
            return min(self.ema_decay, 1 - math.pow(steps_done, -2 / 3))
        return self.ema_decay
