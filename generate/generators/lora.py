"""A LoRA (Hu et al. 2021, arXiv 2106.09685) on a Stable Diffusion: found, checked against the model, fused into it.

In: a folder, a file or a hub id with the name of a safetensors file. Out: `Lora`; a loaded pipeline with the LoRA in
its weights and nowhere else. Whether the model has a weight for every tensor is read from the headers of both.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synclones.base.errors import InputError
from synclones.base.files import sha256_file
from synclones.base.weights import check_safetensors, find_folder, tensor_shapes, weight_files
from synclones.generate.generators.families import FAMILIES, families_with
from synclones.generate.generators.model import WEIGHT_FILE, ModelFolder

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

DEFAULT_FILE = "pytorch_lora_weights.safetensors"  # diffusers' own name
PARTS = ("unet", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Lora:
    """A checked LoRA: its name for people, its file, its content hash, and the factor it is added with."""

    name: str
    file: Path
    sha256: str
    scale: float


def find_lora(given: str, scale: float, model: ModelFolder, kind: str) -> Lora:
    """Check ``FOLDER_OR_HUB_ID[:FILE]`` and whether it fits the model, of which only headers are read.

    ``kind``: the pipeline that draws.

    Raises:
        InputError: no peft; no such file; pickled or cut weights; another kind of model; a tensor without a
            weight in the model.
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
    _check_fit(file, model, kind)
    return Lora(name, file, sha256_file(file), scale)


def _find_file(given: str) -> tuple[str, Path]:
    """Return the name for people, and the file."""
    path = Path(given)
    if path.is_file():
        return path.name, path
    source, _, wanted = (given, "", "") if path.is_dir() else given.partition(":")
    folder, commit = find_folder(source, "", [wanted or DEFAULT_FILE], "--lora")
    files = sorted(file.name for file in folder.glob("*.safetensors"))
    chosen = wanted or (files[0] if len(files) == 1 else DEFAULT_FILE)
    if chosen not in files:
        content = f"it holds {', '.join(files[:5])}" if files else "it holds no safetensors; pickles are never loaded"
        raise InputError(f"--lora: no {chosen} in {source} ({content}); give --lora {source}:FILE.safetensors")
    return (f"{source}:{chosen}" if commit else f"{folder.resolve().name}:{chosen}"), folder / chosen


Shape = tuple[int, ...]


def _check_fit(file: Path, model: ModelFolder, kind: str) -> None:
    """Refuse tensors that the model has no weight of that name and shape for: diffusers would pass over them."""
    layers = _lora_layers(file, model, kind)
    weights: dict[str, Shape] = {}
    for part in PARTS:
        weights |= _weight_shapes(model, part) if part in model.parts else {}
    strangers = [name for name, shapes in layers.items() if not _fits(shapes, weights.get(f"{name}.weight", ()))]
    if strangers or not layers:
        counted = f"{len(strangers)} of its {len(layers)} layers" + "".join(
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


def _lora_layers(file: Path, model: ModelFolder, kind: str) -> dict[str, dict[str, Shape]]:
    """Return part.module -> lora_A, lora_B -> shape, of any of the key styles that diffusers converts."""
    layers: dict[str, dict[str, Shape]] = {}
    for key, tensor in _as_peft(file, model, kind).items():
        part, _, rest = key.partition(".")
        module, _, end = rest.removesuffix(".weight").rpartition(".")
        layers.setdefault(f"{part}.{_unprefixed(module)}", {})[end] = tuple(tensor.shape)
    return layers


def _as_peft(file: Path, model: ModelFolder, kind: str) -> dict[str, Any]:
    """Return the tensors under the keys of peft, converted by the functions that diffusers itself calls."""
    import diffusers
    from diffusers.configuration_utils import FrozenDict
    from diffusers.utils import state_dict_utils as convert

    more = {"unet_config": FrozenDict(model.configs["unet"])} if FAMILIES[kind].lora_needs_unet_config else {}
    try:
        pipeline = getattr(diffusers, kind)
        state = pipeline.lora_state_dict(file.parent, weight_name=file.name, use_safetensors=True, **more)[0]
        tensors = {key: value for key, value in state.items() if not key.startswith(tuple(f"{p}." for p in PARTS))}
        for part in PARTS:
            own = {key.removeprefix(f"{part}."): value for key, value in state.items() if key.startswith(f"{part}.")}
            if own and part == "unet":
                own = convert.convert_unet_state_dict_to_peft(own)
            elif own:
                own = convert.convert_state_dict_to_peft(convert.convert_state_dict_to_diffusers(own))
            tensors |= {f"{part}.{key}": value for key, value in own.items()}
    except (ValueError, KeyError, IndexError) as error:
        reason = str(error).strip().splitlines()[0][:100]
        raise InputError(f"--lora: {file.name}: its keys are of no known style ({reason}); give another file") from None
    return tensors


def _unprefixed(module: str) -> str:
    """Return the name without the prefix that CLIP's text model lost in transformers 5."""
    return module.removeprefix("text_model.")


def _weight_shapes(model: ModelFolder, part: str) -> dict[str, Shape]:
    """Return part.module.weight -> shape."""
    shapes: dict[str, Shape] = {}
    for path in weight_files(model.path / part, WEIGHT_FILE[model.parts[part][0]]):
        for key, shape in tensor_shapes(path).items():
            shapes[f"{part}.{_unprefixed(key)}"] = shape
    return shapes


def fuse(pipeline: "DiffusionPipeline", lora: Lora) -> None:
    """Add the LoRA to the weights of a loaded pipeline, as diffusers does, and take its layers out again."""
    pipe: Any = pipeline
    pipe.load_lora_weights(lora.file.parent, weight_name=lora.file.name, use_safetensors=True, local_files_only=True)
    if not pipe.get_active_adapters():
        raise InputError(f"--lora: {lora.file.name}: diffusers found nothing in it for this model; give another file")
    pipe.fuse_lora(lora_scale=lora.scale)
    pipe.unload_lora_weights()
