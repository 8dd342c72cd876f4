"""Step caching for UNets: deep features change little from step to step, so between full steps they are used again.

In: a UNet of SD or SDXL. Out: `StepCache`, called like it. Of DeepCache (Ma et al. 2023, arXiv 2312.00858) this is the
shallowest branch: only the last layer of the last up block, which also sees the first convolution of the step's own
latents, is computed in every step. Both parts run through diffusers' own forward, on copies that share the weights.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import nn


class StepCache:
    """A UNet that is computed whole in every ``every``-th call; in those between only its last layer is.

    One worker's own: what it keeps is of the batch that is being drawn. `restart` begins a batch.
    """

    def __init__(self, unet: nn.Module, every: int, compiled: bool):
        self._every, self._age = every, 0
        self._kept = _Kept()
        self._deep, self._last = _all_but_the_last_layer(unet), _last_layer(unet, self._kept)
        if compiled:
            self._deep.compile()
            self._last.compile()

    def restart(self) -> None:
        """Forget the features: the next call is computed whole."""
        self._kept.features = None

    def __call__(self, inputs: torch.Tensor, *args: Any, **more: Any) -> Any:
        """What the UNet returns for these arguments, or about that between its full calls.

        A batch of another size is computed whole: guidance has begun or ended, and every row is another one's.
        """
        kept = self._kept.features
        if kept is None or len(kept) != len(inputs) or self._age == self._every:
            self._kept.features, self._age = self._deep(inputs, *args, **more)[0], 0
        self._age += 1
        return self._last(inputs, *args, **more)


class _Kept(nn.Module):
    """Stands where the middle block was, and answers with what the deep part has found."""

    features: torch.Tensor | None = None

    def forward(self, _sample: torch.Tensor, _time: torch.Tensor) -> torch.Tensor | None:
        return self.features


def _all_but_the_last_layer(unet: Any) -> Any:
    """The UNet, which now returns what its last layer gets from below: float[n, c, h, w]."""
    part = _sharing_weights(unet)
    _keep_layers(part.up_blocks[-1], slice(None, -1))
    part.conv_norm_out, part.conv_out = None, nn.Identity()
    return part


def _last_layer(unet: Any, kept: _Kept) -> Any:
    """The UNet without all that lies between its first convolution and its last layer."""
    part = _sharing_weights(unet)
    part.down_blocks, part.mid_block, part.up_blocks = nn.ModuleList(), kept, part.up_blocks[-1:]
    _keep_layers(part.up_blocks[0], slice(-1, None))
    return part


def _sharing_weights(unet: nn.Module) -> nn.Module:
    """A copy whose blocks may be taken out while others draw with the original; no weight is copied."""
    return deepcopy(unet, {id(weight): weight for weight in (*unet.parameters(), *unet.buffers())})


def _keep_layers(block: Any, which: slice) -> None:
    """A layer is a residual block and, in blocks that attend, a transformer."""
    block.resnets = block.resnets[which]
    if hasattr(block, "attentions"):
        block.attentions = block.attentions[which]
