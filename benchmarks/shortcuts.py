"""Step caching and token merging on Stable Diffusion 1.5 at its real size, random weights, 256 px on a CPU.

Prints CPU seconds per image on one core, beside drawing in full, and how far the images are apart. The seconds hold
for any weights; the distances do not: they depend on model and prompt, so measure with your own.

python benchmarks/shortcuts.py
"""

import time
from typing import Any

import numpy as np
import torch
from real_size import bench_plan, bench_rows, pipeline
from torch.utils.flop_counter import FlopCounterMode

from synclones.generate.generators.token_merging import merge_tokens
from synclones.generate.plan import Plan, describe_device
from synclones.generate.sampling.sampler import Sampler
from synclones.generate.sampling.step_cache import StepCache

SIDE, STEPS, CACHES, SHARE = 256, (20, 50), (2, 3, 5), 0.5
PROMPTS = ["a photo of a dog."]


def plan(steps: int, step_cache: int) -> Plan:
    """Return a plan without guidance, which only doubles the rows."""
    more = {"num_inference_steps": steps, "step_cache": step_cache}
    return bench_plan(guidance_scale=1.0, drawn_px=SIDE, stored_px=SIDE, **more)


def drawn(pipe: Any, steps: int, step_cache: int) -> tuple[np.ndarray, float]:
    """Return the images, float64[n, SIDE, SIDE, 3] in 0..255, and the CPU seconds they took, decoding included."""
    sampler = Sampler(pipe, plan(steps, step_cache))
    started = time.process_time()
    images = np.stack([record.image for record in sampler.draw(bench_rows(PROMPTS))])
    return images.astype(float), time.process_time() - started


@torch.inference_mode()
def share_of_operations(pipe: Any) -> float:
    """Return the operations of a cached step over those of a full one."""
    side = SIDE // 8
    asked = torch.zeros(1, 4, side, side, dtype=pipe.unet.dtype), 500, torch.zeros(1, 77, 768, dtype=pipe.unet.dtype)
    cache, operations = StepCache(pipe.unet, 2, False), []
    for _ in range(2):
        with FlopCounterMode(display=False) as counter:
            cache(*asked, return_dict=False)
        operations.append(counter.get_total_flops())
    return operations[1] / operations[0]


def run() -> None:
    """Print every shortcut beside the full generation, at both numbers of steps."""
    torch.set_num_threads(1)  # as a worker has
    pipe = pipeline().to(torch.bfloat16)
    for part in (pipe.unet, pipe.vae):
        part.to(memory_format=torch.channels_last)
    print(f"SD 1.5, {SIDE} px, one image without guidance, {describe_device('cpu')}")
    print(f"a cached step has {share_of_operations(pipe):.1%} of the operations of a full one")
    drawn(pipe, 1, 1)  # chooses kernels, which must not count
    full = {steps: drawn(pipe, steps, 1) for steps in STEPS}
    for steps, (_, seconds) in full.items():
        print(f"{steps} steps, in full: {seconds:.1f} CPU s")

    def beside(what: str, step_cache: int) -> None:
        for steps, (whole, seconds) in full.items():
            images, taken = drawn(pipe, steps, step_cache)
            apart = np.abs(images - whole).mean()
            print(f"{steps} steps, {what}: {taken:.1f} CPU s, ratio {taken / seconds:.2f}, {apart:.2f} of 255 apart")

    # Token merging changes the networks in place, and so comes last.
    for every in CACHES:
        beside(f"--step-cache {every}", every)
    merge_tokens(pipe.unet, SHARE)
    beside(f"--token-merging {SHARE}", 1)


if __name__ == "__main__":
    run()
