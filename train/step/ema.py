"""The exponential moving average of a network: what is evaluated at the end, or the teacher of a student.

In: a network after each optimizer step. Out: a second network of the same names, whose parameters follow slowly.
"""

import copy

import torch
from torch import Tensor, nn

from synclones.train.options.optimizer import EmaSettings
from synclones.train.shares import Shares


def twin(learner: nn.Module, network: nn.Module) -> nn.Module:
    """Return a learner like ``learner``, in evaluation mode, that looks through ``network`` in the place of its own."""
    same = {id(learner.network): network}  # which the copy takes for its network's copy
    return copy.deepcopy(learner, same).eval()


def share_buffers(network: nn.Module, own: Shares) -> None:
    """Give all processes the mean of what each of them counted, such as the statistics of batch normalisation."""
    with torch.no_grad():
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.copy_(own.of_each(buffer).mean(0))


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
