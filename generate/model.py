"""Finds a Stable Diffusion, checks that it is whole and safe to load, and loads it.

In: a folder in the diffusers layout, or a hub id with a revision. Out: `ModelFolder` (where, and the hash of what
matters), then a ``StableDiffusionPipeline``. Everything that can be refused is refused before a weight is read:
safetensors only, no code of the repository, no safety checker (its black pictures must never pass for data).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synclones.errors import InputError
from synclones.manifest import sha256_file
from synclones.weights import check_safetensors, find_folder, read_model_json

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

PIPELINE_CLASS = "StableDiffusionPipeline"
COMPONENTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
SAFE_LIBRARIES = ("diffusers", "transformers")
WEIGHT_FILES = {
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
FILES_WANTED = ["model_index.json", *(f"{name}/*" for name in COMPONENTS)]


@dataclass(frozen=True)
class ModelFolder:
    """A checked model: its name for people, where it lies, its hub revision ("" for a folder), its content hash."""

    name: str
    path: Path
    revision: str
    sha256: str


def find_model(model: str, revision: str = "") -> ModelFolder:
    """Check the folder ``model``, or fetch the hub id ``model``, and hash what decides its pictures.

    Raises:
        InputError: no such folder and no hub id; a file is missing; another kind of pipeline; pickled weights only.
        MachineError: the hub does not answer and the model is not in its cache.
    """
    folder, commit = find_folder(model, revision, FILES_WANTED)
    name = model if commit else folder.resolve().name
    return ModelFolder(name, folder, commit, _content_hash(folder, _check_folder(folder)))


def _check_folder(folder: Path) -> dict[str, Any]:
    """Refuse a folder that is incomplete, of another kind, or that would run code; return its index."""
    index = read_model_json(folder / "model_index.json")
    kind = index.get("_class_name")
    if kind != PIPELINE_CLASS:
        raise InputError(f"{folder}/model_index.json: _class_name is {kind!r}, expected {PIPELINE_CLASS!r}")
    for name in COMPONENTS:
        library = (index.get(name) or [None])[0]
        if library not in SAFE_LIBRARIES:
            raise InputError(
                f"{folder}/model_index.json: {name} comes from {library!r}, expected diffusers or transformers"
            )
        if not (folder / name).is_dir():
            raise InputError(f"{folder}: the folder {name}/ is missing; copy the whole model")
    for name, weights in WEIGHT_FILES.items():
        read_model_json(folder / name / "config.json")
        check_safetensors(folder / name / weights)
    read_model_json(folder / "scheduler" / "scheduler_config.json")
    tokenizer = folder / "tokenizer"
    if not (tokenizer / "tokenizer.json").is_file() and not (tokenizer / "vocab.json").is_file():
        raise InputError(f"{tokenizer}: neither tokenizer.json nor vocab.json is there; copy the whole model")
    return index


def _content_hash(folder: Path, index: dict[str, Any]) -> str:
    """SHA-256 over the names and hashes of the files that decide a picture; cards and caches do not count."""
    used = [folder / "model_index.json"]
    for name in COMPONENTS:
        files = sorted(p for p in (folder / name).iterdir() if p.suffix in (".json", ".txt", ".safetensors"))
        used += [p for p in files if p.suffix != ".safetensors" or p.name == WEIGHT_FILES.get(name)]
    lines = [f"{sha256_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in used]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def scheduler_class(folder: ModelFolder, override: str) -> str:
    """The class name of the sampler: the model's own, or the diffusers scheduler that ``override`` names."""
    if not override:
        own = read_model_json(folder.path / "model_index.json")["scheduler"][1]
        return str(own)
    import diffusers

    known = sorted(n for n in dir(diffusers.schedulers) if n.endswith("Scheduler") and "Flax" not in n)
    if override not in known:
        from difflib import get_close_matches

        near = get_close_matches(override, known, 1, 0.4)
        hint = f"; did you mean {near[0]!r}?" if near else "; see diffusers' documentation of schedulers"
        raise InputError(f"--scheduler: {override!r} is not a scheduler of diffusers{hint}")
    return override


def native_size_px(folder: ModelFolder) -> int:
    """The side of the square picture the model was trained for, in px: latent size times the VAE's stride."""
    unet, vae = (read_model_json(folder.path / name / "config.json") for name in ("unet", "vae"))
    return int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)


def load_pipeline(folder: ModelFolder, scheduler: str, dtype: str, device: str) -> "StableDiffusionPipeline":
    """Load the checked model in ``dtype`` (a torch name) on ``device``, convolutions in channels_last."""
    import diffusers
    import torch
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        folder.path,
        **{_dtype_argument(): getattr(torch, dtype)},
        use_safetensors=True,
        local_files_only=True,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    for module in (pipeline.unet, pipeline.vae):
        module.to(memory_format=torch.channels_last)
    return pipeline.to(device)


def _dtype_argument() -> str:
    """diffusers 0.40 renamed ``torch_dtype`` to ``dtype``."""
    from diffusers import __version__
    from packaging.version import Version

    return "dtype" if Version(__version__) >= Version("0.40") else "torch_dtype"
