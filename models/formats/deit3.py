"""DeiT III (Touvron et al. 2022, arXiv 2204.07118): transformers with layer scale whose class token has no position.

Published by facebookresearch/deit under the entry ``model``. Its recipe evaluates the whole image
(``--eval-crop-ratio 1.0``), bicubic. ``timm:deit3_large_patch16_224.fb_in1k`` are the same weights with timm's crop.
"""

from torch import nn

from synclones.models.checkpoint_format import CheckpointFormat, Table, Tensors, Variant
from synclones.models.network import Preprocessing
from synclones.models.vision_transformer import B16, H14, L16, Size, build, head_table, trunk_table

SMALL = Size("ViT-S/16", 384, 12, 6)


def variant(size: Size) -> Variant:
    """Return the format of one size."""
    scales: Table = {f"blocks.0-{size.depth - 1}.gamma_{number}": (size.width,) for number in (1, 2)}
    return Variant(
        name=size.name,
        table=trunk_table(size, size.patches) | scales | head_table(size),
        build=lambda tensors, classes: _network(size, tensors, classes),
        containers=("model",),
        wrapped=False,
    )


def _network(size: Size, tensors: Tensors, num_classes: int) -> nn.Module:
    renamed = {
        name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma"): tensor for name, tensor in tensors.items()
    }
    return build(size, renamed, num_classes, init_values=1e-6, no_embed_class=True)


FORMAT = CheckpointFormat(
    title="DeiT III",
    source="facebookresearch/deit (arXiv 2204.07118)",
    preprocessing=Preprocessing(size_px=224, interpolation="bicubic"),
    variants=tuple(map(variant, (SMALL, B16, L16, H14))),
)
