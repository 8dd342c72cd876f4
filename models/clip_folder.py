"""An image-text model on disk: the folder that open_clip loads by ``local-dir:``, with a card as a classifier's.

In: an open_clip model, its spec and preprocessing. Out: ``open_clip_config.json``, ``open_clip_model.safetensors``,
``README.md``, and ``zero_shot.json`` where classes are named; and back.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from synclones.base.errors import InputError, MachineError, as_synclones_error
from synclones.base.files import replaced_folder, sha256_bytes
from synclones.base.json_file import canonical_json, pretty_json
from synclones.base.weights import check_safetensors, refuse_old_libraries
from synclones.models.clip import REFUSALS, ClipSpec, build_from_config, model_config
from synclones.models.clip_config import ClipConfig, ClipModelConfig, parse_clip_config
from synclones.models.folder import (
    CLIP_CONFIG,
    CLIP_WEIGHTS,
    json_value,
    read_verified,
    refuse_other_types,
    stated_hashes,
    write_card,
)
from synclones.models.network import Preprocessing
from synclones.models.tokenizer import TOKENIZER, vocabulary_sha256
from synclones.models.zero_shot import ZeroShotTexts, write_zero_shot


@dataclass(frozen=True)
class LoadedClip:
    """An image-text model of a folder, in evaluation mode."""

    model: nn.Module
    config: ClipConfig
    weights_sha256: str
    config_sha256: str

    @property
    def preprocessing(self) -> Preprocessing:
        """How a stored image becomes the input."""
        return self.config.preprocessing

    @property
    def context_length(self) -> int:
        """Tokens that the text tower reads."""
        return self.config.model_cfg.text_cfg.context_length


def export_clip(
    folder: Path,
    clip_model: nn.Module,
    spec: ClipSpec | ClipModelConfig,
    preprocessing: Preprocessing,
    card: str,
    zero_shot: ZeroShotTexts | None = None,
    head: Tensor | None = None,
) -> str:
    """Write ``folder`` whole or not at all, replacing an older export; return the sha256 of its weights.

    ``{hashes}`` in the card becomes the sentences about the files' hashes, which `load_clip` checks. ``head``: a
    trained one, float32[classes, d], in the place of that of the texts.

    Raises:
        InputError: when open_clip cannot prepare images as ``preprocessing`` says.
    """
    value = {
        "model_cfg": (spec if isinstance(spec, ClipModelConfig) else model_config(spec)).arguments,
        "preprocess_cfg": preprocess_config(preprocessing),
        "tokenizer": {"name": TOKENIZER, "vocabulary_sha256": vocabulary_sha256()},
    }
    # What could not be read back is not written: the same check, before.
    parse_clip_config(value, f"{folder}: cannot be exported")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in clip_model.state_dict().items()}
    with replaced_folder(folder) as temporary:
        (temporary / CLIP_CONFIG).write_bytes(pretty_json(value))
        save_file(tensors, temporary / CLIP_WEIGHTS, metadata={"format": "pt"})
        (temporary / CLIP_WEIGHTS).chmod(0o644)
        if zero_shot is not None:
            write_zero_shot(temporary, zero_shot, head)
        digest = write_card(temporary, card, CLIP_CONFIG, CLIP_WEIGHTS)
    return digest


def preprocess_config(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return how open_clip prepares images in the same way.

    Raises:
        InputError: when it has no such way.
    """
    height, width = preprocessing.input_px
    if (
        height != width
        or preprocessing.crop_fraction != 1
        or preprocessing.interpolation not in ("bicubic", "bilinear")
    ):
        raise InputError(
            f"{preprocessing}: open_clip prepares square images, crops nothing beyond the square and resizes "
            "by bicubic or bilinear; give such a preprocessing"
        )
    return {
        "size": height,
        "mode": "RGB",
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "interpolation": preprocessing.interpolation,
        "resize_mode": "shortest",
    }


