"""SD 1.5 at its real size on one GPU, random weights, 512 px, 20 steps with guidance: ours and diffusers' own recipes.

The peers are the pipeline in bfloat16 as it is, and with channels_last and compiled network and decoder as diffusers'
documentation of speed says. Ours again with step caching, with token merging, and as SD-Turbo in one step with a tiny
VAE. Speed does not depend on the weights. Limit of the first: 22.8 images/s, what the work of one image (34.6 TFLOP)
leaves of the 790 TFLOP/s that an H200 reaches in large bfloat16 products.

    python benchmarks/gpu_generate.py                                  # all rows: an hour, compiling for the most part
    python benchmarks/gpu_generate.py --rows ours turbo --sizes 32     # some
"""

import argparse
import time
from typing import Any

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from real_size import bench_plan, bench_rows, pipeline
from transformers import CLIPTextConfig, CLIPTextModel

from synclones.generate.generators.kernels import speed_up
from synclones.generate.generators.token_merging import merge_tokens
from synclones.generate.plan import Plan
from synclones.generate.sampling.sampler import Sampler
from synclones.generate.sampling.seeds import noise_generators, sample_seed

SIDE, STEPS, LIMIT = 512, 20, 22.8
ROWS = ("pipeline", "ours", "turbo", "cached", "merged", "pipeline-compiled")


def plan(side: int = SIDE, steps: int = STEPS, **more: Any) -> Plan:
    """Return the plan of `synclones generate --compile`, images stored at half their side."""
    return bench_plan(num_inference_steps=steps, drawn_px=side, stored_px=side // 2, compiled=True, **more)


def theirs(pipe: Any, prompts: list[str], side: int = SIDE, steps: int = STEPS) -> Any:
    """Generate as documented, into PIL images."""
    return pipe(
        prompts,
        num_inference_steps=steps,
        guidance_scale=2.0,
        height=side,
        width=side,
        generator=noise_generators([sample_seed(0, 0, index) for index in range(len(prompts))]),
    ).images


def rate(call: Any, size: int, seconds: float) -> float:
    """Return images per second, steady state: after two calls to warm up, for at least ``seconds``."""
    call(), call()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        call()  # ends with images on the CPU: nothing is left running
        done += size
    return done / (time.perf_counter() - started)


def sweep(kind: str, call: Any, asked: argparse.Namespace) -> None:
    """Print one line per batch size."""
    for size in asked.sizes:
        prompts = [f"a photo of a {index}." for index in range(size)]
        images_per_s = rate(lambda: call(prompts), size, asked.seconds)  # noqa: B023 - called before the next size
        share = "" if "Turbo" in kind else f", {100 * images_per_s / LIMIT:.0f} % of the limit"
        print(f"{kind}: batch {size}: {images_per_s:.2f} images/s{share}", flush=True)


def turbo() -> StableDiffusionPipeline:
    """Return networks of the form of SD-Turbo, which is that of SD 2.1, with a tiny VAE (TAESD)."""
    made = pipeline()
    made.unet = UNet2DConditionModel(
        sample_size=64, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
    )
    size = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
    made.text_encoder = CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_act="gelu", **size))
    made.vae = AutoencoderTiny()
    return made


def prepared(made: Any, share_merged: float = 0.0, device: str = "cuda", compiled: bool = True) -> Any:
    """Prepare a pipeline as `synclones generate --compile` does."""
    made = made.to(device, torch.bfloat16)
    for part in (made.unet, made.vae):
        part.to(memory_format=torch.channels_last)
    if share_merged:
        merge_tokens(made.unet, share_merged)
    speed_up(made, compiled, attention="auto")
    return made


def sweep_ours(kind: str, pipe: Any, asked: argparse.Namespace, **more: Any) -> None:
    """Sweep our sampler, by a plan with these settings."""
    sampler = Sampler(pipe, plan(**more))
    sweep(kind, lambda prompts: sampler.draw(bench_rows(prompts)), asked)


def run(asked: argparse.Namespace) -> None:
    """Sweep peers and ours, each with its own copy of the networks."""
    if not torch.cuda.is_available():
        print("no GPU: nothing measured")
        return
    print(torch.cuda.get_device_name(), torch.__version__)
    # The peer as it is comes first: it is compiled in place at the end.
    pipe = pipeline().to("cuda", torch.bfloat16)
    if "pipeline" in asked.rows:
        sweep("pipeline, bfloat16", lambda prompts: theirs(pipe, prompts), asked)
    if {"ours", "cached"} & {*asked.rows}:
        ours = prepared(pipeline())
        sweep_ours("ours, compiled", ours, asked)
        for every in (2, 3, 5) if "cached" in asked.rows else ():
            sweep_ours(f"ours, compiled, --step-cache {every}", ours, asked, step_cache=every)
    if "merged" in asked.rows:
        sweep_ours("ours, compiled, --token-merging 0.5", prepared(pipeline(), 0.5), asked)
    if "turbo" in asked.rows:
        kind = "ours, compiled, SD-Turbo, one step, tiny VAE"
        sweep_ours(kind, prepared(turbo()), asked, steps=1, guidance_scale=0.0)
    if "pipeline-compiled" in asked.rows:
        for part in (pipe.unet, pipe.vae):
            part.to(memory_format=torch.channels_last)
        pipe.unet = torch.compile(pipe.unet, mode="reduce-overhead", fullgraph=True)
        pipe.vae.decode = torch.compile(pipe.vae.decode, mode="reduce-overhead", fullgraph=True)
        sweep("pipeline, compiled", lambda prompts: theirs(pipe, prompts), asked)


def main() -> None:
    """Print the rows that were asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=ROWS)
    parser.add_argument("--sizes", nargs="*", type=int, default=(1, 8, 32, 64))
    parser.add_argument("--seconds", type=float, default=20.0)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
