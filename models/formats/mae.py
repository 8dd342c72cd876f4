"""MAE (He et al. 2022, arXiv 2111.06377): pretrained, fine-tuned and probed transformers under the entry ``model``.

Published by facebookresearch/mae. A pretrained one is a backbone; a fine-tuned one averages patches (``fc_norm``) or
keeps the class token (``norm``); a probe (main_linprobe.py) has a normalisation before its head. SynCLR's fine-tuning
(google-research/syn-rep-learn, SynCLR/eval) writes the same.
"""

from torch import nn

from synclones.models.checkpoint_format import CLASSES, CheckpointFormat, Table, Tensors, Variant
from synclones.models.heads import Probed, head_of
from synclones.models.network import Preprocessing
from synclones.models.vision_transformer import B16, H14, L16, Size, build, head_table, trunk_table

# What a checkpoint of the pretraining holds beside the encoder.
DECODER = ("mask_token", "decoder_*")


def pretrained(size: Size) -> Variant:
    """Return the format of a pretrained backbone."""
    return Variant(
        name=f"{size.name} pretrained",
        table=trunk_table(size),
        build=lambda tensors, _: build(size, tensors),
        left_out=DECODER,
        containers=("model",),
        wrapped=False,
        role="backbone",
    )


def finetuned(size: Size) -> Variant:
    """Return the format of a fine-tuned network that averages its patches."""
    trunk = {name: shape for name, shape in trunk_table(size).items() if not name.startswith("norm.")}
    norm: Table = {"fc_norm.weight": (size.width,), "fc_norm.bias": (size.width,)}
    return Variant(
        name=f"{size.name} fine-tuned",
        table=trunk | norm | head_table(size),
        build=lambda tensors, classes: build(size, tensors, classes, global_pool="avg"),
        containers=("model",),
        wrapped=False,
    )


def finetuned_token(size: Size) -> Variant:
    """Return the format of a fine-tuned network that keeps the class token."""
    return Variant(
        name=f"{size.name} fine-tuned on the class token",
        table=trunk_table(size) | head_table(size),
        build=lambda tensors, classes: build(size, tensors, classes),
        containers=("model",),
        wrapped=False,
    )


def probe(size: Size) -> Variant:
    """Return the format of a linear probe: normalisation and layer in the place of the head."""
    head: Table = {
        "head.0.running_mean": (size.width,),
        "head.0.running_var": (size.width,),
        "head.1.weight": (CLASSES, size.width),
        "head.1.bias": (CLASSES,),
    }
    return Variant(
        name=f"{size.name} linear probe",
        table=trunk_table(size) | head,
        build=lambda tensors, _: _probed(size, tensors),
        containers=("model",),
        wrapped=False,
    )


def _probed(size: Size, tensors: Tensors) -> nn.Module:
    head = {name.removeprefix("head."): t for name, t in tensors.items() if name.startswith("head.")}
    trunk = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    return Probed(build(size, trunk), head_of(head, "head"))


FORMAT = CheckpointFormat(
    title="MAE",
    source="facebookresearch/mae (arXiv 2111.06377)",
    preprocessing=Preprocessing(size_px=224, crop_fraction=224 / 256, interpolation="bicubic"),
    variants=tuple(kind(size) for size in (B16, L16, H14) for kind in (pretrained, finetuned, finetuned_token, probe)),
)
