"""SynthCLIP (Hammoud et al. 2024, arXiv 2402.01832): CLIP on synthetic pairs, with towers of timm and SLIP.

Published by hammoudhasan/SynthCLIP: ``checkpoint_best.pt`` with the entry ``state_dict``, all names behind ``module.``.
The projections are outside the towers, so open_clip does not load it. Its evaluation resizes to 224 px, bilinear, and
normalises as ImageNet's classifiers do.
"""

from torch import nn

from synclones.models.checkpoint_format import CheckpointFormat, Table, Tensors, Variant
from synclones.models.network import Preprocessing
from synclones.models.towers import TextSize, Towers, text_table
from synclones.models.vision_transformer import B16, Size, build, trunk_table


def variant(size: Size, text: TextSize) -> Variant:
    """Return the format of one pair of towers."""
    trunk = {f"visual.{name}": shape for name, shape in trunk_table(size).items()}
    projection: Table = {"image_projection": (size.width, text.joint)}
    return Variant(
        name=size.name,
        table=trunk | projection | text_table(text),
        build=lambda tensors, _: _network(size, text, tensors),
        containers=("state_dict",),
        role="image-text",
    )


def _network(size: Size, text: TextSize, tensors: Tensors) -> nn.Module:
    trunk = {name.removeprefix("visual."): t for name, t in tensors.items() if name.startswith("visual.")}
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith("visual.")}
    return Towers(build(size, trunk), rest, text)


FORMAT = CheckpointFormat(
    title="SynthCLIP",
    source="hammoudhasan/SynthCLIP (arXiv 2402.01832)",
    preprocessing=Preprocessing(size_px=224),
    variants=(variant(B16, TextSize()),),
)
