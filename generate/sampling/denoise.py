"""Denoises a batch with the UNet families (SD 1.x and 2.x, SDXL): what diffusers' pipelines compute, and no more.

In: prompts list[n], seeds list[n]. Out: latents float[n, 4, h, w] before the VAE. Every distinct prompt is encoded once
and kept; per step there is the network, one guidance operation and one of the sampler. `tests/test_denoise.py` compares
with the pipelines, `benchmarks/loop.py` times both.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch

from synclones.generate.generators.families import family_of
from synclones.generate.plan import Plan
from synclones.generate.sampling.seeds import noise_generators
from synclones.generate.sampling.solvers import Advance, step_as_sum
from synclones.generate.sampling.step_cache import StepCache

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# What a worker's cache of encoded prompts may take: 9,000 prompts of SD 1.5 in bfloat16 on a GPU, 1,100 per CPU core.
CACHE_BYTES = {"cuda": 1 << 30, "cpu": 128 << 20}

Encoded = tuple[torch.Tensor, ...]
"""Of n prompts: token states float[n, tokens, width], and for SDXL the pooled states float[n, width]."""


def can_denoise(pipeline: "DiffusionPipeline") -> bool:
    """Return whether this file draws for ``pipeline``; others are called as they are.

    Networks that take their guidance as an input are left to their pipelines, and SDXL in float16, whose VAE overflows.
    """
    family, unet = family_of(type(pipeline).__name__), getattr(pipeline, "unet", None)
    if not family.own_loop or unet is None or unet.config.time_cond_proj_dim is not None:
        return False
    return not family.vae_overflows or unet.dtype != torch.float16


class PromptCache:
    """Encoded prompts, the least recently used forgotten first.

    Each prompt is encoded alone: kernels may round by the size of a batch, and which prompts are missing depends on
    what was drawn before. So an embedding, and with it an image, depends on the prompt only.
    """

    def __init__(self, pipeline: Any, negative_prompt: str):
        self.pipeline, self.negative_prompt = pipeline, negative_prompt
        self._kept: OrderedDict[str, Encoded] = OrderedDict()
        self._unconditional: Encoded | None = None
        self._room = CACHE_BYTES[pipeline.unet.device.type]

    def encode(self, prompts: list[str]) -> Encoded:
        """Return the states of ``prompts``, in their order."""
        states = [self._one(prompt) for prompt in prompts]
        return tuple(torch.cat(parts) for parts in zip(*states, strict=True))

    def unconditional(self, count: int) -> Encoded:
        """Return the unconditional embedding, or that of the negative prompt, ``count`` times."""
        if self._unconditional is None:
            negative = [self.negative_prompt] if self.negative_prompt else None
            self._unconditional = self._call("", guided=True, negative_prompt=negative)[1::2]
        return tuple(part.expand(count, *part.shape[1:]) for part in self._unconditional)

    def _one(self, prompt: str) -> Encoded:
        if prompt in self._kept:
            self._kept.move_to_end(prompt)
            return self._kept[prompt]
        encoded = self._call(prompt, guided=False)[::2]
        self._kept[prompt] = encoded
        self._room -= _nbytes(encoded)
        while self._room < 0 and len(self._kept) > 1:
            self._room += _nbytes(self._kept.popitem(last=False)[1])
        return encoded

    def _call(self, prompt: str, guided: bool, **more: Any) -> Encoded:
        """Return alternately states of the prompt and of the negative prompt (None when not ``guided``)."""
        states: Encoded = self.pipeline.encode_prompt(
            prompt=[prompt],
            device=self.pipeline.unet.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=guided,
            **more,
        )
        return states


def _nbytes(states: Encoded) -> int:
    return sum(part.numel() * part.element_size() for part in states)


class Denoiser:
    """One worker's loop over the steps of a plan; the pipeline's scheduler is this worker's own."""

    def __init__(self, pipeline: Any, plan: Plan):
        self.pipeline, self.plan = pipeline, plan
        self.texts = PromptCache(pipeline, plan.negative_prompt)
        self._cache = StepCache(pipeline.unet, plan.step_cache, plan.compiled) if plan.step_cache > 1 else None
        self._set_timesteps()
        self._begin = step_as_sum(pipeline.scheduler)

    def _set_timesteps(self) -> None:
        """Keep the scheduler's timesteps on the CPU: no step then waits for the device to say which one it is."""
        self.pipeline.scheduler.set_timesteps(self.plan.num_inference_steps, device="cpu")
        self._times = self.pipeline.scheduler.timesteps.to(self.pipeline.unet.device)

    def draw(self, prompts: list[str], seeds: list[int]) -> torch.Tensor:
        """Return latents float[n, 4, h, w] on the network's device, in its dtype."""
        pipeline, plan, count = self.pipeline, self.plan, len(prompts)
        encoded, generators = self.texts.encode(prompts), noise_generators(seeds)
        both = encoded
        if plan.guidance_scale > 1:
            both = tuple(torch.cat(pair) for pair in zip(self.texts.unconditional(count), encoded, strict=True))
        if self._begin is None:  # other samplers count their steps
            self._set_timesteps()
        unet, scheduler, times = pipeline.unet, pipeline.scheduler, self._times
        latents = pipeline.prepare_latents(
            count, unet.config.in_channels, plan.drawn_px, plan.drawn_px, unet.dtype, unet.device, generators
        )
        advance = self._begin() if self._begin else _scheduler_step(pipeline, generators)
        network = self._cache or unet
        if self._cache:
            self._cache.restart()
        for number, time in enumerate(times):
            guided = plan.guidance_scale > 1 and _in_interval(plan, number, len(times))
            states = both if guided else encoded
            inputs = torch.cat([latents, latents]) if guided else latents
            if self._begin is None:
                inputs = scheduler.scale_model_input(inputs, scheduler.timesteps[number])
            predicted = network(inputs, time, states[0], return_dict=False, **self._sizes(states))[0]
            if guided:
                predicted = torch.lerp(*predicted.chunk(2), plan.guidance_scale)
            latents = advance(number, predicted, latents)
        return latents

    def _sizes(self, states: Encoded) -> dict[str, Any]:
        """Return SDXL's input beside the text: pooled states, and that images are whole and of the size drawn."""
        if len(states) == 1:
            return {}
        side, pooled = self.plan.drawn_px, states[1]
        sizes = torch.tensor([side, side, 0, 0, side, side], dtype=pooled.dtype, device=pooled.device)
        return {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)}}


def _in_interval(plan: Plan, number: int, count: int) -> bool:
    """Return whether step ``number`` is guided (Kynkäänniemi et al. 2024, arXiv 2404.07724)."""
    return plan.guidance_start <= number / count < plan.guidance_stop


def _scheduler_step(pipeline: Any, generators: list[torch.Generator]) -> Advance:
    more = pipeline.prepare_extra_step_kwargs(generators, 0.0)
    scheduler = pipeline.scheduler

    def advance(number: int, predicted: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        stepped: torch.Tensor = scheduler.step(
            predicted, scheduler.timesteps[number], latents, return_dict=False, **more
        )[0]
        return stepped.to(latents.dtype)

    return advance
