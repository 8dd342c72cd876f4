"""Random rotations, crops, flips and colours on the device, each a function of (seed, times seen, image).

In: uint8[n, h, w, 3]. Out: float32[n, 3, size, size] in 0..1. An image is augmented alike on any rank, in any batch,
after any kill, and differently each time it is shown. Rotation about the centre, crop and flip are those of torchvision
in this order, but that a rotation shows the pixels of the edge where it reaches beyond the image.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synclones.base.draws import uniform
from synclones.train.crops import TRIES, random_boxes, resample, whole_boxes

# What each uniform number is for; appended to, never reordered: the numbers are part of a training's identity.
SCALE, RATIO, LEFT, TOP, FLIP, ANGLE, BRIGHTNESS, CONTRAST, SATURATION, FURTHER_TRIES = range(10)
NUM_DRAWS = FURTHER_TRIES + 2 * (TRIES - 1)
SCALES, RATIOS = ([first, *range(FURTHER_TRIES + first, NUM_DRAWS, 2)] for first in (SCALE, RATIO))


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
        draws = uniform(self.seed, 1 + np.arange(NUM_DRAWS)[:, None], source, index, times_seen)
        images = pixels.permute(0, 3, 1, 2).float() / 255
        if self.rotation_degrees:
            images = rotate(images, self.rotation_degrees * (2 * draws[ANGLE] - 1))
        size = (pixels.shape[1], pixels.shape[2])
        if size != (self.size_px, self.size_px) or self.crop_scale_min < 1 or self.flip:
            images = resample(images, self.boxes(draws, size), self.flip & (draws[FLIP] < 0.5), self.size_px)
        if self.colour_jitter:
            factors = 1 + self.colour_jitter * (2 * draws[[BRIGHTNESS, CONTRAST, SATURATION]] - 1)
            images = jitter(images, torch.from_numpy(factors).to(images.device, images.dtype))
        return images

    def boxes(self, draws: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return what part of each image is shown, int64[n, 4] in px, by uniform numbers [NUM_DRAWS, n]."""
        if self.crop_scale_min >= 1:
            return whole_boxes(draws.shape[1], size)
        places = (draws[LEFT], draws[TOP])
        return random_boxes(draws[SCALES], draws[RATIOS], *places, size, self.crop_scale_min)


def rotate(images: Tensor, degrees: np.ndarray) -> Tensor:
    """Rotate square images float[n, 3, s, s] about their centres, anticlockwise; bilinear, edges repeated outwards."""
    angles = torch.from_numpy(np.radians(degrees)).to(images.device, images.dtype)
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
