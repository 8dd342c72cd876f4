"""SD 1.5 at its real size on one GPU, random weights, 512 px, 20 steps with guidance: ours and diffusers' own recipes.

The peers are the pipeline in bfloat16 as it is, and with channels_last and compiled network and decoder as diffusers'
documentation of speed says. Ours again with step caching and with token merging. Speed does not depend on the weights.
Limit without them: 22.8 images/s, what the work of one image (34.6 TFLOP) leaves of the 790 TFLOP/s that an H200
reaches in large bfloat16 products.

python benchmarks/gpu_generate.py
"""

import time
from types import SimpleNamespace
from typing import Any

import torch
from real_size import pipeline

from synclones.generate.sample import Sampler
from synclones.generate.seeds import noise_generators, sample_seed
from synclones.generate.speed import speed_up
from synclones.generate.token_merging import merge_tokens

SIDE, STEPS, SIZES, LIMIT, SECONDS = 512, 20, (1, 8, 32, 64), 22.8, 20.0


def plan(side: int = SIDE, steps: int = STEPS, step_cache: int = 1) -> Any:
    """The few fields that a sampler reads."""
    return SimpleNamespace(
        seed=0, guidance_scale=2.0, negative_prompt="", num_inference_steps=steps, drawn_px=side, stored_px=side // 2,
        rounds=[(range(1), "")], guidance_start=0.0, guidance_stop=1.0, step_cache=step_cache,
        compiled=True,
    )  # fmt: skip


def theirs(pipe: Any, prompts: list[str], side: int = SIDE, steps: int = STEPS) -> Any:
    """As documented, pictures as PIL images."""
    return pipe(
        prompts,
        num_inference_steps=steps,
        guidance_scale=2.0,
        height=side,
        width=side,
        generator=noise_generators([sample_seed(0, 0, index) for index in range(len(prompts))]),
    ).images


def rate(call: Any, size: int, seconds: float = SECONDS) -> float:
    """Images per second, steady state: after two calls to warm up, for at least ``seconds``."""
    call(), call()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        call()  # ends with pictures on the CPU: nothing is left running
        done += size
    return done / (time.perf_counter() - started)


def sweep(kind: str, call: Any) -> None:
    """One line per batch size."""
    for size in SIZES:
        prompts = [f"a photo of a {index}." for index in range(size)]
        found = rate(lambda: call(prompts), size)  # noqa: B023 - called before the next size
        print(f"{kind}: batch {size}: {found:.2f} images/s, {100 * found / LIMIT:.0f} % of the limit", flush=True)


def our_pipeline(share_merged: float = 0.0) -> Any:
    """As `synclones generate --compile` prepares it."""
    made = pipeline().to("cuda", torch.bfloat16)
    for part in (made.unet, made.vae):
        part.to(memory_format=torch.channels_last)
    if share_merged:
        merge_tokens(made.unet, share_merged)
    speed_up(made, compiled=True, attention="auto")
    return made


def sweep_ours(kind: str, pipe: Any, step_cache: int = 1) -> None:
    """Our sampler with every step in full, or one of so many."""
    sampler = Sampler(pipe, plan(step_cache=step_cache))
    sweep(kind, lambda prompts: sampler.draw(prompts, list(range(len(prompts)))))


def run() -> None:
    """Sweep peers and ours, each with its own copy of the networks."""
    if not torch.cuda.is_available():
        print("no GPU: nothing measured")
        return
    print(torch.cuda.get_device_name())
    pipe = pipeline().to("cuda", torch.bfloat16)
    sweep("pipeline, bfloat16", lambda prompts: theirs(pipe, prompts))
    ours = our_pipeline()
    sweep_ours("ours, compiled", ours)
    for every in (2, 3, 5):
        sweep_ours(f"ours, compiled, --step-cache {every}", ours, every)
    sweep_ours("ours, compiled, --token-merging 0.5", our_pipeline(0.5))
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)
    pipe.unet = torch.compile(pipe.unet, mode="reduce-overhead", fullgraph=True)
    pipe.vae.decode = torch.compile(pipe.vae.decode, mode="reduce-overhead", fullgraph=True)
    sweep("pipeline, compiled", lambda prompts: theirs(pipe, prompts))


if __name__ == "__main__":
    run()
