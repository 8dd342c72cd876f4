"""Draws one batch: prompts and seeds in, 8-bit pictures out.

In: a loaded pipeline, prompts list[n], seeds list[n]. Out: uint8[n, h, w, 3] on the CPU and, per picture, what is wrong
with it ("" when nothing is). The loop over denoising steps is `denoise.py`'s for SD and SDXL and the pipeline's own for
the rest; plain diffusers redraws any picture from its prompt and seed.
"""

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from synclones.base.errors import InputError
from synclones.generate.gates.policy import Gates, Verdict
from synclones.generate.generators.families import family_of
from synclones.generate.plan import Plan
from synclones.generate.sampling.denoise import Denoiser, can_denoise
from synclones.generate.sampling.pixels import Rounded, round_pictures, to_host
from synclones.generate.sampling.seeds import noise_generators, sample_seed
from synclones.shards.read import Row

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image

    from synclones.generate.generators.source_images import SourceImages

# Latents decoded together: at 512 px the decoder's activations are 67 MB per picture and layer in bfloat16.
DECODE_BATCH = 25


@dataclass(frozen=True)
class DrawnBatch:
    """Pictures uint8[n, h, w, 3], their seeds and attempts, and what is to become of each."""

    images: np.ndarray
    seeds: list[int]
    attempts: list[int]
    verdicts: list[Verdict]


def _not_drawn(plan: Plan, indices: list[int], earlier: Sequence[Row]) -> DrawnBatch:
    """A batch before its first attempt, or as an earlier version has it, without pictures."""
    images = np.zeros((len(indices), plan.stored_px, plan.stored_px, 3), np.uint8)
    if not earlier:
        return DrawnBatch(images, [0] * len(indices), [0] * len(indices), [Verdict(status="")] * len(indices))
    seeds, attempts = ([int(row[name]) for row in earlier] for name in ("seed", "attempt"))
    verdicts = [Verdict(row["status"], row["reason"], row["scores"]) for row in earlier]
    return DrawnBatch(images, seeds, attempts, verdicts)


class Sampler:
    """One worker's view of the pipeline: shared weights, and its own copies of what keeps state between calls.

    Schedulers count steps, and a fast tokenizer's padding is switched from call to call: shared between threads, one
    worker's captions would be padded as another's.
    """

    def __init__(
        self,
        pipeline: "DiffusionPipeline",
        plan: Plan,
        gates: Gates | None = None,
        sources: "SourceImages | None" = None,
        turn: AbstractContextManager | None = None,
    ):
        """``turn``: a lock that the workers of one GPU share, held while the GPU works for this one."""
        self.pipeline: Any = copy(pipeline)
        for name in pipeline.components:
            if name.startswith("tokenizer") or name.endswith("scheduler"):
                setattr(self.pipeline, name, deepcopy(getattr(pipeline, name)))
        self._arguments = inspect.signature(type(pipeline).__call__).parameters
        self._denoiser = Denoiser(self.pipeline, plan) if can_denoise(pipeline) else None
        self._gives_latents = self._denoiser is not None or family_of(type(pipeline).__name__).gives_latents
        if self._denoiser is None and (plan.guidance_start, plan.guidance_stop) != (0, 1):
            raise InputError(
                "--guidance-start, --guidance-stop: this model's guidance is not ours to switch; leave them out"
            )
        if self._denoiser is None and plan.step_cache > 1:
            raise InputError("--step-cache: this model's steps are not ours to shorten; leave it out")
        self.plan, self.gates, self._sources = plan, gates or Gates(), sources
        self._turn = turn or nullcontext()
        self._images: list[Image] | None = None  # of the batch that is being drawn

    def source_images(self, keys: list[str]) -> "list[Image] | None":
        """The real images of ``keys`` at the drawn size, or None when drawing starts from noise alone."""
        return None if self._sources is None else self._sources.pictures(keys, self.plan.drawn_px)

    def draw(
        self,
        prompts: list[str],
        indices: list[int],
        start_from: "list[Image] | None" = None,
        earlier: Sequence[Row] = (),
    ) -> DrawnBatch:
        """Draw a batch, from noise or real images; pictures whose attempt fails are drawn again with the next seed.

        A further attempt repeats the whole batch and keeps only the failed ones' new pictures: the batch size, and with
        it every byte and score, stays what the plan says. ``earlier``: the batch's rows in the version before; then
        only the plan's last round is drawn.
        """
        self._images = start_from
        drawn = _not_drawn(self.plan, indices, earlier)
        for attempts, status in self.plan.rounds[-1 if earlier else 0 :]:
            todo = [i for i, verdict in enumerate(drawn.verdicts) if verdict.status == status]
            for attempt in attempts:
                if todo:
                    self._attempt(drawn, prompts, indices, todo, attempt)
                    todo = [i for i in todo if drawn.verdicts[i].status == "failed"]
        return drawn

    def _attempt(self, drawn: DrawnBatch, prompts: list[str], indices: list[int], todo: list[int], number: int) -> None:
        for i in todo:
            drawn.attempts[i], drawn.seeds[i] = number, sample_seed(self.plan.seed, number, indices[i])
        with self._turn:
            images, reasons = self._draw_once(prompts, drawn.seeds)
            verdicts = self.gates.judge(images, reasons, prompts)
        for i in todo:
            drawn.images[i], drawn.verdicts[i] = images[i], verdicts[i]

    @torch.inference_mode()
    def _draw_once(self, prompts: list[str], seeds: list[int]) -> tuple[np.ndarray, list[str]]:
        if self._denoiser:
            drawn = self._denoiser.draw(prompts, seeds)
        else:
            drawn = self.pipeline(**self._wishes(prompts, seeds)).images
        finish = self._decode if self._gives_latents else self._finish
        return to_host([finish(part) for part in drawn.split(DECODE_BATCH)])

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

    def _decode(self, latents: torch.Tensor) -> Rounded:
        """Of latents float[n, 4, h/8, w/8]."""
        vae = self.pipeline.vae
        latents = latents / vae.config.scaling_factor
        if getattr(vae.config, "latents_mean", None) and getattr(vae.config, "latents_std", None):  # some of SDXL's
            mean, spread = (
                torch.tensor(values, dtype=latents.dtype, device=latents.device).view(1, -1, 1, 1)
                for values in (vae.config.latents_mean, vae.config.latents_std)
            )
            latents = latents * spread + mean
        pixels = vae.decode(latents, return_dict=False)[0]
        return round_pictures(pixels, 127.5, 127.5, self.plan.stored_px)

    def _finish(self, pixels: torch.Tensor) -> Rounded:
        """Of pixels float[n, 3, h, w] in 0..1."""
        return round_pictures(pixels, 255.0, 0.0, self.plan.stored_px)
