"""Image-text models: a CLIP of open_clip with fresh weights, from a shape of one's own or a name that open_clip knows.

In: a `ClipSpec`. Out: an `open_clip.CLIP` (or `CustomTextCLIP`) that takes normalised images and tokens.
"""

import math
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import open_clip
import torch
from torch import nn

from synclones.base.errors import InputError, MachineError, as_synclones_error
from synclones.base.units import format_count
from synclones.models.clip_config import ClipModelConfig, parse_model_config
from synclones.models.network import BLOCKS_LOOKED_AT
from synclones.models.tokenizer import TOKENIZER, VOCABULARY_SIZE, refuse_other_tokenizers

LOGIT_SCALE = math.log(1 / 0.07)
"""Logarithm of the first scale of the logits, of Radford et al. 2021; SigLIP begins at log 10 with a bias of -10."""
REMEDY = "change it"
# What a shape consists of, and the largest of each.
_SHAPE = {"patch_size": 2**14, "embed_dim": 2**16, "depth": 2**12, "num_heads": 2**12}
_TEXT_SHAPE = {"text_width": 2**16, "text_layers": 2**12, "text_heads": 2**12, "joint_dim": 2**16}
_SIZES = {"context_length": 2**12, "image_size_px": 2**14}
# What open_clip, timm and torch raise about a model that cannot be.
REFUSALS = (
    *(TypeError, ValueError, AssertionError, AttributeError, IndexError, KeyError, RuntimeError),
    ZeroDivisionError,
)


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """The architecture of a CLIP model: ``model`` names a whole one, else the towers' shapes are given."""

    model: str = ""
    """A model of open_clip, such as ViT-B-16-quickgelu; towers and joint width are its own then."""
    architecture: str = ""
    """A timm architecture as the image tower, as it is: open_clip hands timm neither shape nor size."""
    image_size_px: int | None = None
    """Side of the input; a named model's own by default."""
    patch_size: int | None = None
    """Of open_clip's vision transformer, in pixels, as are the next three."""
    embed_dim: int | None = None
    """Width of the image tower."""
    depth: int | None = None
    """Blocks of the image tower."""
    num_heads: int | None = None
    """Attention heads of the image tower."""
    text_width: int | None = None
    text_layers: int | None = None
    text_heads: int | None = None
    joint_dim: int | None = None
    """Width of the space in which images and texts are compared."""
    context_length: int | None = None
    """Tokens that the text tower reads, start and end included; a named model's own by default."""
    quick_gelu: bool | None = None
    """OpenAI's approximation of GELU, in both towers but a timm one; a named model's own by default, else no."""
    patch_dropout: float = 0.0
    """Share of patches that a training step leaves out (Li et al. 2022, arXiv 2212.00794)."""
    init_logit_scale: float = LOGIT_SCALE
    """Logarithm of the scale of the logits at the start."""
    init_logit_bias: float | None = None
    """Bias of the logits at the start, which makes it a parameter; None for the softmax loss, which has none."""
    tokenizer: str = TOKENIZER
    """Only CLIP's own, which decides the size of the vocabulary."""


LAB_CLIP = ClipSpec(
    image_size_px=32,
    patch_size=8,
    embed_dim=96,
    depth=4,
    num_heads=3,
    text_width=64,
    text_layers=2,
    text_heads=2,
    joint_dim=64,
    context_length=24,
)
"""Towers of the lab's size: 3.7 M parameters, of which 3.2 M are the table of the vocabulary, read and not computed."""


def model_config(spec: ClipSpec) -> ClipModelConfig:
    """Return what open_clip builds the model of, as an export writes it down.

    Raises:
        InputError: when open_clip has no such model, something is missing, or parts do not fit each other.
    """
    refuse_other_tokenizers(spec.tokenizer, "CLIP model")
    _refuse_numbers(spec)
    value = _named(spec) if spec.model else _shaped(spec)
    if spec.patch_dropout:
        value["vision_cfg"]["patch_dropout"] = spec.patch_dropout
    if spec.quick_gelu is not None:
        value["quick_gelu"] = spec.quick_gelu
    value["init_logit_scale"] = spec.init_logit_scale
    if spec.init_logit_bias is not None:
        value["init_logit_bias"] = spec.init_logit_bias
    return parse_model_config(value, _name(spec), REMEDY)


def _refuse_numbers(spec: ClipSpec) -> None:
    """Refuse what no model has, by the names of the spec: open_clip has others for the same."""
    for name, most in (_SHAPE | _TEXT_SHAPE | _SIZES).items():
        value = getattr(spec, name)
        if value is not None and not 1 <= value <= most:
            raise InputError(f"{_name(spec)}: {name} is {value}, expected 1 to {most}")
    for name, value in (("init_logit_scale", spec.init_logit_scale), ("init_logit_bias", spec.init_logit_bias or 0.0)):
        if not math.isfinite(value):
            raise InputError(f"{_name(spec)}: {name} is {value}, expected a finite number")
    if not 0 <= spec.patch_dropout < 1:
        raise InputError(f"{_name(spec)}: patch_dropout is {spec.patch_dropout}, expected 0 to less than 1")
    for width, heads in (("embed_dim", "num_heads"), ("text_width", "text_heads")):
        if (getattr(spec, width) or 0) % (getattr(spec, heads) or 1):
            raise InputError(
                f"{_name(spec)}: {width} {getattr(spec, width)} is no multiple of {heads} {getattr(spec, heads)}"
            )


