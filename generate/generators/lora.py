"""A LoRA (Hu et al. 2021, arXiv 2106.09685) on a Stable Diffusion: found, checked against the model, fused into it.

In: a folder, a file or a hub id with the name of a safetensors file. Out: `Lora`; a loaded pipeline with the LoRA in
its weights and nowhere else. Whether the model has a weight for every tensor is known before the model is loaded.
"""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synclones.base.errors import InputError
from synclones.base.files import files_sha256, sha256_file
from synclones.base.weights import check_safetensors, find_folder, tensor_shapes, weight_files
from synclones.generate.generators.families import FAMILIES, families_with
from synclones.generate.generators.lora_file import (
    PARTS,
    PEFT_CONFIG,
    PEFT_FILE,
    LoraLayers,
    Shape,
    read_lora,
    split_key,
    unprefixed,
)
from synclones.generate.generators.model import WEIGHT_FILE, ModelFolder

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

DEFAULT_FILE = "pytorch_lora_weights.safetensors"  # diffusers' own name


@dataclass(frozen=True)
class Lora:
    """A checked LoRA: its name for people, its file, its content hash, and the factor it is added with."""

    name: str
    file: Path
    sha256: str
    scale: float
    layers: LoraLayers = field(compare=False, repr=False)


def find_lora(given: str, scale: float, model: ModelFolder, kind: str) -> Lora:
    """Check ``FOLDER_OR_HUB_ID[:FILE]`` and whether it fits the model, of which only headers are read.

    ``kind``: the pipeline that draws.

    Raises:
        InputError: no peft; no such file; pickled or cut weights; another kind of model; a tensor without a
            weight in the model; a layer whose factor is not known.
        MachineError: the hub does not answer and the file is not in its cache.
    """
    if not FAMILIES[kind].lora:
        choice = families_with("img2img").replace(" and ", " or ")
        raise InputError(f"--lora: a {kind} takes none here; choose a model of {choice}")
    if importlib.util.find_spec("peft") is None:
        raise InputError("--lora: needs the library peft, which is not installed; run: pip install 'synclones[lora]'")
    name, file = _find_file(given)
    check_safetensors(file)
    if any("dora_scale" in key for key in tensor_shapes(file)):
        raise InputError(f"--lora: {file.name} is a DoRA, of which diffusers would use a part; give a LoRA")
    weights = _weight_shapes(model)
    layers = read_lora(file, model, kind, weights)
    _check_fit(file, layers, model, weights)
    return Lora(name, file, _content_hash(file), scale, layers)


def _find_file(given: str) -> tuple[str, Path]:
    """Return the name for people, and the file."""
    path = Path(given)
    if path.is_file():
        return path.name, path
    source, _, wanted = (given, "", "") if path.is_dir() else given.partition(":")
    folder, commit = find_folder(source, "", [wanted] if wanted else [DEFAULT_FILE, PEFT_FILE, PEFT_CONFIG], "--lora")
    files = sorted(file.name for file in folder.glob("*.safetensors"))
    chosen = wanted or (files[0] if len(files) == 1 else DEFAULT_FILE)
    if chosen not in files:
        content = f"it holds {', '.join(files[:5])}" if files else "it holds no safetensors; pickles are never loaded"
        raise InputError(f"--lora: no {chosen} in {source} ({content}); give --lora {source}:FILE.safetensors")
    return (f"{source}:{chosen}" if commit else f"{folder.resolve().name}:{chosen}"), folder / chosen


def _content_hash(file: Path) -> str:
    """Return the hash of the file; of one of peft with the configuration that states its factors."""
    if not any(key.startswith("base_model.model.") for key in tensor_shapes(file)):
        return sha256_file(file)
    return files_sha256(file.parent, (file, file.parent / PEFT_CONFIG))


