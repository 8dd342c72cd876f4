"""ConvNeXt (Liu et al. 2022, arXiv 2201.03545) of 224 px under the entry ``model``.

Published by facebookresearch/ConvNeXt, which evaluates at 256 / 224, bicubic. Weights that saw ImageNet-22k first
(``convnext_base_22k_1k_224.pth``, timm's default and the benchmark's ConvNeXt) and weights that did not have the same
names and shapes: the file does not say which it is.
"""

import re
from dataclasses import dataclass

from timm.models.convnext import ConvNeXt
from torch import nn

from synclones.models.checkpoint_format import CLASSES, CheckpointFormat, Table, Tensors, Variant, filled
from synclones.models.network import Preprocessing


@dataclass(frozen=True)
class ConvNextSize:
    """What one network of the family is."""

    name: str
    widths: tuple[int, ...]
    depths: tuple[int, ...]


SIZES = (
    ConvNextSize("ConvNeXt-T", (96, 192, 384, 768), (3, 3, 9, 3)),
    ConvNextSize("ConvNeXt-S", (96, 192, 384, 768), (3, 3, 27, 3)),
    ConvNextSize("ConvNeXt-B", (128, 256, 512, 1024), (3, 3, 27, 3)),
    ConvNextSize("ConvNeXt-L", (192, 384, 768, 1536), (3, 3, 27, 3)),
)
# Their name -> timm's, one after the other.
RENAMED = (
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv", ".mlp.fc"),
    (r"^norm\.", "head.norm."),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
)


def variant(size: ConvNextSize) -> Variant:
    """Return the format of one size."""
    return Variant(
        name=size.name,
        table=table(size),
        build=lambda tensors, classes: _network(size, tensors, classes),
        containers=("model",),
        wrapped=False,
    )


def table(size: ConvNextSize) -> Table:
    """Return names and shapes as they were published."""
    rows: Table = {"downsample_layers.0.0.weight": (size.widths[0], 3, 4, 4)}
    rows |= {"downsample_layers.0.0.bias": (size.widths[0],)} | _norm("downsample_layers.0.1", size.widths[0])
    for stage, (width, depth) in enumerate(zip(size.widths, size.depths, strict=True)):
        if stage:
            before = size.widths[stage - 1]
            rows |= _norm(f"downsample_layers.{stage}.0", before)
            rows |= {f"downsample_layers.{stage}.1.weight": (width, before, 2, 2)}
            rows |= {f"downsample_layers.{stage}.1.bias": (width,)}
        rows |= _block(f"stages.{stage}.0-{depth - 1}", width)
    width = size.widths[-1]
    return rows | _norm("norm", width) | {"head.weight": (CLASSES, width), "head.bias": (CLASSES,)}


def _block(name: str, width: int) -> Table:
    rows: Table = {
        f"{name}.gamma": (width,),
        f"{name}.dwconv.weight": (width, 1, 7, 7),
        f"{name}.dwconv.bias": (width,),
        f"{name}.pwconv1.weight": (4 * width, width),
        f"{name}.pwconv1.bias": (4 * width,),
        f"{name}.pwconv2.weight": (width, 4 * width),
        f"{name}.pwconv2.bias": (width,),
    }
    return rows | _norm(f"{name}.norm", width)


def _norm(name: str, width: int) -> Table:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _network(size: ConvNextSize, tensors: Tensors, num_classes: int) -> nn.Module:
    network = ConvNeXt(num_classes=num_classes, depths=size.depths, dims=size.widths)
    return filled(network, {_renamed(name): tensor for name, tensor in tensors.items()})


def _renamed(name: str) -> str:
    """Return timm's name."""
    for theirs, ours in RENAMED:
        name = re.sub(theirs, ours, name)
    return name


FORMAT = CheckpointFormat(
    title="ConvNeXt",
    source="facebookresearch/ConvNeXt (arXiv 2201.03545)",
    preprocessing=Preprocessing(size_px=224, crop_fraction=224 / 256, interpolation="bicubic"),
    variants=tuple(map(variant, SIZES)),
)
