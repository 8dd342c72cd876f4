"""Mixup and CutMix whose choices know no ranks: pairs, shares and boxes follow from the step and the global batch.

In: a process' images, labels and weights, at even positions of the global batch on. Out: mixed images and soft targets.
Positions 2k and 2k+1 are partners, where timm pairs i with n-1-i of each process' own batch: a pair never lies on two
processes or in two micro-batches as long as both hold even numbers of images, so any split mixes the same images. As
batches are shuffled, the partner is as random as timm's. Damaged samples, of weight 0, are mixed into no others.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from synclones.base.draws import uniform
from synclones.base.errors import InputError
from synclones.shards.loading.order import slice_of_rank
from synclones.train.options.augmentation import MixingSettings

MIXING = 0x4D495849  # tells these numbers from those that the order and the augmentation draw from the same seed
# What each uniform number is for; appended to, never reordered: the numbers are part of a training's identity.
APPLY, SWITCH, SHARE, DOWN, ACROSS = range(5)


@dataclass(frozen=True)
class MixingPlan:
    """What happens to n consecutive images of a global batch, from an even position on."""

    share: Tensor
    """float32[n]: how much of its target an image keeps; its partner's has the rest."""
    blend: Tensor
    """float32[n]: weight of an image's own pixels outside its box; 1 with CutMix."""
    box: Tensor
    """int64[n, 4]: top, bottom, left, right in px of what comes from the partner alone; empty with mixup."""

    def part(self, part: slice, weights: Tensor) -> "MixingPlan":
        """Return the plan of a slice at even ends; a pair with an image of weight 0 (float32[n]) stays unmixed."""
        whole = (weights.view(-1, 2) > 0).all(1).repeat_interleave(2)
        share, blend, box = (x[part].to(weights.device, non_blocking=True) for x in (self.share, self.blend, self.box))
        one = torch.ones_like(share)
        return MixingPlan(torch.where(whole, share, one), torch.where(whole, blend, one), box * whole[:, None])


def check_mixing(batch_size: int, micro_batch_size: int, world_size: int) -> None:
    """Check that no pair is split.

    Raises:
        InputError: an odd share of a process, or an odd micro-batch.
    """
    slices = [slice_of_rank(batch_size, rank, world_size) for rank in range(world_size)]
    if batch_size % 2 or any(part.start % 2 for part in slices):
        raise InputError(
            f"--batch-size {batch_size}: mixup and CutMix mix pairs, and {world_size} processes would split one; "
            f"expected a multiple of {2 * world_size}"
        )
    if micro_batch_size % 2:
        raise InputError(f"--micro-batch-size {micro_batch_size}: mixup and CutMix mix pairs, expected an even number")


def mixing_plan(seed: int, step: int, batch_size: int, size_px: int, settings: MixingSettings) -> MixingPlan:
    """Return the plan of a global batch of ``batch_size`` square images: a function of seed, step and position."""
    number = {"batch": 1, "pair": batch_size // 2, "elem": batch_size}[settings.mix_mode]
    drawn = uniform(seed, MIXING, step, np.arange(5)[:, None], np.arange(number))
    # Which of the two it is, and with which share: the quantile of one number, so that no draw depends on another.
    cutmix = np.full(number, settings.cutmix_alpha > 0)
    if settings.mixup_alpha > 0:
        cutmix &= drawn[SWITCH] < settings.mix_switch
    alpha = np.where(cutmix, settings.cutmix_alpha, settings.mixup_alpha)
    share = betaincinv(alpha, alpha, drawn[SHARE]) if settings.mixes else np.ones(number)
    share = np.where(drawn[APPLY] < settings.mix_probability, share, 1.0)
    # A square of the other share about any centre; what is clipped at the edges is given back to the share.
    side = (size_px * np.sqrt(1 - share)).astype(np.int64) * cutmix
    centre = (drawn[[DOWN, ACROSS]] * size_px).astype(np.int64)
    near, far = (np.clip(x, 0, size_px) for x in (centre - side // 2, centre + (side + 1) // 2))
    box = np.stack([near[0], far[0], near[1], far[1]], 1)
    area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])
    blend, share = np.where(cutmix, 1.0, share), np.where(cutmix, 1 - area / size_px**2, share)
    each = batch_size // number
    share, blend, box = (torch.from_numpy(np.repeat(x, each, 0)) for x in (share, blend, box))
    return MixingPlan(share.float(), blend.float(), box)


def partners(batch: Tensor) -> Tensor:
    """Return ``batch`` [n, ...] with the two of each pair exchanged."""
    return batch.view(-1, 2, *batch.shape[1:]).flip(1).view_as(batch)


def mix_images(images: Tensor, plan: MixingPlan) -> Tensor:
    """Mix float[n, c, s, s] by the plan of these n images, on the same device."""
    others = partners(images)
    blend = plan.blend.to(images.dtype).view(-1, 1, 1, 1)
    places = torch.arange(images.shape[-1], device=images.device)
    top, bottom, left, right = plan.box.unbind(1)
    rows = (places >= top[:, None]) & (places < bottom[:, None])
    columns = (places >= left[:, None]) & (places < right[:, None])
    inside = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(inside, others, images * blend + others * (1 - blend))


def mix_targets(labels: Tensor, plan: MixingPlan, num_classes: int, label_smoothing: float = 0.0) -> Tensor:
    """Return float32[n, num_classes] that sum to 1, of labels int64[n]: smoothed first, then mixed, as timm does."""
    off = label_smoothing / num_classes
    targets = torch.full((len(labels), num_classes), off, device=labels.device)
    targets.scatter_(1, labels[:, None], 1 - label_smoothing + off)
    share = plan.share[:, None]
    return targets * share + partners(targets) * (1 - share)
