"""Rate of the main job on the lab, beside a plain diffusers loop; equality first, interleaved, CPU seconds beside wall.

python benchmarks/generate.py
"""

import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from synclones.generate.model import find_model, load_pipeline
from synclones.generate.run import main
from synclones.generate.seeds import noise_generators
from synclones.lab.world import GENERATOR
from synclones.prompts.build import build
from synclones.prompts.classes import load_classes
from synclones.prompts.table import PromptTable
from synclones.shards.decode import decode_image
from synclones.shards.read import ShardFolder

IMAGES, ROUNDS, BATCH = 500, 3, 50


def ours(folder: Path, prompts: Path, *more: str) -> None:
    """The main job, end to end: plan, load, draw, write, index, contact sheet."""
    main(["--preset", "lab", "--prompts", str(prompts), "--out", str(folder), *more])


def peer(folder: Path, prompts: Path, seeds: list[int]) -> None:
    """What scripts do: a float32 pipeline over batches, one PNG file per image; torch's own threads."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    pipeline = load_pipeline(find_model(str(GENERATOR)), "DDIMScheduler", "float32", "cpu")
    assert isinstance(pipeline, StableDiffusionPipeline)
    rows = PromptTable(prompts).rows(0, IMAGES)
    folder.mkdir()
    for start in range(0, IMAGES, BATCH):
        batch = rows[start : start + BATCH]
        images = pipeline(
            [row.prompt for row in batch],
            num_inference_steps=20,
            guidance_scale=2.0,
            generator=noise_generators(seeds[start : start + BATCH]),
        ).images
        for row, image in zip(batch, images, strict=True):
            image.save(folder / f"{row.index:05d}.png")


def timed(function, *args) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    function(*args)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - wall, cpu


def check_equal(folder: Path, prompts: Path) -> list[int]:
    """Our float32 pictures are the peer's but for JPEG; returns the seeds."""
    from PIL import Image

    ours(folder / "equal", prompts, "--dtype", "float32")
    samples = list(ShardFolder(folder / "equal").sequential())
    seeds = [sample.seed for sample in samples]
    peer(folder / "equal-peer", prompts, seeds)
    errors = []
    for sample in samples:
        with Image.open(folder / "equal-peer" / f"{sample.index:05d}.png", formats=["PNG"]) as image:
            errors.append(np.abs(decode_image(sample.jpg).astype(float) - np.asarray(image)).mean())
    assert np.mean(errors) < 4, f"pictures differ by {np.mean(errors):.1f} grey levels"
    return seeds


@torch.inference_mode()
def network_share() -> float:
    """Share of a batch's CPU time, drawn as the peer does, that the UNet alone takes: no loop can save it."""
    torch.set_num_threads(1)
    pipeline = load_pipeline(find_model(str(GENERATOR)), "DDIMScheduler", "bfloat16", "cpu")
    spent = [0.0]
    forward = pipeline.unet.forward

    def counted(*args, **more):
        started = time.process_time()
        result = forward(*args, **more)
        spent[0] += time.process_time() - started
        return result

    pipeline.unet.forward = counted
    started = time.process_time()
    prompts, noise = ["a photo of a two."] * BATCH, noise_generators(list(range(BATCH)))
    pipeline(prompts, num_inference_steps=20, guidance_scale=2.0, generator=noise)
    return spent[0] / (time.process_time() - started)


def run() -> None:
    """Print ours, peer and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder, rates = Path(name), {"ours": [], "peer": []}
        prompts = folder / "p.parquet"
        build("clip-templates", load_classes("lab-digits"), IMAGES, 0, prompts)
        seeds = check_equal(folder, prompts)
        for number in range(ROUNDS):
            rates["ours"].append(timed(ours, folder / f"ours{number}", prompts))
            rates["peer"].append(timed(peer, folder / f"peer{number}", prompts, seeds))
    best = {who: min(wall for wall, _ in times) for who, times in rates.items()}
    cpu = {who: min(seconds for _, seconds in times) for who, times in rates.items()}
    cores = len(os.sched_getaffinity(0))
    print(f"{IMAGES} lab images, 20 steps with guidance, end to end, {cores} cores, best of {ROUNDS}")
    print(f"ours {IMAGES / best['ours']:.1f} images/s, peer {IMAGES / best['peer']:.1f} images/s, ", end="")
    print(f"ratio {best['peer'] / best['ours']:.2f} (by CPU time {cpu['peer'] / cpu['ours']:.2f})")
    print(f"of a batch's CPU time in bfloat16 the network takes {100 * network_share():.0f} %")


if __name__ == "__main__":
    run()
