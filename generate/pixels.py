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
    parts = pixels.split(1) if pixels.device.type == "cpu" else (pixels,)
    made = [_round(part, scale, shift) for part in parts]
    reasons = [reason for _, found in made for reason in found]
    return np.concatenate([images for images, _ in made]), reasons


def _round(pixels: torch.Tensor, scale: float, shift: float) -> tuple[np.ndarray, list[str]]:
    values = pixels.permute(0, 2, 3, 1).float().mul(scale).add_(shift)
    finite = values.flatten(1).sum(1).isfinite()  # one that is not finite makes the sum so
    if not bool(finite.all()):
        values = values.nan_to_num_(0.0)
    # By way of int16: torch turns float into uint8 more slowly.
    images = values.round_().clamp_(0, 255).to(torch.int16).to(torch.uint8).contiguous()
    flat = images.flatten(1)
    spread = flat.amax(1).int() - flat.amin(1).int()
    reasons = [
        "not finite" if not ok else "blank picture" if width < MIN_RANGE else ""
        for ok, width in zip(finite.tolist(), spread.tolist(), strict=True)
    ]
    return images.cpu().numpy(), reasons
