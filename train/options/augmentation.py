"""The settings of what makes training images vary: colours, blur, erasing, RandAugment, mixup and CutMix.

In and out: nothing; `TrainConfig` inherits them, so that every one is a flag and a key of recipes.
"""

from dataclasses import dataclass
from typing import Literal

# What each number may be: (lowest, highest).
AUGMENTATION_RANGES: dict[str, tuple[float, float]] = {
    "mixup_alpha": (0, 1000),
    "cutmix_alpha": (0, 1000),
    "mix_probability": (0, 1),
    "mix_switch": (0, 1),
    "saturation_jitter": (-1, 1),
    "hue_jitter": (0, 0.5),
    "jitter_probability": (0, 1),
    "grey_probability": (0, 1),
    "blur_probability": (0, 1),
    "blur_sigma_min": (0.01, 100),
    "solarise_probability": (0, 1),
    "solarise_threshold": (0, 1),
    "erase_probability": (0, 1),
    "rand_augment_operations": (0, 16),
    "rand_augment_deviation": (0, 10),
}


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """What changes on the device after crop, flip, rotation and colours; in this order."""

    saturation_jitter: float = -1.0
    """The same of saturation alone; -1: as ``colour_jitter``."""
    hue_jitter: float = 0.0
    """Then the hue turns by at most this share of the circle, 0..0.5."""
    jitter_probability: float = 1.0
    """How often colours change at all."""
    grey_probability: float = 0.0
    """How often an image turns grey."""
    blur_probability: float = 0.0
    """How often an image is blurred by a Gaussian."""
    blur_sigma_min: float = 0.1
    """Smallest standard deviation of the blur in px."""
    blur_sigma_max: float = 2.0
    """Largest; the filter reaches three of these to each side."""
    solarise_probability: float = 0.0
    """How often values from a threshold up are inverted."""
    solarise_threshold: float = 128 / 255
    """That threshold, of values in 0..1."""
    erase_probability: float = 0.0
    """How often a rectangle is erased (timm's RandomErasing: 2 % to a third of the area, aspect 0.3 to 1/0.3)."""
    erase_mode: Literal["pixel", "const"] = "pixel"
    """What it is filled with, once normalised: standard normal noise, or 0."""


@dataclass(frozen=True, kw_only=True)
class RandAugmentSettings:
    """Which operations of RandAugment change an image, on the CPU after its crop."""

    rand_augment: Literal["none", "torchvision", "timm", "big_vision"] = "none"
    """Operation set."""
    rand_augment_operations: int = 2
    """How many operations an image goes through."""
    rand_augment_magnitude: float = 9.0
    """Their strength: of torchvision whole numbers 0..30, of timm 0..10, of big_vision 0..10 (to 30)."""
    rand_augment_deviation: float = 0.5
    """Standard deviation of the strength in timm's set."""


@dataclass(frozen=True, kw_only=True)
class MixingSettings:
    """How images of a batch are mixed; timm's meanings."""

    mixup_alpha: float = 0.0
    """Mixup's share comes from Beta(alpha, alpha); 0 turns mixup off."""
    cutmix_alpha: float = 0.0
    """The share that CutMix leaves comes from Beta(alpha, alpha); 0 turns CutMix off."""
    mix_probability: float = 1.0
    """How often a batch, pair or image is mixed at all."""
    mix_switch: float = 0.5
    """How often it is CutMix, when both are on."""
    mix_mode: Literal["batch", "pair", "elem"] = "batch"
    """One draw for the whole batch, for each pair, or for each image."""

    @property
    def mixes(self) -> bool:
        """Whether anything is ever mixed."""
        return (self.mixup_alpha > 0 or self.cutmix_alpha > 0) and self.mix_probability > 0
