"""SynResNet50: ImageNet-SD (Sariyildiz et al. 2023, arXiv 2212.08420), a ResNet-50 whose classifier has no bias.

Published by naver/imagenet-sd as ``imagenet_1k_sd.pth`` and ``imagenet_100_sd.pth``: bare dictionaries of torchvision's
names. Its snippet resizes to 224 px, bicubic, and crops nothing beyond the square.
"""

import timm
from torch import nn

from synclones.models.checkpoint_format import CLASSES, CheckpointFormat, Tensors, Variant, filled
from synclones.models.formats.resnet50 import trunk_table
from synclones.models.network import Preprocessing


def _network(tensors: Tensors, num_classes: int) -> nn.Module:
    network = timm.create_model("resnet50", num_classes=num_classes)
    network.fc = nn.Linear(2048, num_classes, bias=False)
    return filled(network, tensors)


FORMAT = CheckpointFormat(
    title="SynResNet50",
    source="naver/imagenet-sd (arXiv 2212.08420)",
    preprocessing=Preprocessing(size_px=224, interpolation="bicubic"),
    variants=(Variant(name="ResNet-50", table=trunk_table() | {"fc.weight": (CLASSES, 2048)}, build=_network),),
)
