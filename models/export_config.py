"""The configuration of an exported classifier: one schema, checked before a network is built from it.

In: the value of an export's ``config.json``, as timm's `save_for_hf` writes it. Out: `ExportConfig`; what is unknown
among the arguments of the network, or contradicts itself, is refused.
"""

from typing import Annotated, Any, Literal, TypeVar

import timm
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from synclones.base.errors import InputError
from synclones.base.json_file import canonical_json
from synclones.models.network import FILTERS, Preprocessing

MAX_CLASSES = 2**24
Side = Annotated[int, Field(ge=1, le=2**14)]
Width = Annotated[int, Field(ge=1, le=2**16)]
Sides = tuple[Side, Side]
Mean = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(gt=0, le=1)]
Checked = TypeVar("Checked", bound=BaseModel)


class Strict(BaseModel):
    """A number is no text, a text no list, and infinity no number."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class ModelArgs(Strict):
    """What a network may be built with: its shape, and nothing that decides where or how timm loads it."""

    model_config = ConfigDict(extra="forbid")

    num_classes: int | None = None
    in_chans: Literal[3] | None = None
    img_size: Side | Sides | None = None
    global_pool: Annotated[str, Field(max_length=64)] | None = None
    patch_size: Side | Sides | None = None
    embed_dim: Width | None = None
    depth: Annotated[int, Field(ge=1, le=2**12)] | None = None
    num_heads: Annotated[int, Field(ge=1, le=2**12)] | None = None
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] | None = None
    dynamic_img_size: bool | None = None


class _InputConfig(Strict):
    """How images become the network's input: what we read of ``pretrained_cfg``."""

    input_size: tuple[Literal[3], Side, Side]
    crop_pct: Annotated[float, Field(gt=0, le=1)]
    crop_mode: Literal["center"] = "center"
    interpolation: str
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]
    num_classes: int | None = None


class ExportConfig(Strict):
    """What an export says of itself, its parts in agreement."""

    architecture: str
    num_classes: Annotated[int, Field(ge=1, le=MAX_CLASSES)]
    label_names: list[str] | None = None
    model_args: ModelArgs = ModelArgs()
    pretrained_cfg: _InputConfig

    @property
    def class_ids(self) -> tuple[str, ...]:
        """The class of each output; its number where the file names none."""
        names = self.label_names
        return tuple(map(str, range(self.num_classes))) if names is None else tuple(names)

    @property
    def preprocessing(self) -> Preprocessing:
        """How a stored image becomes the input."""
        stated = self.pretrained_cfg
        _, height, width = stated.input_size
        return Preprocessing(
            size_px=height if height == width else (height, width),
            crop_fraction=stated.crop_pct,
            interpolation=stated.interpolation,
            mean=stated.mean,
            std=stated.std,
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `timm.create_model`."""
        return self.model_args.model_dump(exclude_none=True) | {"num_classes": self.num_classes}


def validated(schema: type[Checked], value: Any, problem: str, remedy: str) -> Checked:
    """Return a JSON value as an instance of ``schema``.

    Raises:
        InputError: ``problem``, the first wrong entry, what was given there, and ``remedy``.
    """
    try:
        return schema.model_validate_json(canonical_json(value))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        entry = ".".join(map(str, first["loc"])) or "the file"
        given = "" if first["type"] == "missing" else f", got {str(first['input'])[:60]!r}"
        raise InputError(f"{problem}: {entry}: {first['msg']}{given}; {remedy}") from None


def parse_export_config(value: Any, where: str) -> ExportConfig:
    """Return the configuration in a JSON value; ``where`` names its file in messages.

    Raises:
        InputError: saying which entry is wrong, or which two contradict each other.
    """
    if isinstance(value, dict) and value.get("num_classes") == 0:
        raise InputError(
            f"{where}: num_classes is 0, a backbone, which has no classes; give a model that was trained to classify"
        )
    config = validated(ExportConfig, value, f"{where}: not the config of a timm model", "export the model again")
    if wrong := _contradiction(config):
        raise InputError(f"{where}: {wrong}; export the model again")
    return config


def _contradiction(config: ExportConfig) -> str:
    """Return what does not fit, or nothing."""
    stated, arguments, names = config.pretrained_cfg, config.model_args, config.label_names
    if config.architecture not in timm.list_models():
        return f"architecture: timm has no {config.architecture!r}"
    if stated.interpolation not in FILTERS:
        return f"pretrained_cfg.interpolation: got {stated.interpolation!r}, expected one of {', '.join(FILTERS)}"
    for name, number in (("model_args", arguments.num_classes), ("pretrained_cfg", stated.num_classes)):
        if number not in (None, config.num_classes):
            return f"num_classes is {config.num_classes}, that of {name} is {number}"
    if names is not None and len(names) != config.num_classes:
        return f"num_classes is {config.num_classes}, label_names holds {len(names)}"
    if names is not None and len(set(names)) < len(names):
        return "label_names: a name appears twice"
    size = (arguments.img_size,) * 2 if isinstance(arguments.img_size, int) else arguments.img_size
    if size not in (None, stated.input_size[1:]):
        return f"pretrained_cfg.input_size is {list(stated.input_size)}, model_args.img_size {arguments.img_size}"
    return ""