def load_clip(folder: Path, quick_gelu: bool | None = None) -> LoadedClip:
    """Return the image-text model of a folder, in evaluation mode.

    ``quick_gelu``: whether it was trained with OpenAI's approximation, where that is known better than by its folder.

    Raises:
        InputError: when a file is missing, pickled or no model's, when they do not fit each other, when the tokenizer
            would be fetched, or when a library has security holes.
        VerificationError: when a file is not the one that the run's manifest or the card names by its hash.
        MachineError: when it does not fit into memory.
    """
    refuse_old_libraries()
    folder = Path(folder)
    if not (folder / CLIP_CONFIG).is_file():
        raise InputError(f"{folder}: {CLIP_CONFIG} is missing; give the folder of an open_clip model")
    check_safetensors(folder / CLIP_WEIGHTS)
    stated = stated_hashes(folder, CLIP_CONFIG, CLIP_WEIGHTS)
    data = {name: read_verified(folder / name, stated[name]) for name in (CLIP_CONFIG, CLIP_WEIGHTS)}
    value = json_value(folder / CLIP_CONFIG, data[CLIP_CONFIG], "an open_clip model")
    config = parse_clip_config(value, str(folder / CLIP_CONFIG))
    if quick_gelu is not None:
        config = config.model_copy(update={"model_cfg": _with_activation(config.model_cfg, quick_gelu)})
    model = _filled(folder, config.model_cfg, data[CLIP_WEIGHTS]).eval()
    return LoadedClip(model, config, sha256_bytes(data[CLIP_WEIGHTS]), sha256_bytes(data[CLIP_CONFIG]))


def _with_activation(config: ClipModelConfig, quick_gelu: bool) -> ClipModelConfig:
    return ClipModelConfig.model_validate_json(canonical_json(config.arguments | {"quick_gelu": quick_gelu}))


def _filled(folder: Path, config: ClipModelConfig, weights: bytes) -> nn.Module:
    """Return the model of the configuration with exactly these weights.

    Raises:
        InputError: when they do not make one.
    """
    # Whatever the libraries raise about what the files hold means the same for the user; a full memory does not.
    try:
        tensors = load(weights)
        _refuse_others(config, tensors)
        model = build_from_config(config)
        refuse_other_types(model, tensors)
        model.load_state_dict(tensors, strict=True)
    except (SafetensorError, *REFUSALS) as error:
        if isinstance(as_synclones_error(error), MachineError):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"{folder}: {CLIP_CONFIG} and {CLIP_WEIGHTS} do not make a model ({reason}); export it again"
        ) from None
    return model


def _refuse_others(config: ClipModelConfig, tensors: dict[str, Tensor]) -> None:
    """Refuse a model that does not have exactly tensors of these shapes, before building it takes any memory."""
    layers = config.vision_cfg.layers
    blocks = config.text_cfg.layers + (layers if isinstance(layers, int) else sum(layers))
    # A named architecture of timm has its own number of blocks, whatever the entry says that open_clip passes over.
    if blocks > len(tensors) and config.vision_cfg.timm_model_name is None:
        raise ValueError(f"{blocks} blocks, the weights have {len(tensors)} tensors")
    if config.text_cfg.layers > len(tensors):
        raise ValueError(f"text_cfg.layers is {config.text_cfg.layers}, the weights have {len(tensors)} tensors")
    with torch.device("meta"):
        expected = {name: list(tensor.shape) for name, tensor in build_from_config(config).state_dict().items()}
    if surplus := sorted(tensors.keys() ^ expected.keys()):
        whose = "the weights" if surplus[0] in tensors else "the configuration"
        raise ValueError(f"{surplus[0]} is in {whose} alone")
    for name, shape in expected.items():
        if list(tensors[name].shape) != shape:
            raise ValueError(f"{name} is {list(tensors[name].shape)}, the configuration makes it {shape}")
