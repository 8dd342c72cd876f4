"""Finds a model of diffusers that draws from texts or images, checks that it is whole and safe to load, and loads it.

In: a folder in the diffusers layout, or a hub id with a revision. Out: `ModelFolder` (where, and the hash of what
matters), then a pipeline. Everything that can be refused is refused before a weight is read: safetensors only, no code
of the repository, no safety checker (its black pictures must never pass for data), no watermark.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synclones.base.errors import InputError
from synclones.base.files import files_sha256
from synclones.base.weights import check_safetensors, find_folder, read_model_json, weight_files

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from synclones.generate.generators.lora import Lora
    from synclones.generate.generators.tiny_vae import TinyVae

INDEX_FILE = "model_index.json"
_ALWAYS = ("scheduler", "text_encoder", "tokenizer", "vae")
_TWO_ENCODERS = (*_ALWAYS, "text_encoder_2", "tokenizer_2")
_SEES = ("feature_extractor", "image_encoder")
# Text-to-image pipelines that draw from prompts and one generator per picture, with the parts they cannot do without.
PIPELINES = {
    "StableDiffusionPipeline": (*_ALWAYS, "unet"),  # SD 1.x and 2.x, SD-Turbo
    "StableDiffusionXLPipeline": (*_TWO_ENCODERS, "unet"),  # SDXL, SDXL-Turbo
    "StableDiffusion3Pipeline": (*_TWO_ENCODERS, "transformer"),  # its third encoder may be left out
    "LatentConsistencyModelPipeline": (*_ALWAYS, "unet"),
    "PixArtSigmaPipeline": (*_ALWAYS, "transformer"),
    "SanaPipeline": (*_ALWAYS, "transformer"),
    "FluxPipeline": (*_TWO_ENCODERS, "transformer"),
    # From a real image: its noised latents (its strength says how far), or its embedding.
    "StableDiffusionImg2ImgPipeline": (*_ALWAYS, "unet"),
    "StableDiffusionXLImg2ImgPipeline": (
        "scheduler",
        "text_encoder_2",
        "tokenizer_2",
        "vae",
        "unet",
    ),  # and the refiner
    "StableUnCLIPImg2ImgPipeline": (*_ALWAYS, *_SEES, "image_normalizer", "image_noising_scheduler", "unet"),
    "StableDiffusionImageVariationPipeline": ("scheduler", "vae", *_SEES, "unet"),
}
# Text-to-image pipelines whose models also draw on from an image.
IMG2IMG = {
    "StableDiffusionPipeline": "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLImg2ImgPipeline",
}
SEES_IMAGES = ("StableUnCLIPImg2ImgPipeline", "StableDiffusionImageVariationPipeline")
# LCM's guidance is an input of its network, FLUX's too: there is nothing that a negative prompt could be taken from.
WITHOUT_NEGATIVE_PROMPT = ("LatentConsistencyModelPipeline", "FluxPipeline", "StableDiffusionImageVariationPipeline")
# Drawn by `denoise.py`.
OWN_LOOP = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
SAFE_LIBRARIES = ("diffusers", "transformers")
# The classes that each part may be of: a name such as AutoModel or DiffusionPipeline would choose another by itself.
_TEXT_ENCODER = r"(CLIPText|T5Encoder|UMT5Encoder|Gemma)\w*"
_TOKENIZER = r"(CLIP|T5|Gemma|PreTrained)Tokenizer(Fast)?|TokenizersBackend"  # the last: transformers 5 for any
PART_CLASSES = {
    **{name: r"\w+Scheduler" for name in ("scheduler", "image_noising_scheduler")},
    **{f"text_encoder{n}": _TEXT_ENCODER for n in ("", "_2", "_3")},
    **{f"tokenizer{n}": _TOKENIZER for n in ("", "_2", "_3")},
    "unet": "UNet2DConditionModel",
    "transformer": r"\w*Transformer2DModel",
    "vae": r"\w*Autoencoder\w+",
    "feature_extractor": r"CLIP(ImageProcessor|FeatureExtractor)\w*",
    "image_encoder": r"CLIPVisionModel\w*",
    "image_normalizer": "StableUnCLIPImageNormalizer",
}
NORMALIZER = ("stable_diffusion", "StableUnCLIPImageNormalizer")  # diffusers' own, named by its folder
# Parts that never draw: black pictures for suspected nudity, marks in pixels, and what only image prompts need.
UNUSED = ("safety_checker", *_SEES)
_DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
WEIGHT_FILE = {"diffusers": _DIFFUSERS_WEIGHTS, "transformers": "model.safetensors", NORMALIZER[0]: _DIFFUSERS_WEIGHTS}
_FOLDERS = (
    "scheduler",
    "unet",
    "transformer",
    "vae",
    *(*_SEES, "image_normalizer", "image_noising_scheduler"),
    *(f"{k}{n}" for k in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")),
)
# What is fetched: no pickles, nor the copies in other formats that many repositories hold beside them.
FILES_WANTED = [
    INDEX_FILE,
    *(f"{folder}/*.{suffix}" for folder in _FOLDERS for suffix in ("json", "txt", "model", "safetensors")),
]


@dataclass(frozen=True)
class ModelFolder:
    """A checked model: its name for people, where it lies, its hub revision ("" for a folder), its content hash."""

    name: str
    path: Path
    revision: str
    sha256: str
    kind: str = ""
    """The pipeline that draws with it when that is another than it names itself."""
    lora: "Lora | None" = None
    """What is fused into its weights."""
    tiny_vae: "TinyVae | None" = None
    """What decodes in place of its own autoencoder."""
    token_merging: float = 0.0
    """Share of the tokens that its largest self-attentions do not see."""


def find_model(model: str, revision: str = "") -> ModelFolder:
    """Check the folder ``model``, or fetch the hub id ``model``, and hash what decides its pictures.

    Raises:
        InputError: no such folder and no hub id; a file is missing; another kind of pipeline; pickled weights only.
        MachineError: the hub does not answer and the model is not in its cache.
    """
    folder, commit = find_folder(model, revision, FILES_WANTED)
    name = model if commit else folder.resolve().name
    return ModelFolder(name, folder, commit, _content_hash(folder, _check_folder(folder)))


def components(folder: Path) -> dict[str, tuple[str, str]]:
    """name -> (library, class) of every part that is used. Raises InputError for a pipeline that is none of ours."""
    index = read_model_json(folder / INDEX_FILE)
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in PIPELINES:
        shown = repr(kind)[:80]
        raise InputError(f"{folder}/{INDEX_FILE}: _class_name is {shown}, expected one of {', '.join(PIPELINES)}")
    unused = _unused(kind)
    listed = {name: part for name, part in index.items() if isinstance(part, list) and name not in unused}
    parts = {name: (str(part[0]), str(part[1])) for name, part in listed.items() if len(part) == 2 and part[0]}
    if missing := [name for name in PIPELINES[kind] if name not in parts]:
        raise InputError(f"{folder}/{INDEX_FILE}: names no {missing[0]}, which a {kind} needs; copy the whole model")
    return parts


def _check_folder(folder: Path) -> dict[str, tuple[str, str]]:
    """Refuse a folder that is incomplete, of another kind, or that would run code; return its parts."""
    parts = components(folder)
    for name, (library, part) in parts.items():
        if library not in SAFE_LIBRARIES and (library, part) != NORMALIZER:
            raise InputError(
                f"{folder}/{INDEX_FILE}: {name} comes from {library!r}, expected {' or '.join(SAFE_LIBRARIES)}"
            )
        if not re.fullmatch(PART_CLASSES.get(name, "none"), part):
            raise InputError(f"{folder}/{INDEX_FILE}: {name[:40]!r} of class {part[:80]!r} is no part of a known model")
        if not (folder / name).is_dir():
            raise InputError(f"{folder}: the folder {name}/ is missing; copy the whole model")
        if _has_weights(name):
            read_model_json(folder / name / "config.json")
            for path in weight_files(folder / name, WEIGHT_FILE[library]):
                check_safetensors(path)
        elif not name.startswith("tokenizer"):
            kind = "scheduler" if name.endswith("scheduler") else "preprocessor"
            read_model_json(folder / name / f"{kind}_config.json")
        elif not any((folder / name / file).is_file() for file in ("tokenizer.json", "vocab.json", "spiece.model")):
            raise InputError(f"{folder / name}: neither tokenizer.json nor vocab.json is there; copy the whole model")
    return parts


def _has_weights(part: str) -> bool:
    return not part.startswith("tokenizer") and not part.endswith("scheduler") and part != "feature_extractor"


def _unused(kind: str) -> tuple[str, ...]:
    return UNUSED[:1] if kind in SEES_IMAGES else UNUSED


def _content_hash(folder: Path, parts: dict[str, tuple[str, str]]) -> str:
    """SHA-256 over the names and hashes of the files that decide a picture; cards and caches do not count."""
    used = [folder / INDEX_FILE]
    for name, (library, _) in sorted(parts.items()):
        files = (p for p in (folder / name).iterdir() if p.suffix in (".json", ".txt", ".model"))
        weights = weight_files(folder / name, WEIGHT_FILE[library]) if _has_weights(name) else ()
        used += sorted([*files, *weights])
    return files_sha256(folder, used)


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


def pipeline_class(folder: ModelFolder) -> str:
    """One of `PIPELINES`: the one that draws."""
    return folder.kind or str(read_model_json(folder.path / INDEX_FILE)["_class_name"])


def native_size_px(folder: ModelFolder) -> int:
    """The side of the square picture the model was trained for, in px: latent size times the VAE's stride."""
    parts = components(folder.path)
    network = read_model_json(folder.path / ("unet" if "unet" in parts else "transformer") / "config.json")
    # FLUX's transformer names no size; its pipeline takes 128 latents, 1024 px.
    return _number(network, "sample_size", 128, folder) * _vae_stride(folder)


