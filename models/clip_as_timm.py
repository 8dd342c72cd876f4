"""The image tower of open_clip's own vision transformer as timm has it: the same numbers under other names.

In: `StoredWeights` of an open_clip folder. Out: those of timm's ``vit_base_patch16_clip_224`` of the same shape, whose
features are the tower's before its projection. Names are those that both libraries publish.
"""

import re
from dataclasses import replace

from torch import Tensor

from synclones.base.errors import InputError
from synclones.models.stored import FLAG, OPEN_CLIP, TIMM, StoredWeights

ARCHITECTURES = {False: "vit_base_patch16_clip_224", True: "vit_base_patch16_clip_quickgelu_224"}
TOWER, MLP_RATIO = "visual.", 4.0
NAMES = {
    "conv1.weight": "patch_embed.proj.weight",
    "ln_pre": "norm_pre",
    "ln_post": "norm",
    r"transformer\.resblocks\.(\d+)\.ln_1": r"blocks.\1.norm1",
    r"transformer\.resblocks\.(\d+)\.ln_2": r"blocks.\1.norm2",
    r"transformer\.resblocks\.(\d+)\.attn\.in_proj_": r"blocks.\1.attn.qkv.",
    r"transformer\.resblocks\.(\d+)\.attn\.out_proj": r"blocks.\1.attn.proj",
    r"transformer\.resblocks\.(\d+)\.mlp\.c_fc": r"blocks.\1.mlp.fc1",
    r"transformer\.resblocks\.(\d+)\.mlp\.c_proj": r"blocks.\1.mlp.fc2",
}
LEADING = {"class_embedding": "cls_token", "positional_embedding": "pos_embed"}


def as_timm(stored: StoredWeights) -> StoredWeights:
    """Return the weights of the image tower under timm's names; others than open_clip's own as they are.

    Raises:
        InputError: the tower is a ResNet, or has parts that timm's has not.
    """
    if stored.layout != OPEN_CLIP or stored.clip.model_cfg.vision_cfg.timm_model_name is not None:
        return stored
    vision = stored.clip.model_cfg.vision_cfg
    if not isinstance(vision.layers, int) or vision.ls_init_value is not None:
        raise InputError(
            f"{FLAG}: {stored.name}: its image tower is no vision transformer that timm has; give --head zero-shot"
        )
    shape = {"patch_size": vision.patch_size, "embed_dim": vision.width, "depth": vision.layers}
    shape |= {} if vision.mlp_ratio == MLP_RATIO else {"mlp_ratio": vision.mlp_ratio}
    tower = {name.removeprefix(TOWER): tensor for name, tensor in stored.tensors.items() if name.startswith(TOWER)}
    return replace(
        stored,
        layout=TIMM,
        tensors={_named(name): _shaped(name, tensor) for name, tensor in tower.items() if name != "proj"},
        architecture=ARCHITECTURES[stored.clip.model_cfg.quick_gelu],
        model_args=shape | {"num_heads": vision.width // vision.head_width},
        clip=None,
    )


def _named(name: str) -> str:
    if name in LEADING:
        return LEADING[name]
    for theirs, ours in NAMES.items():
        if (match := re.match(theirs, name)) is not None:
            return match.expand(ours) + name[match.end() :]
    return name  # the comparison says that timm has no such tensor


def _shaped(name: str, tensor: Tensor) -> Tensor:
    """Return a tensor with the leading axes of timm's: those that stand for all images alike are batches of one."""
    if name == "class_embedding":
        return tensor.view(1, 1, -1)
    return tensor[None] if name == "positional_embedding" else tensor
