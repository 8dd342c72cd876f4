"""Cost of a denoising step beside its network: ours, diffusers' pipeline, and the bare network; tiny UNet, one core.

python benchmarks/loop.py
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from real_size import bench_plan

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from tiny_pipelines import write_pipeline  # noqa: E402

from synclones.generate.generators.generator import load_pipeline, make_generator  # noqa: E402
from synclones.generate.generators.model import find_model  # noqa: E402
from synclones.generate.sampling.denoise import Denoiser  # noqa: E402
from synclones.generate.sampling.seeds import noise_generators  # noqa: E402

STEPS, PROMPTS, SEEDS, ROUNDS = 20, ["a photo of two.", "a two"], [1, 2], 40


def peer(pipeline: Any) -> torch.Tensor:
    """Run the pipeline with its prompts encoded beforehand: only its loop is compared."""
    return pipeline(
        prompt_embeds=pipeline.conditional,
        negative_prompt_embeds=pipeline.unconditional,
        num_inference_steps=STEPS,
        guidance_scale=2.0,
        height=32,
        width=32,
        generator=noise_generators(SEEDS),
        output_type="latent",
    ).images


def bare(pipeline: Any, states: torch.Tensor, times: torch.Tensor, latents: torch.Tensor) -> None:
    """Run the network alone, as often."""
    for at in times:
        pipeline.unet(latents, at, states, return_dict=False)


def seconds(call: Any) -> float:
    """Return CPU seconds of one call."""
    started = time.process_time()
    call()
    return time.process_time() - started


@torch.inference_mode()
def compare(scheduler: str, pipeline: Any) -> None:
    """Print the overhead per step of both loops and their ratio."""
    pipeline.conditional, pipeline.unconditional = pipeline.encode_prompt(PROMPTS, "cpu", 1, True)
    denoiser = Denoiser(pipeline, bench_plan(num_inference_steps=STEPS, drawn_px=32, stored_px=32))
    ours, theirs = denoiser.draw(PROMPTS, SEEDS), peer(pipeline)
    difference = (ours - theirs).abs().max() / theirs.abs().max()
    assert difference < 1e-5, f"latents differ by {difference:.1e} of their largest"
    states, times = torch.cat([pipeline.unconditional, pipeline.conditional]), pipeline.scheduler.timesteps.clone()
    latents = torch.randn(4, 4, ours.shape[-1], ours.shape[-1])
    calls = {
        "network": lambda: bare(pipeline, states, times, latents),
        "ours": lambda: denoiser.draw(PROMPTS, SEEDS),
        "peer": lambda: peer(pipeline),
    }
    rounds = [{who: seconds(call) for who, call in calls.items()} for _ in range(ROUNDS)]
    # Medians of what each round took beyond its own network: the machine's speed drifts from round to round.
    per_step = {who: median(turn[who] - turn["network"] for turn in rounds) / STEPS * 1e6 for who in ("ours", "peer")}
    network = median(turn["network"] for turn in rounds) / STEPS * 1e6
    print(f"{scheduler}: latents differ by at most {difference:.0e} of their largest; network {network:.0f} us a step,")
    print(f"  beside it ours {per_step['ours']:.0f} us, pipeline {per_step['peer']:.0f} us,", end=" ")
    print(f"ratio {per_step['ours'] / per_step['peer']:.2f}")


def run() -> None:
    """Compare both loops with the samplers of the presets."""
    torch.set_num_threads(1)
    diffusers_logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        folder = find_model(str(write_pipeline(Path(name) / "sd", "sd")))
        for scheduler in ("DDIMScheduler", "DPMSolverMultistepScheduler"):
            compare(scheduler, load_pipeline(make_generator(folder), scheduler, "float32", "cpu"))


if __name__ == "__main__":
    run()
