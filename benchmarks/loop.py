"""Cost of a denoising step beside its network: ours and diffusers' pipeline, with a network that answers at once.

Both loops draw the same latents with the tiny UNet first. Then its answer is put there beforehand, so that what is
timed is the loop alone and no difference of two times.

python benchmarks/loop.py
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def answering_at_once(unet: Any) -> Iterator[None]:
    """Let the network give one and the same answer without computing it."""
    forward = unet.forward
    answer = torch.randn(2 * len(PROMPTS), 4, 16, 16, generator=torch.Generator().manual_seed(0))
    unet.forward = lambda latents, *inputs, **more: (answer,)
    try:
        yield
    finally:
        unet.forward = forward


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
    calls = {"ours": lambda: denoiser.draw(PROMPTS, SEEDS), "peer": lambda: peer(pipeline)}
    with answering_at_once(pipeline.unet):
        alone = denoiser.draw(PROMPTS, SEEDS), peer(pipeline)
        assert not torch.equal(alone[0], ours), "the network was not put aside"
        torch.testing.assert_close(*alone, rtol=1e-5, atol=1e-5 * float(alone[1].abs().max()))
        rounds = [{who: seconds(call) for who, call in calls.items()} for _ in range(ROUNDS)]
    ours_us, peer_us = (median(turn[who] for turn in rounds) / STEPS * 1e6 for who in calls)
    print(f"{scheduler}: latents differ by at most {difference:.0e} of their largest; a step beside its network takes")
    print(f"  ours {ours_us:.0f} us, pipeline {peer_us:.0f} us, ratio {ours_us / peer_us:.2f}", end=" ")
    ratios = sorted(turn["ours"] / turn["peer"] for turn in rounds)
    print(f"({ratios[len(ratios) // 10]:.2f} to {ratios[-1 - len(ratios) // 10]:.2f} in eight of ten rounds)")


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
