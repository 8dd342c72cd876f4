"""Token merging: self-attention at the highest resolution sees the mean of tokens that are alike, once for all of them.

In: a loaded UNet and the share of tokens to merge. Out: the same UNet, its largest self-attentions wrapped. After ToMe
for Stable Diffusion (Bolya and Hoffman 2023, arXiv 2303.17604), but that of every 2x2 tokens the upper left one stays,
where the paper draws one at random: images depend on no random numbers but their own noise.
"""

from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def merge_tokens(unet: Any, share: float) -> None:
    """Wrap the self-attentions of the first down block that attends and of its counterpart among the up blocks.

    In SD these are at the resolution of the latents, in SDXL at half of it.
    """
    from diffusers.models.attention import BasicTransformerBlock

    for blocks in (unet.down_blocks, reversed(unet.up_blocks)):
        attending = next(block for block in blocks if hasattr(block, "attentions"))
        for part in list(attending.modules()):
            if isinstance(part, BasicTransformerBlock):
                part.attn1 = MergedAttention(part.attn1, share)


class MergedAttention(nn.Module):
    """Self-attention over merged tokens. It keeps no state: workers share it."""

    def __init__(self, attention: nn.Module, share: float):
        super().__init__()
        self.attention, self.share = attention, share

    def forward(self, tokens: torch.Tensor, **more: Any) -> torch.Tensor:
        """float[n, h * h, c] to the same: merged tokens all get what their mean gets."""
        assignment = assign(tokens, self.share)
        return unmerge(self.attention(merge(tokens, assignment, self.share), **more), assignment)


def assign(tokens: torch.Tensor, share: float) -> torch.Tensor:
    """Assign each token its position in the merged sequence: int64[n, h * h], of every image by its own tokens alone.

    The upper left tokens of the 2x2 cells stay. Of the others those with the highest cosine to one that stays, a
    ``share`` of all tokens, go to that one.
    """
    count, total = tokens.shape[:2]
    destination, source = _cells(isqrt(total), tokens.device)
    merged = num_merged(total, share)
    unit = F.normalize(tokens, dim=-1)
    similarity, nearest = (unit[:, source] @ unit[:, destination].mT).max(dim=-1)
    ranked = similarity.argsort(dim=-1, descending=True, stable=True)
    leaving, alone = ranked[:, :merged], ranked[:, merged:]
    assignment = torch.empty(count, total, dtype=torch.int64, device=tokens.device)
    assignment[:, destination] = torch.arange(len(destination), device=tokens.device)
    own = torch.arange(len(destination), total - merged, device=tokens.device).expand(count, -1)
    assignment.scatter_(1, source[alone], own)
    return assignment.scatter_(1, source[leaving], nearest.gather(1, leaving))


def num_merged(total: int, share: float) -> int:
    """Count how many of ``total`` tokens, a square number, are merged into others."""
    destination = ((isqrt(total) + 1) // 2) ** 2
    return min(int(total * share), total - destination)


def merge(tokens: torch.Tensor, assignment: torch.Tensor, share: float) -> torch.Tensor:
    """Return the means, taken in float32, of the tokens that share a position: float[n, h * h - merged, c]."""
    count, total, width = tokens.shape
    sums = torch.zeros(count, total - num_merged(total, share), width, device=tokens.device)
    at = assignment.unsqueeze(-1).expand_as(tokens)
    return sums.scatter_reduce_(1, at, tokens.float(), "mean", include_self=False).to(tokens.dtype)


def unmerge(merged: torch.Tensor, assignment: torch.Tensor) -> torch.Tensor:
    """Give every token what is at its position: float[n, h * h, c]."""
    return merged.gather(1, assignment.unsqueeze(-1).expand(-1, -1, merged.shape[-1]))


def _cells(side: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the numbers of the destination tokens and of the source tokens, which may be merged, int64 each."""
    stays = torch.zeros(side, side, dtype=torch.int64, device=device)
    stays[::2, ::2] = 1
    order = stays.flatten().argsort(descending=True, stable=True)
    return order.split([((side + 1) // 2) ** 2, side**2 - ((side + 1) // 2) ** 2])
