"""DINOv2 (Oquab et al. 2023, arXiv 2304.07193), with registers or without: bare dictionaries of backbones for 518 px.

Published by facebookresearch/dinov2; the linear heads (one or four layers) are files of their own. Position embeddings
are resampled to 224 px as its code does: with registers antialiased to 16 x 16; without, by the factor 16.1 / 37.
Images are prepared by its evaluation's transform, bicubic 256 / 224.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synclones.models.checkpoint_format import CheckpointFormat, Table, Tensors, Variant
from synclones.models.network import Preprocessing
from synclones.models.vision_transformer import Size, build, trunk_table

SIZES = (
    Size("ViT-S/14", 384, 12, 6, 14),
    Size("ViT-B/14", 768, 12, 12, 14),
    Size("ViT-L/14", 1024, 24, 16, 14),
)
SIDE, TRAINED_SIDE = 224 // 14, 518 // 14
OFFSET = 0.1
"""By which the resampling without registers misses the whole number: weights and heads were made with it."""


def variant(size: Size, registers: int) -> Variant:
    """Return the format of one size, with so many registers or none."""
    last = size.depth - 1
    more: Table = {
        "mask_token": (1, size.width),
        f"blocks.0-{last}.ls1.gamma": (size.width,),
        f"blocks.0-{last}.ls2.gamma": (size.width,),
    }
    if registers:
        more["register_tokens"] = (1, registers, size.width)
    return Variant(
        name=f"{size.name}{' with registers' if registers else ''}",
        table=trunk_table(size, TRAINED_SIDE**2 + 1) | more,
        build=lambda tensors, _: _network(size, registers, tensors),
        role="backbone",
        head_inputs=(1, 2, 5),
    )


def _network(size: Size, registers: int, tensors: Tensors) -> nn.Module:
    """Return timm's network, which gives registers no position: the class token's is added to it beforehand."""
    own = {name: tensor for name, tensor in tensors.items() if name not in ("mask_token", "register_tokens")}
    own["pos_embed"] = resampled(tensors["pos_embed"], antialias=registers > 0)
    if registers:
        token, patches = own["pos_embed"][:, :1], own["pos_embed"][:, 1:]
        own |= {"cls_token": own["cls_token"].float() + token, "pos_embed": patches}
        own["reg_token"] = tensors["register_tokens"]
    return build(size, own, init_values=1.0, reg_tokens=registers, no_embed_class=registers > 0)


def resampled(positions: Tensor, antialias: bool) -> Tensor:
    """Return position embeddings float[1, 1 + 16 * 16, d] for 224 px of those for 518 px, float[1, 1 + 37 * 37, d]."""
    token, patches = positions.float()[:, :1], positions.float()[:, 1:]
    grid = patches.unflatten(1, (TRAINED_SIDE, TRAINED_SIDE)).permute(0, 3, 1, 2)
    factor = (SIDE + OFFSET) / TRAINED_SIDE
    target: dict[str, Any] = {"size": (SIDE, SIDE)} if antialias else {"scale_factor": (factor, factor)}
    smaller = F.interpolate(grid, mode="bicubic", antialias=antialias, **target)
    return torch.cat([token, smaller.permute(0, 2, 3, 1).flatten(1, 2)], 1)


FORMAT = CheckpointFormat(
    title="DINOv2",
    source="facebookresearch/dinov2 (arXiv 2304.07193, 2309.16588)",
    preprocessing=Preprocessing(size_px=224, crop_fraction=224 / 256, interpolation="bicubic"),
    variants=tuple(variant(size, registers) for size in SIZES for registers in (0, 4)),
)
