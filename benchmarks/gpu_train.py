"""Training steps of ViT-B/16 on one GPU, random images in memory: ours, and the usual loops around timm and open_clip.

    python benchmarks/gpu_train.py                      # all rows
    python benchmarks/gpu_train.py --rows supervised    # or clip, dropout, loader

Ours is a `Trainer` as `synclones train --compile` has it: a batch of uint8 pixels in pinned memory, copied, augmented,
normalised, bfloat16 autocast, gradient norm, AdamW, metrics. The peers are compiled too: timm's step, pixels normalised
on the device as its prefetcher does it, and open_clip's (`ClipLoss`). Equality comes first: the losses of three steps
from the same weights. Limits: an image's work (`operations.py`) at 790 TFLOP/s, an H200's in large bfloat16 products.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import simplejpeg
import timm
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss

from synclones.base.json_file import canonical_json
from synclones.base.manifest import write_manifest
from synclones.shards.index import finish_folder
from synclones.shards.loading.batch import Batch
from synclones.shards.schema import Sample
from synclones.shards.write import ShardWriter
from synclones.train.job import prepare
from synclones.train.launch import start_accelerator
from synclones.train.loop import Trainer
from synclones.train.settings import TrainConfig

SAMPLES, CLASSES, SECONDS, ROUNDS = 4096, 1000, 5.0, 3
LIMITS = {"supervised": 7513, "clip": 6420}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Step = Callable[[], torch.Tensor]


def make_folder(folder: Path) -> Path:
    """Write labelled images of 256 px, their captions all different."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    files = [simplejpeg.encode_jpeg(np.ascontiguousarray(p), quality=90, colorsubsampling="420") for p in coarse]
    with ShardWriter(folder, "train-00000", "plan") as writer:
        samples = [
            Sample(
                index=i,
                jpg=files[i % 64],
                json=canonical_json({"index": i, "caption_id": i}),
                txt=f"a photo of number {i}.",
                label=i % CLASSES,
            )
            for i in range(SAMPLES)
        ]
        writer.add_batch(0, samples)
        writer.finish()
    finish_folder(folder)
    facts = {"classes": [f"c{i:03d}" for i in range(CLASSES)], "content_hash": ""}
    write_manifest(folder, "benchmark", {}, [], {}, {}, facts)
    return folder


def trainer_of(folder: Path, batch: int, **more: Any) -> Trainer:
    """Return a trainer that is ready to take steps."""
    settings: dict[str, Any] = {
        **{"data": (str(folder),), "out": folder / "run", "steps": 10**6, "batch_size": batch, "compile": True},
        **{"device": "cuda", "precision": "bf16"},
        **{"decode": "fast", "warmup": 0.0, "schedule": "constant", "architecture": "vit_base_patch16_224"},
    }
    job = prepare(TrainConfig(**settings | more), 0, 1)
    trainer = Trainer(job, start_accelerator(job))
    trainer.start()
    return trainer


def first_batch(trainer: Trainer) -> Batch:
    """Return a batch in pinned memory."""
    return next(iter(trainer.job.loader(pin_memory=True).batches(0, 1)))


def ours(trainer: Trainer, batch: Batch) -> Step:
    """Return a step that returns the loss summed so far, still on the device."""

    def step() -> torch.Tensor:
        trainer.train_step(batch)
        return trainer._totals["loss"]

    return step


def adamw(network: torch.nn.Module) -> torch.optim.Optimizer:
    """Return AdamW by timm's rule of what decays."""
    groups = timm.optim.param_groups_weight_decay(network, 0.05)
    return torch.optim.AdamW(groups, 1e-3, fused=True)


def theirs_supervised(network: torch.nn.Module, batch: Batch) -> Step:
    """Return the step of timm's loop: autocast, cross-entropy, gradient norm, AdamW."""
    optimizer, model = adamw(network), torch.compile(network)
    mean, std = (torch.tensor(x, device="cuda").view(1, 3, 1, 1) for x in (MEAN, STD))
    pixels, labels = batch.pixels[:, 0].permute(0, 3, 1, 2).contiguous().pin_memory(), batch.labels.pin_memory()

    def step() -> torch.Tensor:
        images = (pixels.to("cuda", non_blocking=True).float() / 255 - mean) / std
        with torch.autocast("cuda", torch.bfloat16):
            loss = F.cross_entropy(model(images), labels.to("cuda", non_blocking=True))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def theirs_clip(network: torch.nn.Module, batch: Batch) -> Step:
    """Return the step of open_clip's loop: autocast, `ClipLoss`, gradient norm, AdamW, the scale bounded."""
    optimizer, model, contrast = adamw(network), torch.compile(network), ClipLoss()
    mean, std = (torch.tensor(x, device="cuda").view(1, 3, 1, 1) for x in (MEAN, STD))
    pixels, tokens = batch.pixels[:, 0].permute(0, 3, 1, 2).contiguous().pin_memory(), batch.extras.tokens.pin_memory()

    def step() -> torch.Tensor:
        images = (pixels.to("cuda", non_blocking=True).float() / 255 - mean) / std
        with torch.autocast("cuda", torch.bfloat16):
            image, text, scale = model(images, tokens.to("cuda", non_blocking=True))
            loss = contrast(image, text, scale)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            network.logit_scale.clamp_(0, np.log(100))
        return loss.detach()

    return step


