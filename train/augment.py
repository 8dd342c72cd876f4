"""Random rotations and colours on the device, each a function of (seed, times seen, image); crops were taken before.

In: uint8[n, s, s, 3], cropped and mirrored by `shards.loading.crops`. Out: float32[n, 3, s, s] in 0..1. An image is
augmented alike on any rank, in any batch, after any kill, and differently each time it is shown. Rotation about the
centre is torchvision's, but that it shows the pixels of the edge where it reaches beyond the crop.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synclones.base.draws import uniform

# What each uniform number is for; appended to, never reordered: the numbers are part of a training's identity.
ANGLE, BRIGHTNESS, CONTRAST, SATURATION = range(4)
NUM_DRAWS = 4


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How much training images vary after they were cropped; see `TrainConfig` for the fields."""

    rotation_degrees: float = 0.0
    colour_jitter: float = 0.0
    seed: int = 0

    def draws(self, source: np.ndarray, index: np.ndarray, times_seen: np.ndarray) -> Tensor:
        """Return float32[4, n], uniform in -1..1, of images that int64[n] arrays name, and how often they were seen."""
        numbers = uniform(self.seed, 1 + np.arange(NUM_DRAWS)[:, None], source, index, times_seen)
        return torch.from_numpy(2 * numbers - 1).float()

    def apply(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """Augment ``pixels`` uint8[n, s, s, 3] by `draws` on the same device to float32[n, 3, s, s] in 0..1.

        Tensors alone, so that it can be compiled.
        """
        images = pixels.permute(0, 3, 1, 2).float() / 255
        if self.rotation_degrees:
            images = rotate(images, self.rotation_degrees * draws[ANGLE])
        if self.colour_jitter:
            images = jitter(images, 1 + self.colour_jitter * draws[BRIGHTNESS : SATURATION + 1])
        return images


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate square images float[n, 3, s, s] about their centres, anticlockwise; bilinear, edges repeated outwards."""
    angles = torch.deg2rad(degrees)
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


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
