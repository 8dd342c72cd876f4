"""Rates of writing and reading shards beside webdataset; equality first, interleaved, in memory of the page cache.

python benchmarks/shards.py
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import simplejpeg
import webdataset

from synclones.base.json_file import canonical_json
from synclones.shards.index import finish_folder
from synclones.shards.read import ShardFolder
from synclones.shards.schema import Sample
from synclones.shards.write import ShardWriter

SAMPLES, BATCH, ROUNDS, SIDE_PX = 2000, 50, 5, 256


def make_samples() -> list[Sample]:
    """Return smooth images of 256 px with realistic file sizes."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    files = [simplejpeg.encode_jpeg(np.ascontiguousarray(p), quality=90, colorsubsampling="420") for p in coarse]
    return [
        Sample(index=i, jpg=files[i % 64], json=canonical_json({"index": i}), txt=f"a photo of {i}", label=i % 1000)
        for i in range(SAMPLES)
    ]


def write_ours(folder: Path, samples: list[Sample]) -> None:
    """Write one shard with our writer: journalled, synced, hashed, indexed."""
    folder.mkdir()
    with ShardWriter(folder, "train-00000", "plan") as writer:
        for number in range(SAMPLES // BATCH):
            writer.add_batch(number, samples[number * BATCH : (number + 1) * BATCH])
        writer.finish()
    finish_folder(folder)


def write_peer(folder: Path, samples: list[Sample]) -> None:
    """Write one tar with webdataset's TarWriter: no sync, no hash, no index."""
    folder.mkdir()
    with (folder / "train-00000.tar").open("wb") as stream, webdataset.TarWriter(stream) as writer:
        for s in samples:
            writer.write(
                {"__key__": f"{s.index:010d}", "cls": b"1", "jpg": s.jpg, "json": s.json, "txt": s.txt.encode()}
            )


def seconds(function, *args) -> float:
    """Return wall seconds of one call."""
    started = time.perf_counter()
    function(*args)
    return time.perf_counter() - started


def run() -> None:
    """Print ours, peer, ratio for writing, reading in order, and random access."""
    # By turns, so that a slow minute of the machine meets both.
    samples = make_samples()
    with tempfile.TemporaryDirectory() as name:
        root, times = Path(name), {key: [] for key in ("write ours", "write peer", "read ours", "read peer", "random")}
        order = np.random.default_rng(1).permutation(SAMPLES)[:500]
        for number in range(ROUNDS):
            mine, theirs = root / f"a{number}", root / f"b{number}"
            times["write ours"].append(seconds(write_ours, mine, samples))
            times["write peer"].append(seconds(write_peer, theirs, samples))
            shards, url = ShardFolder(mine), str(theirs / "train-00000.tar")
            if number == 0:
                read = [s["jpg"] for s in webdataset.WebDataset(url, shardshuffle=False)]
                assert read == [s.jpg for s in shards.sequential()] == [s.jpg for s in samples]
            times["read ours"].append(seconds(lambda s=shards: list(s.sequential())))
            times["read peer"].append(seconds(lambda u=url: list(webdataset.WebDataset(u, shardshuffle=False))))
            times["random"].append(seconds(lambda s=shards: [s.get(int(i)) for i in order]))
    best = {key: min(values) for key, values in times.items()}
    for what in ("write", "read"):
        ours, peer = (SAMPLES / best[f"{what} {who}"] for who in ("ours", "peer"))
        print(f"{what}: ours {ours:.0f} samples/s, webdataset {peer:.0f} samples/s, ratio {ours / peer:.2f}")
    print(f"random access: ours {len(order) / best['random']:.0f} samples/s, webdataset has none")


if __name__ == "__main__":
    run()
