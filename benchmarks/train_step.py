"""A training step of ViT-S/16 on a CPU beside timm's, and whole epochs of a small network from shards of 512 px.

    python benchmarks/train_step.py                  # both
    python benchmarks/train_step.py --rows epoch

The step: images in memory, ours a `Trainer` as `synclones train` has it, the peer what timm's train.py does for each
batch (pixels normalised, cross-entropy, gradient norm, AdamW); equal losses of three steps first, then CPU time of
interleaved rounds on one thread. The epoch: wall time on all cores, ours with two decoding threads, the peer
torchvision's crops through `wds.WebDataset` and a `DataLoader` with a worker for each core. Ours decodes with
`--decode fast`, at the smallest of JPEG's scales that the crop needs, unless --decode faithful is given; the peer
decodes whole images, as PIL does. Reading is what differs, so that the ratio depends on what the network takes: it is
measured at several sizes of the crops.
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
import timm
import torch
import torch.nn.functional as F
import webdataset
from read import make_folder, photographs
from torch.utils.data import DataLoader
from torchvision import transforms

from synclones.shards.loading.batch import Batch
from synclones.train.job import prepare
from synclones.train.launch import start_accelerator
from synclones.train.loop import Trainer
from synclones.train.settings import TrainConfig

MEAN, STD, CLASSES = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 10
SMALL = {"depth": 2}  # of ViT-Ti/16: 0.4 GFLOP an image of 224 px with its gradient, so that reading counts
STEP_BATCH, EPOCH_BATCH, TIMES = 16, 32, 4


def trainer_of(folder: Path, batch: int, architecture: str, **more: Any) -> Trainer:
    """Return a trainer that is ready to take steps."""
    settings: dict[str, Any] = {
        **{"data": (f"{folder}:{TIMES}",), "out": folder / "run", "steps": 10**6, "batch_size": batch, "device": "cpu"},
        **{"precision": "fp32", "decode": "fast", "warmup": 0.0, "schedule": "constant", "architecture": architecture},
    }
    job = prepare(TrainConfig(**settings | more), 0, 1)
    trainer = Trainer(job, start_accelerator(job))
    trainer.start()
    return trainer


def adamw(network: torch.nn.Module) -> torch.optim.Optimizer:
    """Return AdamW by timm's rule of what decays."""
    return torch.optim.AdamW(timm.optim.param_groups_weight_decay(network, 0.05), 1e-3)


