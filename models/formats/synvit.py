"""SynViT-B: supervised clones of Fan et al. 2023 (arXiv 2312.04567), a bare dictionary of timm's names.

Published by google-research/syn-rep-learn (Scaling/supervised), one file per kind of prompt and number of images. Its
evaluation normalises by 0.5 and resizes to 256 px. A file of timm's ``vit_base_patch16_224`` has the same names and
shapes (augreg was trained with 0.5, too); ``timm:vit_base_patch16_224.augreg_in1k`` prepares images as timm does.
"""

from synclones.models.checkpoint_format import CheckpointFormat, Variant
from synclones.models.network import PIXELS, Preprocessing
from synclones.models.vision_transformer import B16, Size, build, head_table, trunk_table

MEAN, STD = PIXELS["half"]


def variant(size: Size) -> Variant:
    """Return the format of one size."""
    return Variant(
        name=size.name,
        table=trunk_table(size) | head_table(size),
        build=lambda tensors, classes: build(size, tensors, classes),
        containers=("",),
        wrapped=False,
    )


FORMAT = CheckpointFormat(
    title="SynViT-B",
    source="google-research/syn-rep-learn, Scaling/supervised (arXiv 2312.04567)",
    preprocessing=Preprocessing(size_px=224, crop_fraction=224 / 256, mean=MEAN, std=STD),
    variants=(variant(B16),),
)
