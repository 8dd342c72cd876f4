"""Random crops, rotations, flips and colours on the device, each a function of (seed, times seen, image).

In: uint8[n, h, w, 3]. Out: float32[n, 3, size, size] in 0..1. An image is augmented alike on any rank, in any batch,
after any kill, and differently each time it is shown.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synclones.base.draws import uniform

# What each uniform number is for; appended to, never reordered: the numbers are part of a training's identity.
SCALE, RATIO, LEFT, TOP, FLIP, ANGLE, BRIGHTNESS, CONTRAST, SATURATION = range(9)
RATIO_MAX = 4 / 3


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How much training images vary; see `TrainConfig` for the fields."""

    size_px: int
    crop_scale_min: float = 1.0
    flip: bool = False
    rotation_degrees: float = 0.0
    colour_jitter: float = 0.0
    seed: int = 0

    def __call__(self, pixels: Tensor, source: np.ndarray, index: np.ndarray, times_seen: np.ndarray) -> Tensor:
        """Augment ``pixels`` uint8[n, h, w, 3]; int64[n] arrays name each image and how often it was seen."""
        draws = np.stack([uniform(self.seed, 1 + purpose, source, index, times_seen) for purpose in range(9)])
        images = pixels.permute(0, 3, 1, 2).float() / 255
        if self._moves(pixels.shape[1:3]):
            theta = torch.from_numpy(self.affine(draws)).to(images.device, images.dtype)
            grid = F.affine_grid(theta, [len(images), 3, self.size_px, self.size_px], align_corners=False)
            images = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        if self.colour_jitter:
            factors = 1 + self.colour_jitter * (2 * draws[[BRIGHTNESS, CONTRAST, SATURATION]] - 1)
            images = jitter(images, torch.from_numpy(factors).to(images.device, images.dtype))
        return images

    def _moves(self, size: torch.Size) -> bool:
        same = tuple(size) == (self.size_px, self.size_px)
        return not same or self.crop_scale_min < 1 or self.flip or bool(self.rotation_degrees)

    def affine(self, draws: np.ndarray) -> np.ndarray:
        """Return what part of the image the output shows, float64[n, 2, 3] for `affine_grid`, of uniforms [9, n].

        Area share and aspect ratio (logarithmically uniform in 3/4..4/3) as in Inception's crop (Szegedy et al. 2015).
        """
        area = self.crop_scale_min + (1 - self.crop_scale_min) * draws[SCALE]
        spread = np.log(RATIO_MAX) if self.crop_scale_min < 1 else 0.0
        ratio = np.exp(spread * (2 * draws[RATIO] - 1))
        width, height = (np.minimum(np.sqrt(area * r), 1) for r in (ratio, 1 / ratio))
        x, y = (2 * draws[LEFT] - 1) * (1 - width), (2 * draws[TOP] - 1) * (1 - height)
        angle = np.radians(self.rotation_degrees) * (2 * draws[ANGLE] - 1)
        mirror = np.where(self.flip & (draws[FLIP] < 0.5), -1.0, 1.0)
        cos, sin = np.cos(angle), np.sin(angle)
        rows = [[width * cos * mirror, -height * sin, x], [width * sin * mirror, height * cos, y]]
        return np.stack([np.stack(row, -1) for row in rows], -2)


def jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Scale brightness, then contrast (about the mean luma), then saturation (about the luma).

    ``images`` are float[n, 3, h, w] in 0..1 and stay there; ``factors`` are float[3, n].
    """
    brightness, contrast, saturation = (factor.view(-1, 1, 1, 1) for factor in factors)
    images = (images * brightness).clamp(0, 1)
    mean = _luma(images).mean((1, 2, 3), keepdim=True)
    images = (mean + contrast * (images - mean)).clamp(0, 1)
    luma = _luma(images)
    return (luma + saturation * (images - luma)).clamp(0, 1)


def _luma(images: Tensor) -> Tensor:
    """Return ITU-R BT.601 luma [n, 1, h, w]."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device, dtype=images.dtype).view(3, 1, 1)
    return (images * weights).sum(1, keepdim=True)
