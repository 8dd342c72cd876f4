"""Draws one batch: prompts and seeds in, 8-bit pictures out.

In: a loaded pipeline, prompts list[n], seeds list[n]. Out: uint8[n, h, w, 3] on the CPU and, per picture, what is wrong
with it ("" when nothing is). The loop over denoising steps is diffusers' own, so plain diffusers redraws any picture
from its prompt and seed.
"""

import inspect
from collections.abc import Sequence
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from synclones.generate.gates import Gates, Verdict
from synclones.generate.pixels import to_pictures
from synclones.generate.plan import Plan
from synclones.generate.seeds import noise_generators, sample_seed
from synclones.shards.read import Row

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# Latents decoded together: at 512 px the decoder's activations are 67 MB per picture and layer in bfloat16.
DECODE_BATCH = 25
# Pipelines whose latents are the VAE's times one factor, so that decoding them in parts is ours; others decode alone.
LATENT_SCALED = ("StableDiffusionPipeline", "LatentConsistencyModelPipeline")


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

    def __init__(self, pipeline: "DiffusionPipeline", plan: Plan, gates: Gates | None = None):
        self.pipeline: Any = copy(pipeline)
        for name in pipeline.components:
            if name.startswith(("scheduler", "tokenizer")):
                setattr(self.pipeline, name, deepcopy(getattr(pipeline, name)))
        self._arguments = inspect.signature(type(pipeline).__call__).parameters
        self._decodes_itself = type(pipeline).__name__ not in LATENT_SCALED
        self.plan, self.gates = plan, gates or Gates()

    def draw(self, prompts: list[str], indices: list[int], earlier: Sequence[Row] = ()) -> DrawnBatch:
        """Draw a batch; pictures whose attempt fails are drawn again with the seed of the next one.

        A further attempt repeats the whole batch and keeps only the failed ones' new pictures: the batch size, and with
        it every byte and score, stays what the plan says. ``earlier``: the batch's rows in the version before; then
        only the plan's last round is drawn.
        """
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
        images, reasons = self._draw_once(prompts, drawn.seeds)
        verdicts = self.gates.judge(images, reasons, prompts)
        for i in todo:
            drawn.images[i], drawn.verdicts[i] = images[i], verdicts[i]

    @torch.inference_mode()
    def _draw_once(self, prompts: list[str], seeds: list[int]) -> tuple[np.ndarray, list[str]]:
        drawn = self.pipeline(**self._wishes(prompts, seeds)).images
        finish = self._finish if self._decodes_itself else self._decode
        parts = [finish(part) for part in drawn.split(DECODE_BATCH)]
        return np.concatenate([images for images, _ in parts]), [reason for _, reasons in parts for reason in reasons]

    def _wishes(self, prompts: list[str], seeds: list[int]) -> dict[str, Any]:
        """What the pipeline is called with: of all that could be said, what it understands."""
        plan = self.plan
        led_away = plan.guidance_scale > 1 and (plan.negative_prompt or not self._decodes_itself)
        wishes = {
            "prompt": prompts,
            "negative_prompt": [plan.negative_prompt] * len(prompts) if led_away else None,
            "num_inference_steps": plan.num_inference_steps,
            "guidance_scale": plan.guidance_scale,
            "height": plan.drawn_px,
            "width": plan.drawn_px,
            "generator": noise_generators(seeds),
            "output_type": "pt" if self._decodes_itself else "latent",
            "clean_caption": False,  # prompts are drawn as they are written
            "use_resolution_binning": False,  # and at the size that was asked for
        }
        return {name: value for name, value in wishes.items() if name in self._arguments and value is not None}

    def _decode(self, latents: torch.Tensor) -> tuple[np.ndarray, list[str]]:
        """Latents float[n, 4, h/8, w/8] to uint8[n, stored, stored, 3]."""
        vae = self.pipeline.vae
        pixels = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        return to_pictures(pixels, 127.5, 127.5, self.plan.stored_px)

    def _finish(self, pixels: torch.Tensor) -> tuple[np.ndarray, list[str]]:
        """Pixels float[n, 3, h, w] in 0..1 to uint8[n, stored, stored, 3]."""
        return to_pictures(pixels, 255.0, 0.0, self.plan.stored_px)