def check_equal(mine: Step, peer: Step, batch: int) -> str:
    """Compare the losses of three steps; both began with the same weights."""
    sums = [float(mine()) / batch for _ in range(3)]
    own = [sums[0], sums[1] - sums[0], sums[2] - sums[1]]
    other = [float(peer()) for _ in range(3)]
    assert np.allclose(own, other, rtol=2e-2), f"other losses: {own}, {other}"
    return ", ".join(f"{a:.3f} and {b:.3f}" for a, b in zip(own, other, strict=True))


def rates(steps: dict[str, Step], batch: int) -> dict[str, float]:
    """Return images per second: the median of interleaved rounds, each long enough for a steady state."""
    seen: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            step(), torch.cuda.synchronize()
            started, done = time.perf_counter(), 0
            while time.perf_counter() - started < SECONDS:
                for _ in range(4):
                    step()
                torch.cuda.synchronize()
                done += 4 * batch
            seen[name].append(done / (time.perf_counter() - started))
    return {name: statistics.median(each) for name, each in seen.items()}


def compare(kind: str, folder: Path, batch: int, **more: Any) -> None:
    """Print a row: equal losses, then rates."""
    torch.cuda.reset_peak_memory_stats()
    trainer = trainer_of(folder, batch, **more)
    held = first_batch(trainer)
    if kind == "supervised":
        network = timm.create_model("vit_base_patch16_224", num_classes=CLASSES)
        peer = theirs_supervised
    else:
        network = open_clip.create_model("ViT-B-16", force_patch_dropout=more.get("patch_dropout"))
        peer = theirs_clip
    network.load_state_dict(trainer.learner.network.state_dict())
    network = network.cuda().train()
    steps = {"ours": ours(trainer, held), "peer": peer(network, held)}
    equal = "not compared (patches are left out at random)" if more.get("patch_dropout") else ""
    equal = equal or check_equal(steps["ours"], steps["peer"], batch)
    rate = rates(steps, batch)
    share = 100 * rate["ours"] / LIMITS[kind]
    print(
        f"{kind} {more or ''}: batch {batch}: ours {rate['ours']:.0f} images/s ({share:.0f} % of the limit), "
        f"peer {rate['peer']:.0f}, ratio {rate['ours'] / rate['peer']:.3f}; losses {equal}; "
        f"{torch.cuda.max_memory_allocated() / 1e9:.0f} GB for both",
        flush=True,
    )


def whole_training(folder: Path, batch: int, decoders: list[int]) -> None:
    """Print the rate with the loader: read, decoded from 256 px, cropped, trained on; then the loader's alone."""
    cores = len(os.sched_getaffinity(0))
    for threads in decoders:
        trainer = trainer_of(folder, batch, decode_threads=threads)
        loader, started = trainer.job.loader(pin_memory=True), 0.0
        warm, count = 6, 40
        for number, held in enumerate(loader.batches(0, warm + count)):
            if number == warm:
                torch.cuda.synchronize()
                started = time.perf_counter()
            trainer.train_step(held)
        torch.cuda.synchronize()
        rate = count * batch / (time.perf_counter() - started)
        for number, _ in enumerate(trainer.job.loader(pin_memory=True).batches(0, warm + count)):
            if number == warm:
                started = time.perf_counter()
        alone = (count - 1) * batch / (time.perf_counter() - started)
        print(
            f"with its loader, batch {batch}, --decode-threads {threads} of {cores} cores: {rate:.0f} images/s; "
            f"reading alone {alone:.0f}",
            flush=True,
        )


def main() -> None:
    """Print the rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", default=["supervised", "clip", "dropout", "loader"])
    parser.add_argument("--batches", nargs="*", type=int, default=[256, 512, 1024])
    parser.add_argument("--decode-threads", nargs="*", type=int, default=[4, len(os.sched_getaffinity(0))])
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU: nothing measured")
        return
    print(torch.cuda.get_device_name(), torch.__version__)
    with tempfile.TemporaryDirectory() as name:
        folder = make_folder(Path(name))
        for batch in arguments.batches:
            if "supervised" in arguments.rows:
                compare("supervised", folder, batch)
            if "clip" in arguments.rows:
                compare("clip", folder, batch, objective="clip", architecture="ViT-B-16")
            torch._dynamo.reset()
            torch.cuda.empty_cache()
        if "dropout" in arguments.rows:
            more: dict[str, Any] = {"objective": "clip", "architecture": "ViT-B-16", "patch_dropout": 0.5}
            compare("clip", folder, arguments.batches[-1], **more)
        if "loader" in arguments.rows:
            whole_training(folder, arguments.batches[-1], arguments.decode_threads)


if __name__ == "__main__":
    main()
