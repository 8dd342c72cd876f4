"""The configuration of a CLIP model of open_clip: one schema, checked before anything is built from it.

In: the value of ``open_clip_config.json``, or the ``model_cfg`` in it. Out: `ClipConfig`, `ClipModelConfig`; what is
unknown among the arguments of the towers, contradicts itself, or would be fetched from elsewhere, is refused.
"""

from typing import Annotated, Any, Literal

import timm
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from pydantic import ConfigDict, Field

from synclones.base.errors import InputError
from synclones.models.export_config import Deviation, Mean, Side, Sides, Strict, Width, validated
from synclones.models.network import Preprocessing, takes_image_size
from synclones.models.tokenizer import (
    SHORTEST_CONTEXT,
    TOKENIZER,
    VOCABULARY_SIZE,
    refuse_other_tokenizers,
    vocabulary_sha256,
)

Count = Annotated[int, Field(ge=1, le=2**12)]


class VisionConfig(Strict):
    """The image tower: open_clip's vision transformer or ResNet, or an architecture of timm as it is."""

    model_config = ConfigDict(extra="forbid")

    image_size: Side | Sides
    layers: Count | tuple[Count, Count, Count, Count] = 12
    width: Width = 768
    head_width: Width = 64
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] = 4.0
    patch_size: Side | None = 16
    ls_init_value: Annotated[float, Field(gt=0, le=1)] | None = None
    patch_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    timm_model_name: Annotated[str, Field(max_length=128)] | None = None
    timm_model_pretrained: Literal[False] = False
    timm_pool: Literal["", "avg", "token", "map", "abs_attn", "rot_attn"] = "avg"
    timm_proj: Literal["", "linear", "mlp", "none"] | None = "linear"
    timm_proj_bias: bool = False
    timm_drop: Annotated[float, Field(ge=0, lt=1)] = 0.0
    timm_drop_path: Annotated[float, Field(ge=0, lt=1)] | None = None

    @property
    def sides(self) -> Sides:
        """Height and width of the input."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size


class TextConfig(Strict):
    """The text tower: open_clip's transformer over CLIP's vocabulary."""

    model_config = ConfigDict(extra="forbid")

    context_length: Annotated[int, Field(ge=SHORTEST_CONTEXT, le=2**12)] = 77
    vocab_size: int = VOCABULARY_SIZE
    width: Width = 512
    heads: Count = 8
    layers: Count = 12
    no_causal_mask: bool = False


class ClipModelConfig(Strict):
    """What open_clip builds a model of: the ``model_cfg`` of its configurations."""

    model_config = ConfigDict(extra="forbid")

    embed_dim: Width
    vision_cfg: VisionConfig
    text_cfg: TextConfig
    quick_gelu: bool = False
    custom_text: bool = False
    init_logit_scale: float | None = None
    init_logit_bias: float | None = None
    nonscalar_logit_scale: bool = False

    @property
    def arguments(self) -> dict[str, Any]:
        """The entries that were given: open_clip's own defaults hold for the others, there as here."""
        return self.model_dump(mode="json", exclude_unset=True)


class _PreprocessConfig(Strict):
    """How images become the input: what we read of ``preprocess_cfg``."""

    size: Side | Sides | None = None
    mode: Literal["RGB"] = "RGB"
    mean: tuple[Mean, Mean, Mean] = OPENAI_DATASET_MEAN
    std: tuple[Deviation, Deviation, Deviation] = OPENAI_DATASET_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest"] = "shortest"


class _TokenizerConfig(Strict):
    """An entry of ours, which open_clip passes over: whose numbers the rows of the text tower's table are."""

    name: str
    vocabulary_sha256: str


class ClipConfig(Strict):
    """What a folder says of its model, its parts in agreement."""

    model_cfg: ClipModelConfig
    preprocess_cfg: _PreprocessConfig = _PreprocessConfig()
    tokenizer: _TokenizerConfig | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """How a stored image becomes the input."""
        stated, side = self.preprocess_cfg, self.model_cfg.vision_cfg.sides[0]
        return Preprocessing(
            size_px=side, crop_fraction=1.0, interpolation=stated.interpolation, mean=stated.mean, std=stated.std
        )


