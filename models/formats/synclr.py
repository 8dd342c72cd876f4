"""SynCLR (Tian et al. 2023, arXiv 2312.17742): backbones under ``visual.``, trained on synthetic images and captions.

Published by google-research/syn-rep-learn (SynCLR) for ViT-B/16 and ViT-L/14, in the entry ``model`` or ``state_dict``.
Its authors probe with StableRep's code, so images are prepared as there.
"""

from synclones.models.checkpoint_format import CheckpointFormat, Variant
from synclones.models.network import Preprocessing
from synclones.models.vision_transformer import B16, L14, Size, build, trunk_table


def variant(size: Size) -> Variant:
    """Return the format of one size."""
    return Variant(
        name=size.name,
        table=trunk_table(size),
        build=lambda tensors, _: build(size, tensors),
        prefixes=("visual.",),
        left_out=("visual.head.*",),
        containers=("model", "state_dict"),
        role="backbone",
    )


FORMAT = CheckpointFormat(
    title="SynCLR",
    source="google-research/syn-rep-learn, SynCLR (arXiv 2312.17742)",
    preprocessing=Preprocessing(size_px=224, crop_fraction=224 / 256),
    variants=(variant(B16), variant(L14)),
)
