"""Reads the files of LoRAs as the trainers write them: tensors under peft's names, and each layer's factor alpha/rank.

In: a safetensors file in the keys of kohya's trainer, of diffusers or of peft (with its ``adapter_config.json``). Out:
`LoraLayers`. Factors are read here, layer by layer, because diffusers guesses them from what most layers have.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synclones.base.errors import InputError
from synclones.base.json_file import parse_json
from synclones.base.weights import read_model_json
from synclones.generate.generators.families import FAMILIES
from synclones.generate.generators.model import ModelFolder

if TYPE_CHECKING:
    import torch

PARTS = ("unet", "text_encoder", "text_encoder_2")
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PEFT_PREFIX = "base_model.model."
_KOHYA_PREFIXES = ("lora_unet_", "lora_te")
_DIFFUSERS_CONFIG = "lora_adapter_metadata"  # in the header of a file that diffusers' own trainers wrote
# Initialisations that leave the model's weights as they are; the others (PiSSA, OLoRA, LoftQ, ...) need changed ones.
_PLAIN_INITIALISATIONS = (True, False, "gaussian", "eva", "orthogonal")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class LoraLayers:
    """The layers of a LoRA on a pipeline."""

    tensors: dict[str, "torch.Tensor"]
    """part.module.lora_A.weight, part.module.lora_B.weight -> their values."""
    scales: dict[str, float]
    """part.module -> the factor of its B times A, alpha / rank; 1 where the file gives no alpha."""

    @property
    def shapes(self) -> dict[str, dict[str, Shape]]:
        """part.module -> lora_A, lora_B (and what else there is) -> shape."""
        shapes: dict[str, dict[str, Shape]] = {}
        for key, tensor in self.tensors.items():
            layer, end = split_key(key)
            shapes.setdefault(layer, {})[end] = tuple(tensor.shape)
        return shapes


def split_key(key: str) -> tuple[str, str]:
    """Return ``unet.mid.to_q.lora_A.weight`` as its layer ``unet.mid.to_q`` and ``lora_A``."""
    layer, _, end = key.removesuffix(".weight").rpartition(".")
    return (layer, end) if layer else (end, "")


def read_lora(file: Path, model: ModelFolder, kind: str, weights: dict[str, Shape]) -> LoraLayers:
    """Read a file that `base.weights.check_safetensors` has passed.

    Args:
        kind: the pipeline that draws.
        weights: part.module.weight -> shape of the model's own weights.

    Raises:
        InputError: for keys of no known style, or a factor that is missing, no number, or of another method than LoRA.
    """
    tensors, stated = _load(file)
    if any(key.startswith(_PEFT_PREFIX) for key in tensors):
        return _of_peft(file, tensors, weights)
    if any(key.startswith(_KOHYA_PREFIXES) for key in tensors):
        return _of_kohya(file, tensors, model, kind)
    return _of_diffusers(file, _with_peft_keys(file, tensors, model, kind), stated)


def _load(file: Path) -> tuple[dict[str, Any], str]:
    """Return the tensors, and what the header holds of diffusers' own."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - it is no dictionary
            return tensors, (opened.metadata() or {}).get(_DIFFUSERS_CONFIG, "{}")
    except SafetensorError as error:
        raise InputError(f"--lora: {file}: {str(error)[:200]}; copy it again") from None


def _of_kohya(file: Path, tensors: dict[str, Any], model: ModelFolder, kind: str) -> LoraLayers:
    """Read ``NAME.lora_down.weight``, ``NAME.lora_up.weight`` and ``NAME.alpha``."""
    import torch

    alphas = {key.removesuffix(".alpha"): value for key, value in tensors.items() if key.endswith(".alpha")}
    weights = {key: value for key, value in tensors.items() if not key.endswith(".alpha")}
    # Diffusers alone knows how it renames a layer, so a second copy of the file is renamed whose tensors are factors.
    factors = {}
    for key, value in weights.items():
        name = key.partition(".")[0]
        down = weights.get(f"{name}.lora_down.weight")
        factor = 1.0 if name not in alphas or down is None else _factor(file, name, alphas[name], down.shape[0])
        factors[key] = torch.full_like(value, factor, dtype=torch.float64)
    if homeless := [name for name in alphas if f"{name}.lora_down.weight" not in weights]:
        raise InputError(f"--lora: {file.name}: {homeless[0]} has an alpha and no weights; give the whole file")
    scales = {
        split_key(key)[0]: value.flatten()[0].item()
        for key, value in _with_peft_keys(file, factors, model, kind).items()
        if value.numel()
    }
    return LoraLayers(_with_peft_keys(file, weights, model, kind), scales)


def _factor(file: Path, name: str, alpha: Any, rank: int) -> float:
    factor = alpha.item() / rank if alpha.numel() == 1 and rank else 0.0
    if not factor or not math.isfinite(factor):
        raise InputError(f"--lora: {file.name}: the alpha of {name} is no number other than 0; give another file")
    return factor


