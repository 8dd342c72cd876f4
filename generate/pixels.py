"""From a decoder's numbers to 8-bit pictures, and whether they show anything.

In: float[n, 3, h, w]. Out: uint8[n, side, side, 3] on the CPU, and per picture what is wrong with it.
"""

import numpy as np
import torch
import torch.nn.functional as F

# A picture whose darkest and brightest values are closer than this, in 8-bit steps, shows nothing.
MIN_RANGE = 4


def to_pictures(pixels: torch.Tensor, scale: float, shift: float, side_px: int) -> tuple[np.ndarray, list[str]]:
    """Pictures uint8[n, side_px, side_px, 3] of ``pixels * scale + shift``, and "" or why one cannot be used.

    Rounding and resizing (bicubic, antialiased) happen on the device. On a CPU one picture after the other is made: it
    stays in the cache through all steps (`benchmarks/encode.py` says what that is worth).
    """
    if pixels.shape[-1] != side_px:
        pixels = F.interpolate(pixels.float(), size=(side_px, side_px), mode="bicubic", antialias=True)
    made = np.empty((len(pixels), side_px, side_px, 3), np.uint8)
    at_once = 1 if pixels.device.type == "cpu" else len(pixels)
    reasons = []
    for part, target in zip(pixels.split(at_once), torch.from_numpy(made).split(at_once), strict=True):
        reasons += _round(part, scale, shift, target)
    return made, reasons


def _round(pixels: torch.Tensor, scale: float, shift: float, target: torch.Tensor) -> list[str]:
    """Write the pictures into ``target`` uint8[n, h, w, 3] on the CPU; what is wrong with each."""
    values = pixels.permute(0, 2, 3, 1).float().mul(scale).add_(shift)
    lowest, highest = (find((1, 2, 3)) for find in (values.amin, values.amax))  # either is NaN where any value is
    finite = lowest.isfinite() & highest.isfinite()
    spread = highest.round().clamp(0, 255) - lowest.round().clamp(0, 255)
    if not bool(finite.all()):
        values = values.nan_to_num_(0.0)
    # By way of int16: torch turns float into uint8 more slowly.
    rounded = values.round_().clamp_(0, 255).to(torch.int16)
    target.copy_(rounded if rounded.device.type == "cpu" else rounded.to(torch.uint8))
    return [
        "not finite" if not ok else "blank picture" if width < MIN_RANGE else ""
        for ok, width in zip(finite.tolist(), spread.tolist(), strict=True)
    ]