def size_step_px(folder: ModelFolder) -> int:
    """What a side must be a multiple of, in px: the VAE's stride, times the transformer's patch."""
    parts = components(folder.path)
    kind = pipeline_class(folder)
    if "transformer" not in parts:
        return max(8, _vae_stride(folder))  # diffusers asks for 8 whatever the VAE
    patch = _number(read_model_json(folder.path / "transformer" / "config.json"), "patch_size", 1, folder)
    return _vae_stride(folder) * (2 if kind == "FluxPipeline" else patch)  # FLUX packs 2x2 latents


def _number(config: dict[str, Any], name: str, default: int, folder: ModelFolder) -> int:
    """A small number of a network's configuration, ``default`` where it says none. InputError for anything else."""
    found = config.get(name) or default
    if type(found) is not int or not 1 <= found <= 2**14:
        raise InputError(f"{folder.path}: {name} is {str(found)[:40]!r}, expected a small whole number")
    return found


def _vae_stride(folder: ModelFolder) -> int:
    vae = read_model_json(folder.path / "vae" / "config.json")
    channels = vae.get("block_out_channels") or vae.get("encoder_block_out_channels")
    if not isinstance(channels, list) or not 1 <= len(channels) <= 10:
        raise InputError(f"{folder.path}/vae/config.json: names no block_out_channels; copy the whole model")
    return 2 ** (len(channels) - 1)


