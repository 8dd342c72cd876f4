"""Vision transformers under timm's names, which most published checkpoints share: their tables, and networks of them.

In: a size. Out: a table of names and shapes (Dosovitskiy et al. 2021, arXiv 2010.11929, with the additions of DeiT III
and DINOv2), and a network with given weights.
"""

from dataclasses import dataclass

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from synclones.models.checkpoint_format import CLASSES, Table, Tensors, filled


@dataclass(frozen=True)
class Size:
    """What one transformer of the family is."""

    name: str
    width: int
    depth: int
    heads: int
    patch_px: int = 16

    @property
    def patches(self) -> int:
        """Of an image of 224 px."""
        return (224 // self.patch_px) ** 2


B16, L16 = Size("ViT-B/16", 768, 12, 12), Size("ViT-L/16", 1024, 24, 16)
L14, H14 = Size("ViT-L/14", 1024, 24, 16, 14), Size("ViT-H/14", 1280, 32, 16, 14)


def trunk_table(size: Size, positions: int | None = None) -> Table:
    """Return names and shapes of a transformer without a head; ``positions``: of its embedding, patches and token."""
    width, last, patch = size.width, size.depth - 1, size.patch_px
    blocks = f"blocks.0-{last}"
    return {
        "cls_token": (1, 1, width),
        "pos_embed": (1, size.patches + 1 if positions is None else positions, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        f"{blocks}.norm1.weight": (width,),
        f"{blocks}.norm1.bias": (width,),
        f"{blocks}.attn.qkv.weight": (3 * width, width),
        f"{blocks}.attn.qkv.bias": (3 * width,),
        f"{blocks}.attn.proj.weight": (width, width),
        f"{blocks}.attn.proj.bias": (width,),
        f"{blocks}.norm2.weight": (width,),
        f"{blocks}.norm2.bias": (width,),
        f"{blocks}.mlp.fc1.weight": (4 * width, width),
        f"{blocks}.mlp.fc1.bias": (4 * width,),
        f"{blocks}.mlp.fc2.weight": (width, 4 * width),
        f"{blocks}.mlp.fc2.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }


def head_table(size: Size) -> Table:
    """Return names and shapes of a linear head."""
    return {"head.weight": (CLASSES, size.width), "head.bias": (CLASSES,)}


def build(size: Size, tensors: Tensors, num_classes: int = 0, **more: object) -> nn.Module:
    """Return a transformer for images of 224 px with these weights; ``more`` of timm's arguments."""
    network = VisionTransformer(
        img_size=224,
        patch_size=size.patch_px,
        embed_dim=size.width,
        depth=size.depth,
        num_heads=size.heads,
        num_classes=num_classes,
        **more,
    )
    return filled(network, tensors)