def _of_diffusers(file: Path, tensors: dict[str, Any], stated: str) -> LoraLayers:
    """Read keys that begin with the part; the header may hold ``unet.lora_alpha`` and the like for each part."""
    try:
        config = parse_json(stated)
        own = {part: _with_prefix_removed(config, f"{part}.") for part in PARTS}
    except (ValueError, AttributeError):
        raise InputError(f"--lora: {file.name}: {_DIFFUSERS_CONFIG} in its header is damaged; copy it again") from None
    scales = {}
    for key, value in tensors.items():
        layer, end = split_key(key)
        part, _, module = layer.partition(".")
        if end == "lora_A":
            scales[layer] = _stated_factor(file, own.get(part, {}), module, value.shape[0])
    return LoraLayers(tensors, scales)


def _of_peft(file: Path, tensors: dict[str, Any], weights: dict[str, Shape]) -> LoraLayers:
    """Read what peft's ``save_pretrained`` writes: no part is named, so it is the one that has all the modules."""
    if not (file.parent / PEFT_CONFIG).is_file():
        raise InputError(f"--lora: {file}: {PEFT_CONFIG} is missing beside it, which states its alpha; copy it there")
    config = read_model_json(file.parent / PEFT_CONFIG)
    _refuse_other_methods(file, config)
    plain = _with_prefix_removed(tensors, _PEFT_PREFIX)
    modules = {split_key(key)[0] for key in plain}
    part = next((p for p in PARTS if all(f"{p}.{unprefixed(m)}.weight" in weights for m in modules)), PARTS[0])
    scales = {
        f"{part}.{split_key(key)[0]}": _stated_factor(file, config, split_key(key)[0], value.shape[0])
        for key, value in plain.items()
        if split_key(key)[1] == "lora_A"
    }
    return LoraLayers({f"{part}.{key}": value for key, value in plain.items()}, scales)


def _refuse_other_methods(file: Path, config: dict[str, Any]) -> None:
    """Refuse adapters whose sum with the model's own weights is not B times A times a factor."""
    wanted = {"peft_type": "LORA", "use_dora": False, "fan_in_fan_out": False}
    for name, value in wanted.items():
        if config.get(name, value) not in (value, None):
            raise InputError(f"--lora: {file.parent / PEFT_CONFIG}: {name} is {config[name]!r}; give a plain LoRA")
    begun = config.get("init_lora_weights", True)
    if begun not in _PLAIN_INITIALISATIONS:
        raise InputError(
            f"--lora: {file.parent / PEFT_CONFIG}: init_lora_weights is {str(begun)[:40]!r}, which changes the model's "
            "own weights too; convert it to a plain LoRA (peft: save_pretrained with path_initial_model_for_...)"
        )


def _stated_factor(file: Path, config: dict[str, Any], module: str, rank: int) -> float:
    """Return alpha / rank, or alpha / sqrt(rank) with ``use_rslora`` (Kalajdzievski 2023, arXiv 2312.03732).

    ``rank_pattern`` and ``alpha_pattern`` hold expressions for the ends of module names; the first that fits counts.
    """
    if "lora_alpha" not in config and "r" not in config:
        return 1.0
    stated_rank = _of_module(file, config.get("rank_pattern"), module, config.get("r", 8))
    alpha = _of_module(file, config.get("alpha_pattern"), module, config.get("lora_alpha", 8))
    if stated_rank != rank:
        raise InputError(
            f"--lora: {file.name}: {module} has rank {rank}, its configuration states {stated_rank}; copy it again"
        )
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _of_module(file: Path, pattern: Any, module: str, default: Any) -> float:
    """Return the value for a module; a number other than 0."""
    try:
        fits = (value for key, value in (pattern or {}).items() if re.match(rf"(.*\.)?({key})$", module))
        value = next(fits, default)
    except (re.error, AttributeError):
        raise InputError(f"--lora: {file.name}: its configuration has a pattern that is none; copy it again") from None
    if type(value) not in (int, float) or not value or not math.isfinite(value):
        raise InputError(f"--lora: {file.name}: {module} has {str(value)[:40]!r} as rank or alpha; expected a number")
    return float(value)


def _with_peft_keys(file: Path, tensors: dict[str, Any], model: ModelFolder, kind: str) -> dict[str, Any]:
    """Return the tensors under the keys of peft, converted by the functions that diffusers itself calls."""
    import diffusers
    from diffusers.configuration_utils import FrozenDict
    from diffusers.utils import state_dict_utils as convert

    more = {"unet_config": FrozenDict(model.configs["unet"])} if FAMILIES[kind].lora_needs_unet_config else {}
    try:
        pipeline = getattr(diffusers, kind)
        state = pipeline.lora_state_dict(dict(tensors), **more)[0]
        renamed = {key: value for key, value in state.items() if not key.startswith(tuple(f"{p}." for p in PARTS))}
        for part in PARTS:
            own = _with_prefix_removed(state, f"{part}.")
            if own and part == "unet":
                own = convert.convert_unet_state_dict_to_peft(own)
            elif own:
                own = convert.convert_state_dict_to_peft(convert.convert_state_dict_to_diffusers(own))
            renamed |= {f"{part}.{key}": value for key, value in own.items()}
    except (ValueError, KeyError, IndexError) as error:
        reason = str(error).strip().splitlines()[0][:100]
        raise InputError(f"--lora: {file.name}: its keys are of no known style ({reason}); give another file") from None
    return renamed


def _with_prefix_removed(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def unprefixed(module: str) -> str:
    """Return the name without the prefix that CLIP's text model lost in transformers 5."""
    return module.removeprefix("text_model.")
