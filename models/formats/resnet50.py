"""ResNet-50 (He et al. 2016, arXiv 1512.03385) under the names of torchvision, which timm shares.

Published by pytorch/vision and many others. The file does not say how its images were prepared; 256 / 224 bilinear is
what torchvision's first weights and most papers take. ``timm:resnet50.a1_in1k`` prepares images as timm does.
"""

import timm

from synclones.models.checkpoint_format import CLASSES, CheckpointFormat, Table, Variant, filled
from synclones.models.network import Preprocessing

# Stage -> bottlenecks, their width, channels that come in.
STAGES = {1: (3, 64, 64), 2: (4, 128, 256), 3: (6, 256, 512), 4: (3, 512, 1024)}


def trunk_table() -> Table:
    """Return names and shapes of everything before the classifier."""
    table: Table = {"conv1.weight": (64, 3, 7, 7)} | _norm("bn1", 64)
    for stage, (blocks, width, channels) in STAGES.items():
        first, rest = f"layer{stage}.0", f"layer{stage}.1-{blocks - 1}"
        table |= _bottleneck(first, channels, width) | _bottleneck(rest, 4 * width, width)
        table |= {f"{first}.downsample.0.weight": (4 * width, channels, 1, 1)}
        table |= _norm(f"{first}.downsample.1", 4 * width)
    return table


def _bottleneck(name: str, channels: int, width: int) -> Table:
    table: Table = {
        f"{name}.conv1.weight": (width, channels, 1, 1),
        f"{name}.conv2.weight": (width, width, 3, 3),
        f"{name}.conv3.weight": (4 * width, width, 1, 1),
    }
    return table | _norm(f"{name}.bn1", width) | _norm(f"{name}.bn2", width) | _norm(f"{name}.bn3", 4 * width)


def _norm(name: str, channels: int) -> Table:
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


FORMAT = CheckpointFormat(
    title="ResNet-50",
    source="pytorch/vision (arXiv 1512.03385)",
    preprocessing=Preprocessing(size_px=224, crop_fraction=224 / 256),
    variants=(
        Variant(
            name="torchvision's",
            table=trunk_table() | {"fc.weight": (CLASSES, 2048), "fc.bias": (CLASSES,)},
            build=lambda tensors, classes: filled(timm.create_model("resnet50", num_classes=classes), tensors),
        ),
    ),
)