def their_step(network: torch.nn.Module, optimizer: Any, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Take a step as timm's loop does; ``images`` are normalised."""
    loss = F.cross_entropy(network(images), labels)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def compare_steps(folder: Path, rounds: int) -> None:
    """Print CPU time of a step, ours and the peer's, on one thread."""
    torch.set_num_threads(1)
    trainer = trainer_of(folder, STEP_BATCH, "vit_small_patch16_224")
    held: Batch = next(iter(trainer.job.loader().batches(0, 1)))
    network = timm.create_model("vit_small_patch16_224", num_classes=CLASSES)
    network.load_state_dict(trainer.learner.network.state_dict())
    network.train()
    optimizer, (mean, std) = adamw(network), (torch.tensor(x).view(1, 3, 1, 1) for x in (MEAN, STD))

    def ours() -> float:
        trainer.train_step(held)
        return float(trainer.watch.losses.mean())

    def theirs() -> float:
        images = (held.pixels[:, 0].permute(0, 3, 1, 2).float() / 255 - mean) / std
        return their_step(network, optimizer, images, held.labels)

    losses = [(ours(), theirs()) for _ in range(3)]
    assert np.allclose(*zip(*losses, strict=True), rtol=1e-3), losses
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for name, step in (("ours", ours), ("theirs", theirs)):
            started = time.process_time()
            step()
            times[name].append(time.process_time() - started)
    ratio = statistics.median(b / a for a, b in zip(times["ours"], times["theirs"], strict=True))
    print(f"step of ViT-S/16, {STEP_BATCH} images, float32, one thread: ours {min(times['ours']):.2f} CPU s, ", end="")
    print(
        f"timm's {min(times['theirs']):.2f}, ratio {min(times['theirs']) / min(times['ours']):.3f}, median {ratio:.3f}"
    )


def our_epoch(folder: Path, images: int, size_px: int, decode: str) -> Callable[[], None]:
    """Return an epoch of ours."""
    shape = {"image_size_px": size_px, "decode": decode, "out": folder / f"run-{size_px}"} | SMALL
    trainer = trainer_of(folder, EPOCH_BATCH, "vit_tiny_patch16_224", **shape)

    def epoch() -> None:
        for batch in trainer.job.loader().batches(0, images // EPOCH_BATCH):
            trainer.train_step(batch)

    return epoch


def their_epoch(folder: Path, images: int, size_px: int, workers: int) -> Callable[[], None]:
    """Return an epoch of webdataset, torchvision and a plain loop."""
    network = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, img_size=size_px, **SMALL)
    optimizer, bicubic = adamw(network), transforms.InterpolationMode.BICUBIC
    crop = transforms.RandomResizedCrop(size_px, (0.08, 1.0), interpolation=bicubic)
    last = [transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    transform = transforms.Compose([crop, *last])

    def epoch() -> None:
        tar = str(folder / "train-00000.tar")
        # As many times as there are workers, each of which reads its own.
        data = webdataset.WebDataset([tar] * workers, shardshuffle=False, empty_check=False).shuffle(100)
        data = data.decode("pil", only=["jpg", "cls"]).to_tuple("jpg", "cls").map_tuple(transform, int)
        data = data.repeat().with_epoch(images // workers)
        seen = 0
        for pixels, labels in DataLoader(data, batch_size=EPOCH_BATCH, num_workers=workers):
            their_step(network, optimizer, pixels, labels)
            seen += len(labels)
        assert abs(seen - images) < EPOCH_BATCH, seen

    return epoch


def network_rate(size_px: int) -> float:
    """Return images per second of steps of the network alone, images in memory."""
    network = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES, img_size=size_px, **SMALL)
    optimizer = adamw(network)
    images, labels = torch.randn(EPOCH_BATCH, 3, size_px, size_px), torch.zeros(EPOCH_BATCH, dtype=torch.long)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        their_step(network, optimizer, images, labels)
        times.append(time.perf_counter() - started)
    return EPOCH_BATCH / statistics.median(times)


def compare_epochs(folder: Path, images: int, size_px: int, decode: str, rounds: int) -> None:
    """Print images per second by the clock, reading included."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    ours = our_epoch(folder, images, size_px, decode)
    epochs = {"ours": ours, "theirs": their_epoch(folder, images, size_px, cores)}
    times: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(rounds):
        for name, epoch in epochs.items():
            started = time.perf_counter()
            epoch()
            times[name].append(time.perf_counter() - started)
    rates = {name: images / min(each) for name, each in times.items()}
    median = statistics.median(b / a for a, b in zip(times["ours"], times["theirs"], strict=True))
    alone = f"ViT-Ti/16 of two blocks at {size_px} px ({network_rate(size_px):.0f} images/s alone)"
    ours_read = f"ours ({decode} decoding) {rates['ours']:.0f} images/s"
    ratio = f"ratio {rates['ours'] / rates['theirs']:.2f}, {median:.2f}"
    print(f"epoch from 512 px shards, {alone}, {cores} cores: {ours_read}, ", end="")
    print(f"webdataset + torchvision {rates['theirs']:.0f}, {ratio}")


def main() -> None:
    """Print the rows that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", default=["step", "epoch"])
    parser.add_argument("--sizes-px", nargs="*", type=int, default=[224, 128, 64], help="of the crops of an epoch")
    parser.add_argument("--decode", default="fast", choices=["fast", "faithful"], help="ours in an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        files = photographs(512)
        folder = make_folder(Path(name), files)
        if "step" in arguments.rows:
            compare_steps(folder, arguments.rounds)
        if "epoch" in arguments.rows:
            for size_px in arguments.sizes_px:
                compare_epochs(folder, len(files) * TIMES, size_px, arguments.decode, arguments.rounds)


if __name__ == "__main__":
    main()
