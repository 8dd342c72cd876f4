"""StableRep and StableRep++ (Tian et al. 2023, arXiv 2306.00984): backbones under ``visual.`` beside projection heads.

Published by google-research/syn-rep-learn (StableRep). The head of three layers (``image_mlp``) is left out, and the
text tower of StableRep++ with its projections.
"""

from synclones.models.checkpoint_format import CheckpointFormat, Variant
from synclones.models.network import Preprocessing
from synclones.models.vision_transformer import B16, L16, Size, build, trunk_table

SMALL = Size("ViT-S/16", 384, 12, 6)
TEXT_TOWER = (
    *("transformer.*", "token_embedding.weight", "positional_embedding", "ln_final.*", "logit_scale"),
    *("image_projection", "text_projection", "image_projection.*", "text_projection.*"),
)


def variant(size: Size) -> Variant:
    """Return the format of one size."""
    return Variant(
        name=size.name,
        table=trunk_table(size),
        build=lambda tensors, _: build(size, tensors),
        prefixes=("visual.",),
        left_out=("image_mlp.*", *TEXT_TOWER),
        needed=("image_mlp.layer3.weight",),
        containers=("model",),
        role="backbone",
    )


FORMAT = CheckpointFormat(
    title="StableRep",
    source="google-research/syn-rep-learn, StableRep (arXiv 2306.00984)",
    preprocessing=Preprocessing(size_px=224, crop_fraction=224 / 256),
    variants=tuple(map(variant, (SMALL, B16, L16))),
)
