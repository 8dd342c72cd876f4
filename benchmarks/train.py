"""Rates of what training reads and does, beside peers: decoded batches beside webdataset's, steps beside a plain loop.

    python benchmarks/train.py

Equality first: the same pixels (to the rounding of two JPEG decoders), the same loss after three steps. CPU seconds on
one thread, interleaved.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import simplejpeg
import timm
import torch
import torch.nn.functional as F
import webdataset

from synclones.base.json_file import canonical_json
from synclones.base.manifest import write_manifest
from synclones.models.network import Classifier, Preprocessing, create_network
from synclones.shards.index import finish_folder
from synclones.shards.loading.batches import BatchLoader
from synclones.shards.loading.crops import Crops
from synclones.shards.loading.parts import single
from synclones.shards.schema import Sample
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.write import ShardWriter
from synclones.train.augmentation.augment import Augmentation

SAMPLES, BATCH, SIDE_PX, ROUNDS, STEPS = 1024, 64, 256, 3, 6
LAB = {"patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 3}


def make_folder(folder: Path) -> Path:
    """Write smooth labelled images of 256 px in one shard."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    files = [simplejpeg.encode_jpeg(np.ascontiguousarray(p), quality=90, colorsubsampling="420") for p in coarse]
    with ShardWriter(folder, "train-00000", "plan") as writer:
        facts = [canonical_json({"index": i}) for i in range(SAMPLES)]
        samples = [Sample(index=i, jpg=files[i % 64], json=facts[i], txt="x", label=i % 10) for i in range(SAMPLES)]
        writer.add_batch(0, samples)
        writer.finish()
    finish_folder(folder)
    write_manifest(folder, "benchmark", {}, [], {}, {}, {"classes": list("0123456789"), "content_hash": ""})
    return folder


def read_ours(folder: Path) -> dict[int, torch.Tensor]:
    """Read one shuffled epoch: index -> pixels, every crc checked."""
    loader = BatchLoader(
        single(LabelledSource(folder)), batch_size=BATCH, seed=0, crops=Crops(size_px=SIDE_PX), threads=1
    )
    seen = {}
    for batch in loader.batches(0, SAMPLES // BATCH):
        seen |= dict(zip(batch.index.tolist(), batch.pixels[:, 0], strict=True))
    return seen


def read_peer(folder: Path) -> dict[int, torch.Tensor]:
    """Read by the usual pipeline up to uint8 batches: webdataset, shuffle buffer, PIL, default batching."""
    data = webdataset.WebDataset(str(folder / "train-00000.tar"), shardshuffle=False, empty_check=False)
    data = data.shuffle(1000).decode("pil", only=["jpg", "cls"]).to_tuple("__key__", "jpg", "cls")
    data = data.map_tuple(int, np.asarray, int).batched(BATCH, partial=False)
    seen: dict[int, torch.Tensor] = {}
    for keys, images, _ in data:
        seen |= dict(zip(keys, torch.from_numpy(np.stack(images)), strict=True))
    return seen


def cpu_seconds(function, *args) -> float:
    """Return CPU seconds of one call."""
    started = time.process_time()
    function(*args)
    return time.process_time() - started


def compare_reading() -> None:
    """Print decoded images per CPU second."""
    with tempfile.TemporaryDirectory() as name:
        folder = make_folder(Path(name))
        ours, peer = read_ours(folder), read_peer(folder)
        assert ours.keys() == peer.keys() and len(ours) == SAMPLES
        assert all((ours[i].int() - peer[i].int()).abs().max() <= 3 for i in range(64)), "other pixels"
        times: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(ROUNDS):
            times["ours"].append(cpu_seconds(read_ours, folder))
            times["peer"].append(cpu_seconds(read_peer, folder))
    ours_rate, peer_rate = (SAMPLES / min(times[who]) for who in ("ours", "peer"))
    print(f"decoded 256 px images per CPU second: ours {ours_rate:.0f}, webdataset + PIL {peer_rate:.0f}, ", end="")
    print(f"ratio {ours_rate / peer_rate:.2f}")


def steps(ours: bool, count: int) -> float:
    """Train the lab's network on random pixels, our augmentation in or a plain timm loop; return the last loss."""
    torch.manual_seed(0)
    if ours:
        network = create_network("vit_tiny_patch16_224", 10, 32, LAB)
    else:
        network = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=32, **LAB)
    model = Classifier(network, Preprocessing(size_px=32), tuple("0123456789"))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(1)
    augment, numbers, loss = Augmentation(), np.arange(128), 0.0
    for step in range(count):
        pixels = torch.randint(0, 256, (128, 32, 32, 3), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, 10, (128,), generator=generator)
        if ours:
            images = augment.apply(pixels, augment.draws(numbers, numbers, numbers + step))
        else:
            images = pixels.permute(0, 3, 1, 2).float() / 255
        value = F.cross_entropy(model(images), labels)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss = value.item()
    return loss


def compare_steps() -> None:
    """Print images per CPU second of whole steps."""
    assert abs(steps(True, 3) - steps(False, 3)) < 1e-4, "another loss"
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for ours in (True, False):
            times[ours].append(cpu_seconds(steps, ours, STEPS))
    ours_rate, peer_rate = (128 * STEPS / min(times[who]) for who in (True, False))
    print(f"lab training, images per CPU second: ours {ours_rate:.0f}, plain timm loop {peer_rate:.0f}, ", end="")
    print(f"ratio {ours_rate / peer_rate:.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    compare_reading()
    compare_steps()
