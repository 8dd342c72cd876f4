"""Draws one batch: prompts and seeds in, 8-bit pictures out.

In: a loaded pipeline, prompts list[n], seeds list[n]. Out: uint8[n, h, w, 3] on the CPU and, per picture, what is wrong
with it ("" when nothing is). The loop over denoising steps is `denoise.py`'s for SD and SDXL and the pipeline's own for
the rest; plain diffusers redraws any picture from its prompt and seed.
"""

import inspect
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from synclones.errors import InputError
from synclones.generate.denoise import Denoiser, can_denoise
from synclones.generate.pixels import to_pictures
from synclones.generate.plan import Plan
from synclones.generate.seeds import noise_generators, sample_seed

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image

    from synclones.generate.source_images import SourceImages

# Latents decoded together: at 512 px the decoder's activations are 67 MB per picture and layer in bfloat16.
DECODE_BATCH = 25
# Pipelines that are asked for latents, which are decoded here in parts; the rest decode their own.
ASKED_FOR_LATENTS = (
    *("StableDiffusionPipeline", "LatentConsistencyModelPipeline", "StableDiffusionImg2ImgPipeline"),
    *("StableUnCLIPImg2ImgPipeline", "StableDiffusionImageVariationPipeline"),
)


@dataclass(frozen=True)
class DrawnBatch:
    """Pictures uint8[n, h, w, 3], their seeds and attempts, and the reason ("" if ok) why one cannot be used."""

    images: np.ndarray
    seeds: list[int]
    attempts: list[int]
    reasons: list[str]


class Sampler:
    """One worker's view of the pipeline: shared weights, and its own copies of what keeps state between calls.

    Schedulers count steps, and a fast tokenizer's padding is switched from call to call: shared between threads, one
    worker's captions would be padded as another's.
    """

    def __init__(self, pipeline: "DiffusionPipeline", plan: Plan, sources: "SourceImages | None" = None):
        self.pipeline: Any = copy(pipeline)
        for name in pipeline.components:
            if name.startswith("tokenizer") or name.endswith("scheduler"):
                setattr(self.pipeline, name, deepcopy(getattr(pipeline, name)))
        self._arguments = inspect.signature(type(pipeline).__call__).parameters
        self._denoiser = Denoiser(self.pipeline, plan) if can_denoise(pipeline) else None
        self._gives_latents = self._denoiser is not None or type(pipeline).__name__ in ASKED_FOR_LATENTS
        if self._denoiser is None and (plan.guidance_start, plan.guidance_stop) != (0, 1):
            raise InputError(
                "--guidance-start, --guidance-stop: this model's guidance is not ours to switch; leave them out"
            )
        self.plan, self._sources = plan, sources
        self._images: list[Image] | None = None  # of the batch that is being drawn

    def source_images(self, keys: list[str]) -> "list[Image] | None":
        """The real images of ``keys`` at the drawn size, or None when drawing starts from noise alone."""
        return None if self._sources is None else self._sources.pictures(keys, self.plan.drawn_px)

    def draw(self, prompts: list[str], indices: list[int], start_from: "list[Image] | None" = None) -> DrawnBatch:
        """Draw a batch, from noise or real images; what comes out broken is drawn again with the next attempt's seed.

        A further attempt repeats the whole batch and keeps only the broken ones' new pictures: the batch size, and with
        it every byte, stays what the plan says.
        """
        self._images = start_from
        attempts = [0] * len(indices)
        seeds = [sample_seed(self.plan.seed, 0, index) for index in indices]
        images, reasons = self._draw_once(prompts, seeds)
        for attempt in range(1, self.plan.max_attempts):
            broken = [i for i, reason in enumerate(reasons) if reason]
            if not broken:
                break
            for i in broken:
                attempts[i], seeds[i] = attempt, sample_seed(self.plan.seed, attempt, indices[i])
            again, again_reasons = self._draw_once(prompts, seeds)
            for i in broken:
                images[i], reasons[i] = again[i], again_reasons[i]
        return DrawnBatch(images, seeds, attempts, reasons)

    @torch.inference_mode()
    def _draw_once(self, prompts: list[str], seeds: list[int]) -> tuple[np.ndarray, list[str]]:
        if self._denoiser:
            drawn = self._denoiser.draw(prompts, seeds)
        else:
            drawn = self.pipeline(**self._wishes(prompts, seeds)).images
        finish = self._decode if self._gives_latents else self._finish
        parts = [finish(part) for part in drawn.split(DECODE_BATCH)]
        return np.concatenate([images for images, _ in parts]), [reason for _, reasons in parts for reason in reasons]

    def _wishes(self, prompts: list[str], seeds: list[int]) -> dict[str, Any]:
        """What the pipeline is called with: of all that could be said, what it understands."""
        plan = self.plan
        led_away = plan.guidance_scale > 1 and (plan.negative_prompt or self._gives_latents)
        wishes = {
            "prompt": prompts,
            "image": self._images,
            "strength": plan.strength or None,
            "noise_level": plan.noise_level,
            "negative_prompt": [plan.negative_prompt] * len(prompts) if led_away else None,
            "num_inference_steps": plan.num_inference_steps,
            "guidance_scale": plan.guidance_scale,
            "height": plan.drawn_px,
            "width": plan.drawn_px,
            "generator": noise_generators(seeds),
            "output_type": "latent" if self._gives_latents else "pt",
            "clean_caption": False,  # prompts are drawn as they are written
            "use_resolution_binning": False,  # and at the size that was asked for
        }
        return {name: value for name, value in wishes.items() if name in self._arguments and value is not None}

    def _decode(self, latents: torch.Tensor) -> tuple[np.ndarray, list[str]]:
        """Latents float[n, 4, h/8, w/8] to uint8[n, stored, stored, 3]."""
        vae = self.pipeline.vae
        latents = latents / vae.config.scaling_factor
        if getattr(vae.config, "latents_mean", None) and getattr(vae.config, "latents_std", None):  # some of SDXL's
            mean, spread = (
                torch.tensor(values, dtype=latents.dtype, device=latents.device).view(1, -1, 1, 1)
                for values in (vae.config.latents_mean, vae.config.latents_std)
            )
            latents = latents * spread + mean
        pixels = vae.decode(latents, return_dict=False)[0]
        return to_pictures(pixels, 127.5, 127.5, self.plan.stored_px)

    def _finish(self, pixels: torch.Tensor) -> tuple[np.ndarray, list[str]]:
        """Pixels float[n, 3, h, w] in 0..1 to uint8[n, stored, stored, 3]."""
        return to_pictures(pixels, 255.0, 0.0, self.plan.stored_px)