def parse_clip_config(value: Any, where: str) -> ClipConfig:
    """Return the configuration in a JSON value; ``where`` names its file in messages.

    Raises:
        InputError: saying which entry is wrong, or which two contradict each other.
    """
    remedy = "export the model again"
    _refuse_foreign_texts(value.get("model_cfg") if isinstance(value, dict) else None, where)
    config = validated(ClipConfig, value, f"{where}: not the config of an open_clip model", remedy)
    stated, sides = config.preprocess_cfg.size, config.model_cfg.vision_cfg.sides
    if wrong := contradiction(config.model_cfg):
        raise InputError(f"{where}: {wrong}; {remedy}")
    if stated not in (None, sides, sides[0]):
        raise InputError(f"{where}: preprocess_cfg.size is {stated}, vision_cfg.image_size {sides}; {remedy}")
    if config.tokenizer is not None:
        refuse_other_tokenizers(config.tokenizer.name, where)
        if config.tokenizer.vocabulary_sha256 != vocabulary_sha256():
            raise InputError(
                f"{where}: was trained on another vocabulary than the installed open_clip has; install the release of "
                "open_clip_torch that it was exported with"
            )
    return config


def parse_model_config(value: Any, where: str, remedy: str) -> ClipModelConfig:
    """Return a ``model_cfg``, its parts in agreement.

    Raises:
        InputError: saying what is wrong.
    """
    _refuse_foreign_texts(value, where)
    config = validated(ClipModelConfig, value, f"{where}: cannot be built", remedy)
    if wrong := contradiction(config):
        raise InputError(f"{where}: {wrong}; {remedy}")
    return config


def _refuse_foreign_texts(model_cfg: Any, where: str) -> None:
    """Refuse towers and tokenizers that open_clip would fetch, before the entries that come with them are looked at."""
    model: dict[str, Any] = model_cfg if isinstance(model_cfg, dict) else {}
    text_cfg = model.get("text_cfg")
    text: dict[str, Any] = text_cfg if isinstance(text_cfg, dict) else {}
    name = text.get("hf_tokenizer_name") or text.get("hf_model_name")
    refuse_other_tokenizers(str(name)[:80] if name else TOKENIZER, where)
    if "multimodal_cfg" in model:
        raise InputError(f"{where}: is a CoCa model, which also writes captions; choose one of two towers")


def contradiction(config: ClipModelConfig) -> str:
    """Return what does not fit together, or nothing."""
    vision, text = config.vision_cfg, config.text_cfg
    (height, width), patch = vision.sides, vision.patch_size
    if height != width:
        return f"vision_cfg.image_size is {list(vision.sides)}, expected a square"
    if text.vocab_size != VOCABULARY_SIZE:
        return f"text_cfg.vocab_size is {text.vocab_size}, the tokenizer has {VOCABULARY_SIZE} tokens"
    if text.width % text.heads:
        return f"text_cfg.width {text.width} is no multiple of its {text.heads} heads"
    if vision.timm_model_name is not None:
        return _timm_contradiction(vision.timm_model_name, vision.sides)
    if isinstance(vision.layers, tuple):
        return ""
    if vision.width % vision.head_width:
        return f"vision_cfg.width {vision.width} is no multiple of head_width {vision.head_width}"
    if patch is None or height % patch:
        return f"vision_cfg.image_size {height} is no multiple of patch_size {patch}"
    return ""


def _timm_contradiction(name: str, sides: Sides) -> str:
    if name not in timm.list_models():
        return f"vision_cfg.timm_model_name: timm has no {name!r}"
    # open_clip hands timm no size: a network of one size is built for its own, whatever the configuration says.
    own = tuple(timm.get_pretrained_cfg(name).input_size[1:])
    if takes_image_size(name) and own != sides:
        return f"vision_cfg.image_size is {sides[0]}, open_clip builds {name} for {own[0]} px alone"
    return ""
