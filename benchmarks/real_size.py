"""Stable Diffusion 1.5 at its real size with random weights, 256 px on a CPU: our sampler beside diffusers' pipeline.

Speed does not depend on the weights. The pipeline runs in float32 as documented, then in bfloat16; ours in bfloat16
with channels_last, rounding included. 8 GB of memory.

python benchmarks/real_size.py
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from synclones.generate.plan import Plan, describe_device
from synclones.generate.sampling.sampler import Sampler
from synclones.generate.sampling.seeds import noise_generators, sample_seed
from synclones.lab.world import GENERATOR
from synclones.prompts.schema import PromptRow

SIDE, STEPS, BATCH, ROUNDS = 256, 2, 2, 3


def pipeline() -> StableDiffusionPipeline:
    """Return a pipeline with the configurations of SD 1.5, and the lab's tokenizer: its ids are in CLIP's range."""
    # Sizes are those of the published configuration files; only the weights are random.
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64,
        cross_attention_dim=768,
        attention_head_dim=8,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
    )
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, **blocks)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
        )
    )
    words = CLIPTokenizer.from_pretrained(Path(GENERATOR) / "tokenizer", model_max_length=77)
    made = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=words,
        unet=unet,
        scheduler=DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


def bench_plan(**changes: Any) -> Plan:
    """Return a plan with guidance 2, one attempt and seed 0, where ``changes`` does not set them."""
    texts = dict.fromkeys(("prompts_sha256", "model_name", "model_revision", "model_sha256", "negative_prompt"), "")
    texts |= {"scheduler": "DDIMScheduler", "dtype": "bfloat16", "device": "cpu", "split": "train"}
    numbers = {"num_samples": 1, "images_per_shard": 1, "batch_size": 1, "jpeg_quality": 90, "seed": 0}
    more = {"guidance_scale": 2.0, "max_attempts": 1, "threads_per_worker": 1, "has_labels": False, "versions": {}}
    return Plan(**texts, **(numbers | more | changes))


def bench_rows(prompts: Sequence[str]) -> list[PromptRow]:
    """Return rows of a prompt table that have these prompts and no class."""
    rest = {"label": -1, "class_id": "", "recipe": "", "caption_id": 0, "source_key": "", "detail": ""}
    return [PromptRow(index=index, prompt=prompt, **rest) for index, prompt in enumerate(prompts)]


def peer(pipe: StableDiffusionPipeline, prompts: list[str]) -> Any:
    """Generate as documented: float32[BATCH, SIDE, SIDE, 3] in 0..1."""
    return pipe(
        prompts,
        num_inference_steps=STEPS,
        guidance_scale=2.0,
        height=SIDE,
        width=SIDE,
        generator=noise_generators([sample_seed(0, 0, index) for index in range(BATCH)]),
        output_type="np",
    ).images


def timed(call) -> float:
    """Return wall seconds, the best of three; the machine is otherwise idle."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


@torch.inference_mode()
def run() -> None:
    """Print the three rates and their ratios."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    prompts = ["a photo of a dog.", "a painting of two cats."][:BATCH]
    pipe = pipeline()
    exact = peer(pipe, prompts)
    full = timed(lambda: peer(pipe, prompts))
    # One pipeline for all three, converted in between: two copies would need twice the memory.
    pipe.to(torch.bfloat16)
    half = timed(lambda: peer(pipe, prompts))
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)
    sampler = Sampler(pipe, bench_plan(num_inference_steps=STEPS, drawn_px=SIDE, stored_px=SIDE))
    rows = bench_rows(prompts)
    drawn = np.stack([record.image for record in sampler.draw(rows)]) / 255
    assert abs(drawn - exact).mean() < 0.05, "ours generates other images than the float32 pipeline"
    ours = timed(lambda: sampler.draw(rows))
    print(f"SD 1.5, {SIDE} px, {BATCH} images, {STEPS} steps with guidance, {describe_device('cpu')}")
    print(f"pipeline float32 {full:.2f} s, bfloat16 {half:.2f} s, ours {ours:.2f} s: ", end="")
    print(f"{full / ours:.2f} times float32, {half / ours:.2f} times bfloat16")


if __name__ == "__main__":
    run()
