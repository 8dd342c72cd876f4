"""Draws one batch: prompt rows in, 8-bit images out.

In: a loaded pipeline, a plan, the prompt rows of a batch. Out: one `DrawnImage` per row: image, seed, attempt, verdict.
The loop over denoising steps is `denoise.py`'s for SD and SDXL and the pipeline's own for the rest. From prompt and
seed plain diffusers draws the same but for rounding, little in float32 (`benchmarks/agreement.py`).
"""

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from synclones.base.errors import InputError
from synclones.generate.gates.policy import Gates, Verdict
from synclones.generate.generators.families import family_of
from synclones.generate.generators.source_images import BAD_SOURCE
from synclones.generate.plan import Plan
from synclones.generate.sampling.denoise import Denoiser, can_denoise
from synclones.generate.sampling.pixels import Rounded, round_images, to_host
from synclones.generate.sampling.seeds import noise_generators, sample_seed
from synclones.prompts.schema import PromptRow
from synclones.shards.schema import SampleRow

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image

    from synclones.generate.generators.source_images import SourceImages

# Latents decoded together: at 512 px the decoder's activations are 67 MB per image and layer in bfloat16.
DECODE_BATCH = 25


@dataclass(frozen=True, kw_only=True)
class DrawnImage:
    """What was drawn for one prompt row."""

    image: np.ndarray
    """uint8[side, side, 3], on the CPU; black for a row that a retry leaves as it was."""
    seed: int
    attempt: int
    verdict: Verdict


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

    def draw(self, rows: Sequence[PromptRow], earlier: Sequence[SampleRow] = ()) -> list[DrawnImage]:
        """Draw a batch of prompt rows and return one record per row, in their order.

        A failed attempt is followed by one with the next seed. It repeats the whole batch and keeps only the failed
        rows' new images: the batch size, and with it every byte and score, stays what the plan says.

        Args:
            earlier: the batch's rows in the version before; then only the plan's last round is drawn.
        """
        start_from = self._source_images(rows)
        # Rows without a source image stay in the batch, so that it has its size; what is drawn of them is not used.
        unusable = self._sources.unusable(row.source_key for row in rows) if self._sources else set[int]()
        dropped = replace(self._before_drawing(rows, ())[0], verdict=Verdict("dropped", BAD_SOURCE))
        drawn = [dropped if i in unusable else record for i, record in enumerate(self._before_drawing(rows, earlier))]
        for attempts, status in self.plan.rounds[-1 if earlier else 0 :]:
            todo = {i for i, record in enumerate(drawn) if record.verdict.status == status and i not in unusable}
            for attempt in attempts:
                if todo:
                    drawn = self._attempt(drawn, rows, start_from, todo, attempt)
                    todo = {i for i in todo if drawn[i].verdict.status == "failed"}
        return drawn

    def images(self, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[np.ndarray, list[str]]:
        """Draw one batch from texts and seeds alone: uint8[n, side, side, 3], and "" or why an image cannot be used."""
        with self._turn:
            return self._draw_once(list(prompts), list(seeds), None)

    def _source_images(self, rows: Sequence[PromptRow]) -> "list[Image] | None":
        """Return the real images of ``rows`` at the drawn size, or None when drawing starts from noise alone."""
        if self._sources is None:
            return None
        return self._sources.read([row.source_key for row in rows], self.plan.drawn_px)

    def _before_drawing(self, rows: Sequence[PromptRow], earlier: Sequence[SampleRow]) -> list[DrawnImage]:
        """Return the records of a batch before its first attempt, or as an earlier version has them, without images."""
        black = np.zeros((self.plan.stored_px, self.plan.stored_px, 3), np.uint8)
        if not earlier:
            return [DrawnImage(image=black, seed=0, attempt=0, verdict=Verdict(status=""))] * len(rows)
        return [
            DrawnImage(
                image=black,
                seed=row.seed,
                attempt=row.attempt,
                verdict=Verdict(row.status, row.reason, row.scores),
            )
            for row in earlier
        ]

    def _attempt(
        self,
        drawn: list[DrawnImage],
        rows: Sequence[PromptRow],
        start_from: "list[Image] | None",
        todo: set[int],
        number: int,
    ) -> list[DrawnImage]:
        """Return ``drawn`` with new records, of attempt ``number``, at the positions ``todo``."""
        prompts = [row.prompt for row in rows]
        seeds = [
            sample_seed(self.plan.seed, number, row.index) if i in todo else drawn[i].seed for i, row in enumerate(rows)
        ]
        with self._turn:
            images, reasons = self._draw_once(prompts, seeds, start_from)
            verdicts = self.gates.judge(images, reasons, prompts)
        return [
            DrawnImage(image=images[i], seed=seeds[i], attempt=number, verdict=verdicts[i]) if i in todo else drawn[i]
            for i in range(len(rows))
        ]

    @torch.inference_mode()
    def _draw_once(
        self, prompts: list[str], seeds: list[int], start_from: "list[Image] | None"
    ) -> tuple[np.ndarray, list[str]]:
        """Draw one attempt of a batch: images uint8[n, side, side, 3], and per image "" or why it cannot be used."""
        if self._denoiser:
            drawn = self._denoiser.draw(prompts, seeds)
        else:
            drawn = self.pipeline(**self._pipeline_arguments(prompts, seeds, start_from)).images
        finish = self._decode if self._gives_latents else self._finish
        return to_host([finish(part) for part in drawn.split(DECODE_BATCH)])

    def _pipeline_arguments(
        self, prompts: list[str], seeds: list[int], start_from: "list[Image] | None"
    ) -> dict[str, Any]:
        """Return those of the batch's settings that this pipeline takes as arguments."""
        plan = self.plan
        has_negative_prompt = plan.guidance_scale > 1 and (plan.negative_prompt or self._gives_latents)
        arguments = {
            "prompt": prompts,
            "image": start_from,
            "strength": plan.strength or None,
            "noise_level": plan.noise_level,
            "negative_prompt": [plan.negative_prompt] * len(prompts) if has_negative_prompt else None,
            "num_inference_steps": plan.num_inference_steps,
            "guidance_scale": plan.guidance_scale,
            "height": plan.drawn_px,
            "width": plan.drawn_px,
            "generator": noise_generators(seeds),
            "output_type": "latent" if self._gives_latents else "pt",
            "clean_caption": False,  # prompts are drawn as they are written
            "use_resolution_binning": False,  # and at the size that was asked for
        }
        return {name: value for name, value in arguments.items() if name in self._arguments and value is not None}

    def _decode(self, latents: torch.Tensor) -> Rounded:
        """Decode latents float[n, 4, h/8, w/8] and round."""
        vae = self.pipeline.vae
        latents = latents / vae.config.scaling_factor
        if getattr(vae.config, "latents_mean", None) and getattr(vae.config, "latents_std", None):  # some of SDXL's
            mean, spread = (
                torch.tensor(values, dtype=latents.dtype, device=latents.device).view(1, -1, 1, 1)
                for values in (vae.config.latents_mean, vae.config.latents_std)
            )
            latents = latents * spread + mean
        pixels = vae.decode(latents, return_dict=False)[0]
        return round_images(pixels, 127.5, 127.5, self.plan.stored_px)

    def _finish(self, pixels: torch.Tensor) -> Rounded:
        """Round pixels float[n, 3, h, w] in 0..1."""
        return round_images(pixels, 255.0, 0.0, self.plan.stored_px)
