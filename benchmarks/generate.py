"""Rate of the main job on the lab, beside a plain diffusers loop; equality first, interleaved, CPU seconds beside wall.

python benchmarks/generate.py
"""

import io
import os
import resource
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from webdataset import ShardWriter, WebDataset

from synclones.base.machine import computes_bf16
from synclones.generate.generators.generator import load_pipeline, make_generator
from synclones.generate.generators.model import find_model
from synclones.generate.run import main
from synclones.generate.sampling.seeds import noise_generators
from synclones.lab.world import GENERATOR
from synclones.prompts.build import build
from synclones.prompts.classes.lists import load_classes
from synclones.prompts.table import PromptTable
from synclones.shards.read import ShardFolder
from synclones.shards.sources.decode import decode_image

IMAGES, ROUNDS, BATCH, ALONE = 500, 3, 50, 100
READ = {"shardshuffle": False, "empty_check": False}


def ours(folder: Path, prompts: Path, *more: str) -> None:
    """Run the main job, end to end: plan, load, draw, write, index, contact sheet."""
    main(["--preset", "lab", "--prompts", str(prompts), "--out", str(folder), *more])


def peer(folder: Path, prompts: Path, seeds: list[int], dtype: str = "float32", batch: int = BATCH) -> None:
    """Do what scripts do: a pipeline, in float32 as documented, PIL, webdataset's ShardWriter; torch's own threads."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    pipeline = load_pipeline(make_generator(find_model(str(GENERATOR))), "DDIMScheduler", dtype, "cpu")
    assert isinstance(pipeline, StableDiffusionPipeline)
    rows = PromptTable(prompts).rows(0, len(seeds))
    folder.mkdir()
    with ShardWriter(f"{folder}/%05d.tar", maxcount=100, verbose=0) as writer:
        for start in range(0, len(seeds), batch):
            part = rows[start : start + batch]
            images = pipeline(
                [row.prompt for row in part],
                num_inference_steps=20,
                guidance_scale=2.0,
                generator=noise_generators(seeds[start : start + batch]),
            ).images
            for row, image in zip(part, images, strict=True):
                data = io.BytesIO()
                image.save(data, "JPEG", quality=90)
                writer.write({"__key__": f"{row.index:010d}", "jpg": data.getvalue(), "txt": row.prompt.encode()})


def timed(function, *args) -> tuple[float, float]:
    """Return wall and CPU seconds of one call."""
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    function(*args)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - wall, cpu


def check_equal(folder: Path, prompts: Path) -> list[int]:
    """Check that our float32 images are the peer's but for rounding before JPEG; return the seeds."""
    ours(folder / "equal", prompts, "--dtype", "float32")
    samples = {sample.index: sample for sample in ShardFolder(folder / "equal").sequential()}
    seeds = [samples[index].seed for index in range(IMAGES)]
    peer(folder / "equal-peer", prompts, seeds)
    theirs = {
        int(row["__key__"]): row["jpg"] for row in WebDataset(f"{folder}/equal-peer/{{00000..00004}}.tar", **READ)
    }
    assert theirs.keys() == samples.keys()
    pairs = ((decode_image(samples[index].jpg), decode_image(jpg)) for index, jpg in theirs.items())
    error = np.mean([np.abs(a.astype(float) - b).mean() for a, b in pairs])
    assert error < 4, f"images differ by {error:.1f} grey levels"
    return seeds


@torch.inference_mode()
def network_share(dtype: str) -> float:
    """Return the UNet's share of a batch's CPU time, generated as the peer does: no loop can save it."""
    torch.set_num_threads(1)
    pipeline = load_pipeline(make_generator(find_model(str(GENERATOR))), "DDIMScheduler", dtype, "cpu")
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
    """Print ours, the peers and their ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder, dtypes = Path(name), ["float32", *(["bfloat16"] if computes_bf16("cpu") else [])]
        prompts = folder / "p.parquet"
        build("clip-templates", load_classes("lab-digits"), IMAGES, 0, prompts)
        seeds = check_equal(folder, prompts)
        times: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for number, dtype in product(range(ROUNDS), dtypes):
            own, theirs = (folder / f"{who}-{dtype}{number}" for who in ("ours", "peer"))
            times.setdefault(("ours", dtype), []).append(timed(ours, own, prompts, "--dtype", dtype))
            times.setdefault(("peer", dtype), []).append(timed(peer, theirs, prompts, seeds, dtype))
        alone = timed(peer, folder / "alone", prompts, seeds[:ALONE], "float32", 1)
    wall, cpu = ({who: min(pair[i] for pair in pairs) / IMAGES for who, pairs in times.items()} for i in (0, 1))
    best, documented = ("ours", dtypes[-1]), ("peer", "float32")  # as each does it unasked
    cores = len(os.sched_getaffinity(0))
    print(f"{IMAGES} lab images, 20 steps with guidance, end to end, {cores} cores, best of {ROUNDS}")
    print(
        f"ours {1 / wall[best]:.1f} images/s in {dtypes[-1]}, as it chooses here; pipeline + PIL + ShardWriter in ",
        end="",
    )
    print(
        f"batches of {BATCH} {1 / wall[documented]:.1f} in float32, ratio {wall[documented] / wall[best]:.2f} ", end=""
    )
    print(f"(by CPU time {cpu[documented] / cpu[best]:.2f}); one prompt a call {ALONE / alone[0]:.1f}, ", end="")
    print(f"ratio {alone[0] / ALONE / wall[best]:.2f} ({alone[1] / ALONE / cpu[best]:.2f})")
    for dtype in dtypes:
        own, theirs = ("ours", dtype), ("peer", dtype)
        print(f"both in {dtype}: {1 / wall[own]:.1f} and {1 / wall[theirs]:.1f} images/s, ", end="")
        print(f"ratio {wall[theirs] / wall[own]:.2f} (by CPU time {cpu[theirs] / cpu[own]:.2f})")
    print(f"of a batch's CPU time in {dtypes[-1]} the network takes {100 * network_share(dtypes[-1]):.0f} %")


if __name__ == "__main__":
    run()
