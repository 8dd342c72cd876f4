"""Turns a decoder's numbers into 8-bit images, and says whether they show anything.

In: parts of a batch, float[n, 3, h, w]. Out: uint8[n, side, side, 3] on the CPU, and per image what is wrong with it.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from synclones.generate.gates.policy import BLANK, NOT_FINITE

# An image whose darkest and brightest values are closer than this, in 8-bit steps, shows nothing.
MIN_RANGE = 4

Rounded = tuple[torch.Tensor, torch.Tensor]
"""Images uint8[n, side, side, 3]; the lowest and highest value of each before rounding, float32[n, 2], NaN where any
value is. On the device that computed them."""


def round_images(pixels: torch.Tensor, scale: float, shift: float, side_px: int) -> Rounded:
    """Return ``pixels * scale + shift``, resized (bicubic, antialiased) and rounded to 0..255, on its own device.

    A GPU is asked for nothing back: it goes on with the next part. On a CPU one image after the other is made: it
    stays in the cache through all steps (`benchmarks/encode.py` says what that is worth).
    """
    if pixels.shape[-1] != side_px:
        pixels = F.interpolate(pixels.float(), size=(side_px, side_px), mode="bicubic", antialias=True)
    if pixels.device.type != "cpu":
        return _round(pixels, scale, shift)
    made = torch.from_numpy(np.empty((len(pixels), side_px, side_px, 3), np.uint8))  # in huge pages, unlike torch's own
    ranges = []
    for image, target in zip(pixels.split(1), made.split(1), strict=True):
        rounded, value_range = _round(image, scale, shift)
        target.copy_(rounded)
        ranges.append(value_range)
    return made, torch.cat(ranges)


def _round(pixels: torch.Tensor, scale: float, shift: float) -> Rounded:
    values = pixels.permute(0, 2, 3, 1).float().mul(scale).add_(shift)
    ranges = torch.stack([values.amin((1, 2, 3)), values.amax((1, 2, 3))], 1)
    if pixels.device.type != "cpu" or not bool(ranges.isfinite().all()):
        values = values.nan_to_num_(0.0)
    # By way of int16: torch turns float into uint8 more slowly.
    rounded = values.round_().clamp_(0, 255).to(torch.int16)
    return rounded if pixels.device.type == "cpu" else rounded.to(torch.uint8), ranges


def to_host(parts: Sequence[Rounded]) -> tuple[np.ndarray, list[str]]:
    """Return the images of a batch uint8[n, side, side, 3], and for each "" or why it cannot be used.

    The only wait for a GPU in a batch: one copy into pinned memory, which torch keeps for the next batch.
    """
    made, ranges = (torch.cat(tensors) if len(parts) > 1 else tensors[0] for tensors in zip(*parts, strict=True))
    if made.device.type != "cpu":
        host = torch.empty(made.shape, dtype=torch.uint8, pin_memory=True)
        made = host.copy_(made, non_blocking=True)
    reasons = [_wrong_with(lowest, highest) for lowest, highest in ranges.tolist()]  # waits for the copy before it, too
    return made.numpy(), reasons


def _wrong_with(lowest: float, highest: float) -> str:
    if not np.isfinite((lowest, highest)).all():
        return NOT_FINITE
    darkest, brightest = (round(min(max(value, 0.0), 255.0)) for value in (lowest, highest))
    return BLANK if brightest - darkest < MIN_RANGE else ""
