"""The settings that belong to objectives: each is read by those whose ``SETTINGS`` name it, and refused by all others.

In and out: nothing; `TrainConfig` inherits them, so that every one is a flag and a key of recipes.
"""

from dataclasses import dataclass
from typing import Literal

from synclones.base.config import Count
from synclones.train.options.augmentation import MixingSettings

# What each number may be: (lowest, highest).
OBJECTIVE_RANGES: dict[str, tuple[float, float]] = {
    "label_smoothing": (0, 0.99),
    "temperature": (0.001, 100),
    "images_per_caption": (1, 10**4),
    "views": (1, 64),
    "local_views": (0, 64),
    "local_size_px": (8, 4096),
    "local_scale_min": (0.001, 1),
    "projection_dim": (1, 2**16),
    "projection_hidden": (1, 2**16),
    "teacher_temperature": (0.01, 1000),
    "teacher_share": (0, 1),
    "drop_path": (0, 0.99),
    "mask_probability": (0, 1),
    "mask_ratio": (0.001, 1),
    "patch_loss_weight": (0.001, 1000),
    "prototypes": (2, 2**20),
    "prototype_dim": (1, 2**16),
    "prototype_hidden": (1, 2**16),
    "target_temperature": (0.001, 100),
    "target_temperature_from": (0.001, 100),
    "target_temperature_steps": (0, 10**12),
    "head_bias": (-100, 100),
    "text_length": (3, 1024),
    "text_width": (8, 2**16),
    "text_layers": (1, 1000),
    "text_heads": (1, 4096),
    "joint_dim": (1, 2**16),
    "patch_dropout": (0, 0.95),
}


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings(MixingSettings):
    """How an objective compares or classifies images; see each objective for which of these it reads."""

    loss: Literal["cross-entropy", "sigmoid"] = "cross-entropy"
    """One distribution over all classes, or each class by itself (big_vision's), summed over classes."""
    head_bias: float = 0.0
    """First bias of the classifier; -6.9 for the sigmoid loss of 1,000 classes. If not 0, weights begin at 0."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    temperature: float = 0.1
    """What cosines are divided by."""
    images_per_caption: Count = 1
    """Images of one caption that are shown together; captions with fewer are left out."""
    positives: Literal["caption", "label"] = "caption"
    """Which images belong together: those of one caption, or of one label."""
    drop_path: float = 0.0
    """Stochastic depth of the last block, rising from 0 at the first, of timm architectures that have it."""
    views: int = 1
    """Crops of each image, from one decoding."""
    local_views: int = 0
    """Smaller crops of each image besides."""
    local_size_px: int = 96
    """Side of the smaller crops in px."""
    local_scale_min: float = 0.05
    """Smallest share of the image's area in one of them."""
    local_scale_max: float = 0.25
    """Largest share."""
    projection_dim: int = 256
    """Numbers by which images are compared."""
    projection_hidden: int = 4096
    """Width of the two hidden layers before them."""
    projection_norm: Literal["batch", "layer"] = "batch"
    """What normalises between the layers of projection and predictor: the images of a part, or each image by itself."""
    mask_probability: float = 0.5
    """How often patches of a crop are hidden from the student; 0: no crop, and no loss of patches."""
    mask_ratio: float = 0.5
    """Share of the patches of such a crop that is hidden."""
    patch_loss_weight: float = 1.0
    """Weight of the loss of hidden patches beside that of crops."""
    prototypes: Count = 65536
    """How many prototypes a hidden patch may be."""
    prototype_dim: int = 256
    """Numbers by which patches and prototypes are compared."""
    prototype_hidden: int = 2048
    """Width of the two hidden layers before them."""
    target_temperature: float = 0.07
    """What cosines of patches and prototypes of the teacher are divided by; the student's by 0.1."""
    target_temperature_from: float = 0.04
    """The same at the first step."""
    target_temperature_steps: Count = 4000
    """Steps in which it rises linearly from the one to the other."""
    caption_column: str = ""
    """Side column of the captions; empty for those that the images were drawn from."""
    label_captions: bool = False
    """Images without a caption get their class's name of --zero-shot-classes in one of --zero-shot-templates."""
    teacher_column: str = ""
    """Side column of the teacher's outputs."""
    teacher_temperature: float = 1.0
    """What logits of teacher and student are divided by."""
    teacher_share: float = 1.0
    """Weight of the teacher; the labels have the rest."""
    text_length: int = 77
    """Token ids of a caption, cut or filled up."""
    text_width: int = 512
    """Width of the text tower."""
    text_layers: int = 12
    """Blocks of the text tower."""
    text_heads: int = 8
    """Attention heads of the text tower."""
    joint_dim: int = 512
    """Numbers by which images and captions are compared."""
    zero_shot_classes: str = ""
    """CSV with columns class_id and name, by which the export classifies; without it evaluation has to be given one."""
    zero_shot_templates: str = "imagenet"
    """Sentences that say a name, {} in its place: a file with one a line, or the 80 of Radford et al. 2021."""
    probe_rates: tuple[float, ...] = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
    """Learning rates of the probe's heads, each per 256 images of a batch and times --learning-rate."""
    probe_norm: bool = False
    """Normalise features by the batch before the heads, as MAE's probe; folded into the exported head."""
    probe_select: str = ""
    """Set of --validate on which the head is chosen, as the papers do; empty for what --hold-out holds out."""
    probe_cache: Literal["auto", "off"] = "auto"
    """Where nothing augments images, auto computes their features once and reads them; off: at every showing."""
    patch_dropout: float = 0.0
    """Share of an image's patches left out at each showing."""
