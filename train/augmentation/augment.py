"""Random rotations, colours, blur and erasing on the device, each a function of (seed, times seen, image, view).

In: uint8[n, s, s, 3], cropped and mirrored by `shards.loading.crops`. Out: float32[n, 3, s, s] in 0..1. An image is
augmented alike on any rank, in any batch, after any kill, and differently each time it is shown. Rotation about the
centre is torchvision's, but that it shows the pixels of the edge where it reaches beyond the crop.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synclones.base.draws import uniform
from synclones.models.network import IMAGENET_MEAN, IMAGENET_STD
from synclones.train.options.augmentation import AugmentationSettings

# What each uniform number is for; appended to, never reordered: the numbers are part of a training's identity.
ANGLE, BRIGHTNESS, CONTRAST, SATURATION, JITTERED, HUE, GREYED, BLURRED, SIGMA, SOLARISED, ERASED = range(11)
ERASE_TOP, ERASE_LEFT, ERASE_NOISE, ERASE_TRIES = range(11, 15)  # of each try first the area, then the aspect
TRIES = 10
NUM_DRAWS = ERASE_TRIES + 2 * TRIES


@dataclass(frozen=True, kw_only=True)
class Augmentation(AugmentationSettings):
    """How much training images vary after they were cropped; what is done is done in the order below."""

    rotation_degrees: float = 0.0
    """Largest random rotation."""
    colour_jitter: float = 0.0
    """Brightness, contrast and saturation change, in this order, by a factor of 1 plus or minus at most this."""
    seed: int = 0
    mean: tuple[float, ...] = IMAGENET_MEAN
    """What the network normalises by, which erasing depends on."""
    std: tuple[float, ...] = IMAGENET_STD

    def draws(self, source: np.ndarray, index: np.ndarray, times_seen: np.ndarray, view: int = 0) -> Tensor:
        """Return float32[draws, n], uniform in -1..1, of images that int64[n] arrays name, and their showings.

        ``draws`` is as many as the settings need. Each view of an image has its own numbers.
        """
        words = (source, index, times_seen) + ((view,) if view else ())
        numbers = uniform(self.seed, 1 + np.arange(self._num_draws())[:, None], *words)
        return torch.from_numpy(2 * numbers - 1).float()

    def _num_draws(self) -> int:
        if self.erase_probability:
            return NUM_DRAWS
        newer = (1 - self.jitter_probability, self.hue_jitter, self.grey_probability, self.blur_probability)
        return ERASED if any(newer) or self.solarise_probability else JITTERED

    def apply(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """Augment ``pixels`` uint8[n, s, s, 3] by `draws` on the same device to float32[n, 3, s, s].

        In 0..1, but for what ``erase_mode`` pixel fills. Tensors alone, so that it can be compiled.
        """
        images = pixels.permute(0, 3, 1, 2).float() / 255
        if self.rotation_degrees:
            images = rotate(images, self.rotation_degrees * draws[ANGLE])
        images = self._recolour(images, draws)
        if self.grey_probability:
            grey = _luma(images).expand_as(images)
            images = torch.where(_chosen(draws[GREYED], self.grey_probability), grey, images)
        if self.blur_probability:
            sigma = self.blur_sigma_min + (self.blur_sigma_max - self.blur_sigma_min) * (draws[SIGMA] + 1) / 2
            blurred = blur(images, sigma, math.ceil(3 * self.blur_sigma_max))
            images = torch.where(_chosen(draws[BLURRED], self.blur_probability), blurred, images)
        if self.solarise_probability:
            inverted = torch.where(images >= self.solarise_threshold, 1 - images, images)
            images = torch.where(_chosen(draws[SOLARISED], self.solarise_probability), inverted, images)
        return self._erase(images, draws) if self.erase_probability else images

    def _recolour(self, images: Tensor, draws: Tensor) -> Tensor:
        changed, saturation = images, self.saturation_jitter
        if self.colour_jitter or saturation > 0:
            factors = 1 + self.colour_jitter * draws[BRIGHTNESS : SATURATION + 1]
            if saturation >= 0:
                factors = torch.cat([factors[:2], 1 + saturation * draws[SATURATION : SATURATION + 1]])
            changed = jitter(images, factors)
        if self.hue_jitter:
            changed = turn_hue(changed, self.hue_jitter * draws[HUE])
        if self.jitter_probability == 1:
            return changed
        return torch.where(_chosen(draws[JITTERED], self.jitter_probability), changed, images)

    def _erase(self, images: Tensor, draws: Tensor) -> Tensor:
        side = images.shape[-1]
        top, left, height, width = erased_box(draws, side)
        places = torch.arange(side, device=images.device)
        rows = (places >= top[:, None]) & (places < (top + height)[:, None])
        columns = (places >= left[:, None]) & (places < (left + width)[:, None])
        inside = (rows[:, :, None] & columns[:, None, :])[:, None] & _chosen(draws[ERASED], self.erase_probability)
        mean, std = (images.new_tensor(x).view(3, 1, 1) for x in (self.mean, self.std))
        fill = mean.expand_as(images)
        if self.erase_mode == "pixel":
            fill = mean + std * noise(draws[ERASE_NOISE], images[0].numel()).view_as(images)
        return torch.where(inside, fill, images)


def _chosen(draw: Tensor, probability: float) -> Tensor:
    """Return bool[n, 1, 1, 1]: of draws in -1..1, the lowest ``probability``."""
    return ((draw + 1) / 2 < probability).view(-1, 1, 1, 1)


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


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue (of hue, saturation, value) of float[n, 3, h, w] in 0..1 by float[n] shares of the circle."""
    top, low = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    chroma = top - low
    red, green, blue = (images / chroma.clamp(min=1e-12)).split(1, 1)
    sixth = torch.where(top == images[:, :1], green - blue, red - green + 4)
    sixth = torch.where((top == images[:, 1:2]) & (top != images[:, :1]), blue - red + 2, sixth)
    # Each channel is the value less what the distance of its own hue takes away.
    offsets = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    away = (offsets + sixth + 6 * turns.view(-1, 1, 1, 1)).remainder(6)
    turned = top - chroma * torch.minimum(away, 4 - away).clamp(0, 1)
    return torch.where(chroma > 0, turned, images)


