"""MoCo v3 (Chen et al. 2021, arXiv 2104.02057): pretraining and linear probes under the entry ``state_dict``.

Published by facebookresearch/moco-v3. A pretraining holds the encoder twice, with a projection head of three layers in
the place of its head, and a predictor; a probe (main_lincls.py) is the whole network with a head. All names begin with
``module.``. The small transformer has twelve heads of width 32, unlike everybody else's; position embeddings are fixed
sines, stored as they are.
"""

from synclones.models.checkpoint_format import CheckpointFormat, Variant
from synclones.models.network import Preprocessing
from synclones.models.vision_transformer import B16, Size, build, head_table, trunk_table

SMALL = Size("ViT-S/16", 384, 12, 12)


def pretrained(size: Size) -> Variant:
    """Return the format of a pretrained backbone."""
    return Variant(
        name=f"{size.name} pretrained",
        table=trunk_table(size),
        build=lambda tensors, _: build(size, tensors),
        prefixes=("base_encoder.",),
        left_out=("base_encoder.head.*", "momentum_encoder.*", "predictor.*"),
        containers=("state_dict",),
        wrapped=True,
        role="backbone",
    )


def probe(size: Size) -> Variant:
    """Return the format of a linear probe."""
    return Variant(
        name=f"{size.name} linear probe",
        table=trunk_table(size) | head_table(size),
        build=lambda tensors, classes: build(size, tensors, classes),
        containers=("state_dict",),
        wrapped=True,
    )


FORMAT = CheckpointFormat(
    title="MoCo v3",
    source="facebookresearch/moco-v3 (arXiv 2104.02057)",
    preprocessing=Preprocessing(size_px=224, crop_fraction=224 / 256),
    variants=tuple(kind(size) for size in (SMALL, B16) for kind in (pretrained, probe)),
)