def load_pipeline(folder: ModelFolder, scheduler: str, dtype: str, device: str) -> "DiffusionPipeline":
    """Load the checked model in ``dtype`` (a torch name) on ``device``, convolutions in channels_last."""
    import diffusers
    import torch
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    kind = pipeline_class(folder)
    how = {_dtype_argument(): getattr(torch, dtype), "use_safetensors": True, "local_files_only": True}
    pipeline = getattr(diffusers, kind).from_pretrained(folder.path, **how, **_parts_left_out(kind))
    _equip(pipeline, folder, how)
    pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    if dtype != "float16" and pipeline.vae.config.get("force_upcast"):
        # Upcasting is for float16, which overflows; it would change weights that other threads draw with.
        pipeline.vae.register_to_config(force_upcast=False)
    for module in (getattr(pipeline, "unet", None), pipeline.vae):
        if module is not None:
            module.to(memory_format=torch.channels_last)
    return pipeline.to(device)


def _equip(pipeline: "DiffusionPipeline", folder: ModelFolder, how: dict[str, Any]) -> None:
    """Put in what does not come with the model."""
    if folder.lora is not None:
        from synclones.generate.generators.lora import fuse

        fuse(pipeline, folder.lora)
    if folder.tiny_vae is not None:
        from synclones.generate.generators.tiny_vae import put_in

        put_in(pipeline, folder.tiny_vae, **how)
    if folder.token_merging:
        from synclones.generate.generators.token_merging import merge_tokens

        merge_tokens(pipeline.unet, folder.token_merging)


def _parts_left_out(kind: str) -> dict[str, Any]:
    """Arguments that leave out parts that never draw, where the pipeline has them."""
    import inspect

    import diffusers

    known = inspect.signature(getattr(diffusers, kind).__init__).parameters
    flags = {"requires_safety_checker": False, "add_watermarker": False}
    return {name: value for name, value in (dict.fromkeys(_unused(kind)) | flags).items() if name in known}


def _dtype_argument() -> str:
    """diffusers 0.40 renamed ``torch_dtype`` to ``dtype``."""
    from diffusers import __version__
    from packaging.version import Version

    return "dtype" if Version(__version__) >= Version("0.40") else "torch_dtype"