def blur(images: Tensor, sigma: Tensor, reach: int) -> Tensor:
    """Blur float[n, 3, h, w] by Gaussians of float[n] px, cut off ``reach`` px away; edges are mirrored."""
    n, channels, height, width = images.shape
    reach = min(reach, height - 1, width - 1)
    distance = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (distance / sigma[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None, None]
    padded = F.pad(images, [reach] * 4, mode="reflect").reshape(1, n * channels, height + 2 * reach, width + 2 * reach)
    down = F.conv2d(padded, weights.transpose(2, 3), groups=n * channels)
    return F.conv2d(down, weights, groups=n * channels).view(n, channels, height, width)


def erased_box(draws: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return top, left, height and width, int64[n] px: the first of ten tries that is smaller than the image."""
    share, aspect = ((draws[ERASE_TRIES:] + 1) / 2).view(TRIES, 2, -1).unbind(1)
    area = (0.02 + (1 / 3 - 0.02) * share) * side**2
    ratio = torch.exp(math.log(0.3) * (1 - 2 * aspect))
    heights, widths = ((area * ratio).sqrt().round(), (area / ratio).sqrt().round())
    fits = (heights < side) & (widths < side)
    first = fits.int().argmax(0, keepdim=True)
    some = fits.any(0)
    height, width = (x.gather(0, first)[0] * some for x in (heights, widths))
    top = ((draws[ERASE_TOP] + 1) / 2 * (side - height + 1)).floor().minimum(side - height)
    left = ((draws[ERASE_LEFT] + 1) / 2 * (side - width + 1)).floor().minimum(side - width)
    return top.long(), left.long(), height.long(), width.long()


def noise(draw: Tensor, count: int) -> Tensor:
    """Return float32[n, count], standard normal, of one draw in -1..1 each: a hash of it and of the position."""
    key = ((draw + 1) * 2**23).long()[:, None]
    places = torch.arange(count, device=draw.device)
    first, second = (_mixed(_mixed(key * 2 + which) ^ places) for which in (0, 1))
    radius = torch.sqrt(-2 * torch.log((first + 1).float() / 2**32))
    return radius * torch.cos(2 * math.pi * second.float() / 2**32)


def _mixed(x: Tensor) -> Tensor:
    """Mix the bits of int64 below 2^32: a 32-bit finaliser with the constants of lowbias32 (Wellons 2018)."""
    mask = 2**32 - 1
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & mask
    x = ((x ^ (x >> 15)) * 0x846CA68B) & mask
    return x ^ (x >> 16)
