"""What the threads that read images do to each: crops, and RandAugment.

In: `TrainConfig`. Out: what `BatchLoader` is given.
"""

from dataclasses import fields
from typing import Any

from synclones.models.network import Preprocessing
from synclones.shards.loading.batches import Change
from synclones.shards.loading.crops import Crops
from synclones.train.options.augmentation import RandAugmentSettings
from synclones.train.settings import TrainConfig


def rand_augment(config: TrainConfig, preprocessing: Preprocessing) -> Change | None:
    """Return RandAugment as the settings have it; None when there is none."""
    if config.rand_augment == "none":
        return None
    from synclones.train.augmentation.rand_augment import RandAugment  # loads torchvision

    settings = {field.name: getattr(config, field.name) for field in fields(RandAugmentSettings)}
    red, green, blue = (round(255 * mean) for mean in preprocessing.mean)
    return RandAugment(**settings, fill=(red, green, blue), seed=config.seed).apply


def crops(config: TrainConfig) -> Crops:
    """Return where crops of an image are taken, and how they are decoded: large views, then local ones."""
    common: dict[str, Any] = {
        "flip": config.flip,
        "mode": config.decode,
        "interpolation": config.interpolation,
        "seed": config.seed,
    }
    local = Crops(
        size_px=config.local_size_px,
        scale_min=config.local_scale_min,
        scale_max=config.local_scale_max,
        views=config.local_views,
        first_view=config.views,
        **common,
    )
    return Crops(
        size_px=config.image_size_px,
        scale_min=config.crop_scale_min,
        scale_max=config.crop_scale_max,
        views=config.views,
        local=local if config.local_views else None,
        **common,
    )
