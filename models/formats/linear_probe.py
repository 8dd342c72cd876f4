"""Linear probes of StableRep's main_linear.py, with which SynCLR is evaluated, too: a backbone beside ten heads.

Published by google-research/syn-rep-learn (StableRep) and, as ``linear_best.pt``, by
visinf/benchmarking-synthetic-clones. The entry ``model`` has the backbone, the entry ``linear_classifiers`` a head per
learning rate, most with a normalisation (``--use_bn``). Of several heads that of the base rate 0.005 is taken, with
which the benchmark's numbers of SynCLR were made; another is named after a +.
"""

from synclones.models.checkpoint_format import CheckpointFormat, Variant
from synclones.models.network import Preprocessing
from synclones.models.vision_transformer import B16, L14, L16, Size, build, trunk_table

SMALL = Size("ViT-S/16", 384, 12, 6)


def variant(size: Size) -> Variant:
    """Return the format of one size."""
    return Variant(
        name=size.name,
        table=trunk_table(size),
        build=lambda tensors, _: build(size, tensors),
        prefixes=("", "visual."),
        left_out=("head.*", "visual.head.*"),
        containers=("model",),
        role="probed",
    )


FORMAT = CheckpointFormat(
    title="linear probe",
    source="google-research/syn-rep-learn, StableRep/main_linear.py (arXiv 2306.00984)",
    preprocessing=Preprocessing(size_px=224, crop_fraction=224 / 256),
    variants=tuple(map(variant, (SMALL, B16, L16, L14))),
)