def _named(spec: ClipSpec) -> dict[str, Any]:
    """Return the configuration of a model of open_clip, at the size and length that are asked for."""
    surplus = [name for name in (*_SHAPE, *_TEXT_SHAPE, "architecture") if getattr(spec, name)]
    if surplus:
        raise InputError(f"{_name(spec)}: has a shape of its own; leave out {', '.join(surplus)}, or the name")
    value: dict[str, Any] | None = open_clip.get_model_config(spec.model) if ":" not in spec.model else None
    if value is None:
        near = get_close_matches(spec.model, open_clip.list_models(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; see `open_clip.list_models()`"
        raise InputError(f"{_name(spec)}: open_clip has no such model{hint}")
    if spec.image_size_px is not None:
        value["vision_cfg"]["image_size"] = spec.image_size_px
    if spec.context_length is not None:
        value["text_cfg"]["context_length"] = spec.context_length
    return value


def _shaped(spec: ClipSpec) -> dict[str, Any]:
    """Return the configuration of two towers of given shapes."""
    own = [name for name in _SHAPE if getattr(spec, name) is not None]
    if spec.architecture and own:
        raise InputError(
            f"{_name(spec)}: open_clip builds timm architectures as they are; leave out {', '.join(own)}, or the "
            "architecture, for a vision transformer of that shape"
        )
    needed = (*({} if spec.architecture else _SHAPE), *_TEXT_SHAPE, *_SIZES)
    missing = [name for name in needed if getattr(spec, name) is None]
    if missing:
        raise InputError(f"{_name(spec)}: give {', '.join(missing)}, or the name of a model of open_clip")
    width, heads = spec.embed_dim or 0, spec.num_heads or 1
    image_tower = (
        {"timm_model_name": spec.architecture, "timm_model_pretrained": False, "timm_pool": "", "timm_proj": "linear"}
        if spec.architecture
        else {"patch_size": spec.patch_size, "width": width, "layers": spec.depth, "head_width": width // heads}
    )
    return {
        "embed_dim": spec.joint_dim,
        "vision_cfg": image_tower | {"image_size": spec.image_size_px},
        "text_cfg": {
            "context_length": spec.context_length,
            "vocab_size": VOCABULARY_SIZE,
            "width": spec.text_width,
            "heads": spec.text_heads,
            "layers": spec.text_layers,
        },
    }


def _name(spec: ClipSpec) -> str:
    """Return what messages call it."""
    return f"CLIP model {spec.model or spec.architecture}".rstrip()


def build_from_config(config: ClipModelConfig) -> nn.Module:
    """Return the model of a checked configuration, as open_clip would make it without weights to load."""
    arguments = config.arguments
    kind = open_clip.CustomTextCLIP if arguments.pop("custom_text", False) else open_clip.CLIP
    model: nn.Module = kind(**arguments)
    return model


def build_clip(spec: ClipSpec) -> nn.Module:
    """Return an open_clip model with fresh weights of torch's generator, on the device of the context, also meta.

    Raises:
        InputError: when it cannot be built, in one line.
        MachineError: when it does not fit into memory.
    """
    config = model_config(spec)
    try:
        return build_from_config(config)
    except REFUSALS as error:
        raise _refusal(spec, "cannot be built", error) from None


def check_clip(spec: ClipSpec, smallest_batch: int = 2) -> None:
    """Build the model and compare images with texts, all without numbers (on PyTorch's meta device), in no memory.

    Raises:
        InputError: when it cannot be built, run on ``smallest_batch`` pairs in training, or stored.
    """
    config = model_config(spec)
    side, length = config.vision_cfg.sides[0], config.text_cfg.context_length
    with torch.device("meta"):
        model = build_clip(_shallow(spec)).train()
        images = torch.empty(smallest_batch, 3, side, side)
        tokens = torch.empty(smallest_batch, length, dtype=torch.int64)
    names: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if names.setdefault(id(tensor), name) != name:
            raise InputError(f"{_name(spec)}: cannot be stored, {names[id(tensor)]} and {name} are one tensor")
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            # Patch dropout draws without naming a device: the caller's random numbers are not to be used up.
            shape = tuple(model.get_logits(images, tokens)[0].shape)
    except NotImplementedError:
        return  # an operation that needs numbers: the first step will show
    except REFUSALS as error:
        shown = format_count(smallest_batch, "image")
        raise _refusal(spec, f"cannot be trained on {shown} of {side} px", error) from None
    if shape != (smallest_batch, smallest_batch):
        raise InputError(f"{_name(spec)}: gives {list(shape)} for {smallest_batch} pairs, expected a square")


def _shallow(spec: ClipSpec) -> ClipSpec:
    """Return the same towers with few blocks: they are alike, and a few show what a thousand would show in a minute."""
    depth, text_layers = (number and min(number, BLOCKS_LOOKED_AT) for number in (spec.depth, spec.text_layers))
    return replace(spec, depth=depth, text_layers=text_layers)


def _refusal(spec: ClipSpec, what: str, error: Exception) -> Exception:
    """Return the one line for what the libraries refuse in many ways; a full memory is the machine's failure."""
    known = as_synclones_error(error)
    if isinstance(known, MachineError):
        return known
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return InputError(f"{_name(spec)}: {what} ({reason}); {REMEDY}")
