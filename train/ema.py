"""The exponential moving average of a network: what is evaluated at the end, or the teacher of a student.

In: a network after each optimizer step. Out: a second network of the same names, whose parameters follow slowly.
"""

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


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


class Ema:
    """A network that follows another one."""

    def __init__(self, network: nn.Module, settings: EmaSettings):
        """Begin with a copy of ``network``, in evaluation mode and without gradients."""
        self.settings = settings
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    def update(self, network: nn.Module, steps_done: int, num_steps: int) -> None:
        """Follow ``network`` after its optimizer step ``steps_done``: parameters are averaged, buffers copied."""
        with torch.no_grad():
            mine, others = list(self.network.parameters()), [p.detach() for p in network.parameters()]
            torch._foreach_lerp_(mine, others, weight=1.0 - self.settings.decay(steps_done, num_steps))
            for buffer, other in zip(self.network.buffers(), network.buffers(), strict=True):
                buffer.copy_(other)

    def state_dict(self) -> dict[str, Tensor]:
        """Return parameters and buffers by the names of the network."""
        return dict(self.network.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            RuntimeError: names or shapes of another network.
        """
        self.network.load_state_dict(state)
