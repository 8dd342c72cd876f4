"""Swin transformers (Liu et al. 2021, arXiv 2103.14030) of 224 px under the entry ``model``.

Published by microsoft/Swin-Transformer, which evaluates at 256 / 224, bicubic. It merges patches at the end of a stage,
timm at the beginning of the next, and stores the positions' indexes and the masks of shifted windows, which follow
from the shape. ``timm:swin_base_patch4_window7_224.ms_in1k`` are the same weights with timm's crop.
"""

import re
from dataclasses import dataclass

from timm.models.swin_transformer import SwinTransformer
from torch import nn

from synclones.models.checkpoint_format import CLASSES, CheckpointFormat, Table, Tensors, Variant, filled
from synclones.models.network import Preprocessing

WINDOW = 7
DERIVED = ("layers.*.attn_mask", "layers.*.relative_position_index")


@dataclass(frozen=True)
class SwinSize:
    """What one transformer of the family is."""

    name: str
    width: int
    """Of the first stage; each of the others has twice that before."""
    depths: tuple[int, ...]
    heads: tuple[int, ...]


SIZES = (
    SwinSize("Swin-T", 96, (2, 2, 6, 2), (3, 6, 12, 24)),
    SwinSize("Swin-S", 96, (2, 2, 18, 2), (3, 6, 12, 24)),
    SwinSize("Swin-B", 128, (2, 2, 18, 2), (4, 8, 16, 32)),
)


def variant(size: SwinSize) -> Variant:
    """Return the format of one size."""
    return Variant(
        name=size.name,
        table=table(size),
        build=lambda tensors, classes: _network(size, tensors, classes),
        left_out=DERIVED,
        containers=("model",),
        wrapped=False,
    )


def table(size: SwinSize) -> Table:
    """Return names and shapes as they were published."""
    last = len(size.depths) - 1
    rows: Table = {"patch_embed.proj.weight": (size.width, 3, 4, 4), "patch_embed.proj.bias": (size.width,)}
    rows |= _norm("patch_embed.norm", size.width)
    for stage, (depth, heads) in enumerate(zip(size.depths, size.heads, strict=True)):
        width = size.width * 2**stage
        rows |= _block(f"layers.{stage}.blocks.0-{depth - 1}", width, heads)
        if stage < last:
            rows |= {f"layers.{stage}.downsample.reduction.weight": (2 * width, 4 * width)}
            rows |= _norm(f"layers.{stage}.downsample.norm", 4 * width)
    width = size.width * 2**last
    return rows | _norm("norm", width) | {"head.weight": (CLASSES, width), "head.bias": (CLASSES,)}


def _block(name: str, width: int, heads: int) -> Table:
    rows: Table = {
        f"{name}.attn.relative_position_bias_table": ((2 * WINDOW - 1) ** 2, heads),
        f"{name}.attn.qkv.weight": (3 * width, width),
        f"{name}.attn.qkv.bias": (3 * width,),
        f"{name}.attn.proj.weight": (width, width),
        f"{name}.attn.proj.bias": (width,),
        f"{name}.mlp.fc1.weight": (4 * width, width),
        f"{name}.mlp.fc1.bias": (4 * width,),
        f"{name}.mlp.fc2.weight": (width, 4 * width),
        f"{name}.mlp.fc2.bias": (width,),
    }
    return rows | _norm(f"{name}.norm1", width) | _norm(f"{name}.norm2", width)


def _norm(name: str, width: int) -> Table:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _network(size: SwinSize, tensors: Tensors, num_classes: int) -> nn.Module:
    network = SwinTransformer(
        img_size=224,
        window_size=WINDOW,
        embed_dim=size.width,
        depths=size.depths,
        num_heads=size.heads,
        num_classes=num_classes,
    )
    return filled(network, {_renamed(name): tensor for name, tensor in tensors.items()})


def _renamed(name: str) -> str:
    """Return timm's name."""
    moved = re.sub(r"^layers\.(\d)\.downsample", lambda stage: f"layers.{int(stage[1]) + 1}.downsample", name)
    return moved.replace("head.", "head.fc.")


FORMAT = CheckpointFormat(
    title="Swin",
    source="microsoft/Swin-Transformer (arXiv 2103.14030)",
    preprocessing=Preprocessing(size_px=224, crop_fraction=224 / 256, interpolation="bicubic"),
    variants=tuple(map(variant, SIZES)),
)
