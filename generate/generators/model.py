"""Finds a model of diffusers that draws from texts or images, and checks that it is whole and safe to load.

In: a folder in the diffusers layout, or a hub id with a revision. Out: `ModelFolder`: where it lies, the hash of what
matters, what its JSON files say. Everything that can be refused is refused before a weight is read: safetensors only,
no code of the repository, no safety checker (its black images must never pass for data), no watermark.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError
from synclones.base.files import files_sha256
from synclones.base.weights import check_safetensors, find_folder, read_model_json, weight_files
from synclones.generate.generators.classes import own_classes
from synclones.generate.generators.families import FAMILIES

INDEX_FILE = "model_index.json"
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
_IMAGE_ENCODER = ("feature_extractor", "image_encoder")
# Parts that never draw: black images for suspected nudity, marks in pixels, and what only image prompts need.
UNUSED = ("safety_checker", *_IMAGE_ENCODER)
_DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
WEIGHT_FILE = {"diffusers": _DIFFUSERS_WEIGHTS, "transformers": "model.safetensors", NORMALIZER[0]: _DIFFUSERS_WEIGHTS}
_FOLDERS = (
    "scheduler",
    "unet",
    "transformer",
    "vae",
    *(*_IMAGE_ENCODER, "image_normalizer", "image_noising_scheduler"),
    *(f"{k}{n}" for k in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")),
)
# What is fetched: no pickles, nor the copies in other formats that many repositories hold beside them.
FILES_WANTED = [
    INDEX_FILE,
    *(f"{folder}/*.{suffix}" for folder in _FOLDERS for suffix in ("json", "txt", "model", "safetensors")),
]


Part = tuple[str, str]
"""(library, class) of a part of a pipeline."""


@dataclass(frozen=True)
class ModelFolder:
    """A checked model, and what its JSON files say, read once."""

    name: str
    """For people: the hub id or the folder's name."""
    path: Path
    revision: str
    """Commit of the hub id, empty for a folder."""
    sha256: str
    """Content hash of the files that decide an image."""
    kind: str
    """The pipeline class that it names, one of `FAMILIES`."""
    parts: dict[str, Part] = field(compare=False)
    """The parts that draw."""
    configs: dict[str, dict[str, Any]] = field(compare=False)
    """Part -> the content of its config.json, for parts with weights."""
    classes: tuple[str, ...] = ()
    """The names of all classes that it draws; none for one that draws anything."""

    @property
    def network(self) -> dict[str, Any]:
        """The configuration of the denoising network."""
        return self.configs["unet" if "unet" in self.parts else "transformer"]

    @property
    def native_size_px(self) -> int:
        """Side of the square image that the model was trained for, in px: latent size times the VAE's stride.

        Raises:
            InputError: when a configuration has no usable number.
        """
        # FLUX's transformer has no size; its pipeline takes 128 latents, 1024 px.
        return self._number("sample_size", 128) * self.vae_stride

    @property
    def size_step_px(self) -> int:
        """What a side must be a multiple of, in px: the VAE's stride, times the transformer's patch.

        Raises:
            InputError: when a configuration has no usable number.
        """
        if "transformer" not in self.parts:
            return max(8, self.vae_stride)  # diffusers asks for 8 whatever the VAE
        return self.vae_stride * (FAMILIES[self.kind].size_step or self._number("patch_size", 1))

    @property
    def vae_stride(self) -> int:
        """Pixels per latent along one side.

        Raises:
            InputError: when the VAE's configuration does not tell.
        """
        vae = self.configs["vae"]
        channels = vae.get("block_out_channels") or vae.get("encoder_block_out_channels")
        if not isinstance(channels, list) or not 1 <= len(channels) <= 10:
            raise InputError(f"{self.path}/vae/config.json: has no block_out_channels; copy the whole model")
        return 2 ** (len(channels) - 1)

    def _number(self, name: str, default: int) -> int:
        """Return a small number of the network's configuration, ``default`` where it gives none."""
        number = self.network.get(name) or default
        if type(number) is not int or not 1 <= number <= 2**14:
            raise InputError(f"{self.path}: {name} is {str(number)[:40]!r}, expected a small whole number")
        return number


