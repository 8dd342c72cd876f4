"""Which images of a global batch are whose, in which parts, and what all processes have together.

In: how a batch is divided, and tensors of this process. Out: rows of all processes in the order of the global batch,
and sums over processes.
"""

from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor


@dataclass(frozen=True)
class Shares:
    """Which images of a global batch are whose, and in which parts this process takes its own."""

    parts: tuple[slice, ...]
    """Of this process' images."""
    counts: tuple[int, ...]
    """Images of every process."""
    rank: int

    @property
    def first(self) -> int:
        """Position of this process' first image in the global batch."""
        return sum(self.counts[: self.rank])

    def gathered(self, own: Tensor) -> Tensor:
        """Return the rows of all processes, one per image, in the order of the global batch; without gradients."""
        if len(self.counts) == 1:
            return own
        # Shares differ by a group at most; collectives want them equal.
        longest = max(self.counts)
        padded = torch.cat([own, own.new_zeros((longest - len(own), *own.shape[1:]))]) if len(own) < longest else own
        parts = [torch.empty_like(padded) for _ in self.counts]
        torch.distributed.all_gather(parts, padded.contiguous())
        return torch.cat([part[:count] for part, count in zip(parts, self.counts, strict=True)])

    def of_each(self, own: Tensor) -> Tensor:
        """Return [processes, ...]: a tensor of one shape from every process, without gradients."""
        if len(self.counts) == 1:
            return own[None]
        parts = [torch.empty_like(own) for _ in self.counts]
        torch.distributed.all_gather(parts, own.contiguous())
        return torch.stack(parts)
