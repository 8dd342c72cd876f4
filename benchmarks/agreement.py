"""How far the images of the lab are from those that plain diffusers draws with the same seeds, in both number formats.

Prints the largest difference of latents as a share of the largest latent, the largest of a pixel in steps of 255, and
how many JPEGs have the same bytes. In float32 both loops do the same sums in the same numbers but for their order; in
bfloat16, with eight bits behind the point, every sum rounds, and what rounding does grows from step to step.

python benchmarks/agreement.py
"""

from typing import Any

import numpy as np
import simplejpeg
import torch
from diffusers import StableDiffusionPipeline
from real_size import bench_plan, bench_rows

from synclones.generate.generators.generator import _dtype_argument, load_pipeline, make_generator
from synclones.generate.generators.model import find_model
from synclones.generate.plan import describe_device
from synclones.generate.sampling.denoise import Denoiser
from synclones.generate.sampling.sampler import Sampler
from synclones.generate.sampling.seeds import noise_generators
from synclones.lab.world import GENERATOR
from synclones.prompts.build import make_table
from synclones.prompts.classes.lists import load_classes
from synclones.prompts.recipe import Inputs

IMAGES, STEPS, SIDE = 100, 20, 32


def plain(prompts: list[str], seeds: list[int], dtype: str, output: str) -> Any:
    """Draw as diffusers documents it: its own pipeline, its own loop, and no layout of ours."""
    pipeline = StableDiffusionPipeline.from_pretrained(GENERATOR, **{_dtype_argument(): getattr(torch, dtype)})
    pipeline.set_progress_bar_config(disable=True)
    noise = noise_generators(seeds)
    return pipeline(prompts, num_inference_steps=STEPS, guidance_scale=2.0, generator=noise, output_type=output).images


@torch.inference_mode()
def compare(prompts: list[str], dtype: str) -> str:
    """Return one line for a number format."""
    plan = bench_plan(num_inference_steps=STEPS, drawn_px=SIDE, stored_px=SIDE)
    pipeline = load_pipeline(make_generator(find_model(str(GENERATOR))), "DDIMScheduler", dtype, "cpu")
    drawn = Sampler(pipeline, plan).draw(bench_rows(prompts))
    seeds = [record.seed for record in drawn]
    latents = Denoiser(pipeline, plan).draw(prompts, seeds).float()
    their_latents = plain(prompts, seeds, dtype, "latent").float()
    share = (latents - their_latents).abs().max() / their_latents.abs().max()
    images = np.stack([record.image for record in drawn])
    theirs = (plain(prompts, seeds, dtype, "np") * 255).round().astype(np.uint8)
    steps = np.abs(images.astype(int) - theirs).max()
    alike = sum(_jpeg(a) == _jpeg(b) for a, b in zip(images, theirs, strict=True))
    return f"{dtype}: latents {share:.1e} of the largest, pixels {steps} of 255, {alike} of {len(prompts)} JPEGs equal"


def _jpeg(pixels: np.ndarray) -> bytes:
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90, colorsubsampling="420")
    return data


def run() -> None:
    """Compare both formats on prompts of CLIP templates."""
    torch.set_num_threads(1)
    table = make_table("clip-templates", Inputs(classes=load_classes("lab-digits"), seed=0), IMAGES)
    prompts = table.rows(np.arange(IMAGES))["prompt"].to_pylist()
    print(f"{IMAGES} lab images, {STEPS} DDIM steps, guidance 2, {describe_device('cpu')}")
    for dtype in ("float32", "bfloat16"):
        print(compare(prompts, dtype), flush=True)


if __name__ == "__main__":
    run()