def find_model(model: str, revision: str = "") -> ModelFolder:
    """Check the folder ``model``, or fetch the hub id ``model``, and hash what decides its images.

    Raises:
        InputError: no such folder and no hub id; a file is missing; another kind of pipeline; pickled weights only.
        MachineError: the hub does not answer and the model is not in its cache.
    """
    folder, commit = find_folder(model, revision, FILES_WANTED)
    name = model if commit else folder.resolve().name
    kind, parts = _read_index(folder)
    configs = {part: config for part in parts if (config := _checked_part(folder, part, parts[part])) is not None}
    sha256, classes = _content_hash(folder, parts), own_classes(folder)
    return ModelFolder(name, folder, commit, sha256, kind, parts, configs, classes)


def _read_index(folder: Path) -> tuple[str, dict[str, Part]]:
    """Return the pipeline's class and every part that is used, all of classes that are known."""
    where = f"{folder}/{INDEX_FILE}"
    index = read_model_json(folder / INDEX_FILE)
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise InputError(f"{where}: _class_name is {repr(kind)[:80]}, expected one of {', '.join(FAMILIES)}")
    unused = unused_parts(kind)
    listed = {name: part for name, part in index.items() if isinstance(part, list) and name not in unused}
    parts = {name: (str(part[0]), str(part[1])) for name, part in listed.items() if len(part) == 2 and part[0]}
    if missing := [name for name in FAMILIES[kind].parts if name not in parts]:
        raise InputError(f"{where}: has no {missing[0]}, which a {kind} needs; copy the whole model")
    for name, part in parts.items():
        _refuse_foreign_class(where, name, part)
    return kind, parts


def _refuse_foreign_class(where: str, name: str, part: Part) -> None:
    """Refuse a part that could run code of the repository, or that no known pipeline has."""
    library, part_class = part
    if library not in SAFE_LIBRARIES and part != NORMALIZER:
        raise InputError(f"{where}: {name} comes from {library!r}, expected {' or '.join(SAFE_LIBRARIES)}")
    if not re.fullmatch(PART_CLASSES.get(name, "none"), part_class):
        raise InputError(f"{where}: {name[:40]!r} of class {part_class[:80]!r} is no part of a known model")


def _checked_part(folder: Path, name: str, part: Part) -> dict[str, Any] | None:
    """Refuse a part that is incomplete, cut or pickled; return its configuration if it has weights."""
    if not (folder / name).is_dir():
        raise InputError(f"{folder}: the folder {name}/ is missing; copy the whole model")
    if _has_weights(name):
        config = read_model_json(folder / name / "config.json")
        for path in weight_files(folder / name, WEIGHT_FILE[part[0]]):
            check_safetensors(path)
        return config
    if not name.startswith("tokenizer"):
        file = "scheduler_config" if name.endswith("scheduler") else "preprocessor_config"
        read_model_json(folder / name / f"{file}.json")
    elif not any((folder / name / file).is_file() for file in ("tokenizer.json", "vocab.json", "spiece.model")):
        raise InputError(f"{folder / name}: neither tokenizer.json nor vocab.json is there; copy the whole model")
    return None


def _has_weights(part: str) -> bool:
    return not part.startswith("tokenizer") and not part.endswith("scheduler") and part != "feature_extractor"


def unused_parts(kind: str) -> tuple[str, ...]:
    """Return the parts that a pipeline may have and never draws with."""
    return UNUSED[:1] if FAMILIES[kind].starts_from == "embedding" else UNUSED


def _content_hash(folder: Path, parts: dict[str, Part]) -> str:
    """Return the SHA-256 over names and hashes of the files that decide an image; cards and caches do not count."""
    used = [folder / INDEX_FILE]
    for name, (library, _) in sorted(parts.items()):
        files = (p for p in (folder / name).iterdir() if p.suffix in (".json", ".txt", ".model"))
        weights = weight_files(folder / name, WEIGHT_FILE[library]) if _has_weights(name) else ()
        used += sorted([*files, *weights])
    return files_sha256(folder, used)


def scheduler_class(model: ModelFolder, override: str) -> str:
    """Return the class name of the sampler: the model's own, or the diffusers scheduler that ``override`` names.

    Raises:
        InputError: when diffusers has no such scheduler.
    """
    if not override:
        return model.parts["scheduler"][1]
    import diffusers

    known = sorted(n for n in dir(diffusers.schedulers) if n.endswith("Scheduler") and "Flax" not in n)
    if override not in known:
        from difflib import get_close_matches

        near = get_close_matches(override, known, 1, 0.4)
        hint = f"; did you mean {near[0]!r}?" if near else "; see diffusers' documentation of schedulers"
        raise InputError(f"--scheduler: {override!r} is not a scheduler of diffusers{hint}")
    return override