def _check_fit(file: Path, layers: LoraLayers, model: ModelFolder, weights: dict[str, Shape]) -> None:
    """Refuse tensors that the model has no weight of that name and shape for: diffusers would pass over them."""
    given = {_model_name(layer): shapes for layer, shapes in layers.shapes.items()}
    strangers = [name for name, shapes in given.items() if not _fits(shapes, weights.get(f"{name}.weight", ()))]
    if strangers or not given:
        counted = f"{len(strangers)} of its {len(given)} layers" + "".join(
            f" (such as {name})" for name in strangers[:1]
        )
        raise InputError(
            f"--lora: {file.name}: {counted} have no place in {model.name}; give a LoRA that was made for this model"
        )


def _fits(shapes: dict[str, Shape], weight: Shape) -> bool:
    """Return whether up times down has the shape of the weight, and there is nothing else."""
    down, up = shapes.get("lora_A", ()), shapes.get("lora_B", ())
    alike = len(shapes) == 2 and len(down) == len(up) == len(weight) > 1
    return alike and (up[0], *down[1:]) == weight and up[1] == down[0]


def _model_name(layer: str) -> str:
    """Return ``text_encoder.text_model.x`` as the model calls it."""
    part, _, module = layer.partition(".")
    return f"{part}.{unprefixed(module)}"


def _weight_shapes(model: ModelFolder) -> dict[str, Shape]:
    """Return part.module.weight -> shape, of all parts that a LoRA may be for."""
    shapes: dict[str, Shape] = {}
    for part in (part for part in PARTS if part in model.parts):
        for path in weight_files(model.path / part, WEIGHT_FILE[model.parts[part][0]]):
            for key, shape in tensor_shapes(path).items():
                shapes[f"{part}.{unprefixed(key)}"] = shape
    return shapes


def fuse(pipeline: "DiffusionPipeline", lora: Lora) -> None:
    """Add the LoRA to the weights of a loaded pipeline, as diffusers does, and take its layers out again.

    Raises:
        InputError: when diffusers would add anything but the tensors and factors of the file.
    """
    pipe: Any = pipeline
    # Without alphas, so that no factor is guessed; with lora_A first, by which diffusers knows the keys of peft.
    pipe.load_lora_weights(dict(sorted(lora.layers.tensors.items())))
    _settle_factors(pipe, lora)
    pipe.fuse_lora(lora_scale=lora.scale)
    pipe.unload_lora_weights()


def _settle_factors(pipe: Any, lora: Lora) -> None:
    """Give every loaded layer the factor of the file, and compare its tensors with the file's."""
    from peft.tuners.lora import LoraLayer

    tensors = {_model_name(split_key(key)[0]) + "." + split_key(key)[1]: t for key, t in lora.layers.tensors.items()}
    scales = {_model_name(layer): scale for layer, scale in lora.layers.scales.items()}
    for part in (part for part in PARTS if getattr(pipe, part, None) is not None):
        for name, module in getattr(pipe, part).named_modules():
            layer = f"{part}.{unprefixed(name)}"
            if not isinstance(module, LoraLayer) or layer not in scales:
                continue
            (adapter,) = module.scaling
            module.scaling[adapter] = scales.pop(layer)
            loaded = ((end, getattr(module, end)[adapter].weight) for end in ("lora_A", "lora_B"))
            if not all(_alike(weight, tensors[f"{layer}.{end}"]) for end, weight in loaded):
                raise InputError(
                    f"--lora: {lora.file.name}: diffusers loads {layer} with other weights; give another file"
                )
    if scales:
        raise InputError(f"--lora: {lora.file.name}: diffusers passes over {next(iter(scales))}; give another file")


def _alike(loaded: "torch.Tensor", stored: "torch.Tensor") -> bool:
    """Return whether they are equal but for the rounding of the loaded one's number format."""
    difference = (loaded.float() - stored.to(loaded.device).float()).abs().max()
    return bool(difference <= 0.01 * stored.float().abs().max())
