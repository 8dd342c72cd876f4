"""SynCLIP: the CLIP clones of Fan et al. 2023 (arXiv 2312.04567), bare dictionaries of open_clip's names.

Published by google-research/syn-rep-learn (Scaling/clip), for real, synthetic and both kinds of images. The towers are
open_clip's ViT-B-16 with the quick approximation of GELU, which the file does not say: a dictionary of a model without
it looks the same, and such a model is to be given as ``open_clip:MODEL/TAG`` or as its folder.
"""

from torch import nn

from synclones.models.checkpoint_format import CheckpointFormat, Table, Tensors, Variant, filled
from synclones.models.network import PIXELS, Preprocessing
from synclones.models.towers import TextSize, blocks_table, text_table
from synclones.models.vision_transformer import B16, Size

MEAN, STD = PIXELS["clip"]


def variant(size: Size, text: TextSize) -> Variant:
    """Return the format of one pair of towers."""
    width = size.width
    visual: Table = {
        "class_embedding": (width,),
        "positional_embedding": (size.patches + 1, width),
        "conv1.weight": (width, 3, size.patch_px, size.patch_px),
        "ln_pre.weight": (width,),
        "ln_pre.bias": (width,),
        "ln_post.weight": (width,),
        "ln_post.bias": (width,),
        "proj": (width, text.joint),
    } | blocks_table("transformer.resblocks", width, size.depth)
    return Variant(
        name=f"CLIP {size.name}",
        table={f"visual.{name}": shape for name, shape in visual.items()} | text_table(text),
        build=lambda tensors, _: _network(size, text, tensors),
        containers=("",),
        wrapped=False,
        role="image-text",
    )


def _network(size: Size, text: TextSize, tensors: Tensors) -> nn.Module:
    from synclones.models.clip import build_from_config  # loads open_clip
    from synclones.models.clip_config import parse_model_config

    vision_cfg = {"image_size": 224, "layers": size.depth, "width": size.width, "patch_size": size.patch_px}
    text_cfg = {"context_length": text.tokens, "vocab_size": text.vocabulary, "width": text.width}
    value = {
        "embed_dim": text.joint,
        "quick_gelu": True,
        "vision_cfg": vision_cfg | {"head_width": size.width // size.heads},
        "text_cfg": text_cfg | {"heads": text.heads, "layers": text.depth},
    }
    return filled(build_from_config(parse_model_config(value, "SynCLIP", "this is a bug")), tensors)


FORMAT = CheckpointFormat(
    title="SynCLIP",
    source="google-research/syn-rep-learn, Scaling/clip (arXiv 2312.04567)",
    preprocessing=Preprocessing(size_px=224, interpolation="bicubic", mean=MEAN, std=STD),
    variants=(variant(B16, TextSize()),),
)
