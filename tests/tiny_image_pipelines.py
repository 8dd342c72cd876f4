"""A tiny pipeline of every family that starts from real images, with random weights but the real classes and files.

In: a folder and the name of a family. Out: the folder, as ``save_pretrained`` fills it. No network is needed.
"""

from pathlib import Path

import diffusers as d
import torch
import transformers as t
from tiny_pipelines import clip_text, clip_tokenizer, unet, vae, write_pipeline


def clip_vision(size: int = 32) -> t.CLIPVisionModelWithProjection:
    config = t.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=24,
        patch_size=8,
        projection_dim=size,
    )
    return t.CLIPVisionModelWithProjection(config)


def clip_pictures() -> t.CLIPImageProcessor:
    return t.CLIPImageProcessor(crop_size={"height": 24, "width": 24}, size={"shortest_edge": 24})


def _unclip() -> d.DiffusionPipeline:
    from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer

    return d.StableUnCLIPImg2ImgPipeline(
        feature_extractor=clip_pictures(),
        image_encoder=clip_vision(),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=32),
        image_noising_scheduler=d.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=clip_tokenizer(),
        text_encoder=clip_text(),
        unet=unet(32, class_embed_type="projection", projection_class_embeddings_input_dim=64),
        scheduler=d.DDIMScheduler(clip_sample=False),
        vae=vae(),
    )


def _variation() -> d.DiffusionPipeline:
    return d.StableDiffusionImageVariationPipeline(
        vae=vae(),
        image_encoder=clip_vision(),
        unet=unet(32),
        scheduler=d.DDIMScheduler(clip_sample=False),
        safety_checker=None,
        feature_extractor=clip_pictures(),
        requires_safety_checker=False,
    )


OWN = {"unclip": _unclip, "variation": _variation}
IMAGE_FAMILIES = ("sd", "sdxl", *OWN)  # the first two are drawn from images with a strength


def write_image_pipeline(folder: Path, family: str) -> Path:
    if family not in OWN:
        return write_pipeline(folder, family)
    torch.manual_seed(0)
    OWN[family]().save_pretrained(folder, safe_serialization=True)
    return folder
