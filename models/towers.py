"""Image-text models under OpenAI's names: the tables of their towers, and a pair of which open_clip builds one alone.

In: a size. Out: names and shapes of CLIP's towers (Radford et al. 2021, arXiv 2103.00020), and `Towers`, which classify
as a CLIP of open_clip does.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from synclones.models.checkpoint_format import Table, Tensors, filled


@dataclass(frozen=True)
class TextSize:
    """What the text tower is: CLIP's by default."""

    width: int = 512
    depth: int = 12
    heads: int = 8
    joint: int = 512
    tokens: int = 77
    vocabulary: int = 49_408


def text_table(size: TextSize) -> Table:
    """Return names and shapes of a text tower, and of the scale of the logits."""
    return {
        "token_embedding.weight": (size.vocabulary, size.width),
        "positional_embedding": (size.tokens, size.width),
        "ln_final.weight": (size.width,),
        "ln_final.bias": (size.width,),
        "text_projection": (size.width, size.joint),
        "logit_scale": (),
    } | blocks_table("transformer.resblocks", size.width, size.depth)


def blocks_table(name: str, width: int, depth: int) -> Table:
    """Return names and shapes of the blocks of one tower."""
    block = f"{name}.0-{depth - 1}"
    return {
        f"{block}.ln_1.weight": (width,),
        f"{block}.ln_1.bias": (width,),
        f"{block}.attn.in_proj_weight": (3 * width, width),
        f"{block}.attn.in_proj_bias": (3 * width,),
        f"{block}.attn.out_proj.weight": (width, width),
        f"{block}.attn.out_proj.bias": (width,),
        f"{block}.ln_2.weight": (width,),
        f"{block}.ln_2.bias": (width,),
        f"{block}.mlp.c_fc.weight": (4 * width, width),
        f"{block}.mlp.c_fc.bias": (4 * width,),
        f"{block}.mlp.c_proj.weight": (width, 4 * width),
        f"{block}.mlp.c_proj.bias": (width,),
    }


class Towers(nn.Module):  # type: ignore[misc]  # torch's own types are left out
    """An image tower without a projection beside CLIP's text tower with the quick approximation of GELU."""

    def __init__(self, visual: nn.Module, tensors: Tensors, size: TextSize):
        """``tensors``: of `text_table`, with ``image_projection`` float[d, joint] of the vectors of ``visual``."""
        from open_clip.transformer import QuickGELU, TextTransformer  # takes seconds

        super().__init__()
        self.visual = visual
        text = TextTransformer(
            context_length=size.tokens,
            vocab_size=size.vocabulary,
            width=size.width,
            heads=size.heads,
            layers=size.depth,
            output_dim=size.joint,
            act_layer=QuickGELU,
        )
        own = {name: tensor for name, tensor in tensors.items() if name not in ("image_projection", "logit_scale")}
        self.text = filled(text, own)
        self.image_projection = nn.Parameter(tensors["image_projection"].float())
        self.logit_scale = nn.Parameter(tensors["logit_scale"].float())

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """Return vectors float[n, joint] of normalised images; ``normalize``: of length 1."""
        vectors: Tensor = self.visual(images) @ self.image_projection
        return F.normalize(vectors, dim=-1) if normalize else vectors

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """Return vectors float[n, joint] of tokens int64[n, context_length]; ``normalize``: of length 1."""
        vectors: Tensor = self.text(tokens)
        return F.normalize(vectors, dim=-1) if normalize else vectors
