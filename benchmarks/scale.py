"""How long a training's reader takes to open a set of millions, and how much memory it holds.

    python benchmarks/scale.py                     # 1,600 shards of 10,000: 16 M samples
    python benchmarks/scale.py --shards 60000      # 600 M, of simulated manifests
    python benchmarks/scale.py --images-per-caption 4   # in groups; the first start reads the json of every sample

One real shard of 10,000 tiny images stands for all: its tar and Parquet file are linked, each shard has a json of its
own. So opening, checking, order, columns, reading and decoding are what they are of a real set; only pixels repeat. All
is done in a process of its own, whose peak memory is printed; importing torch is about 0.4 GB of it.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PER_SHARD, BATCH = 10_000, 1024


def make(folder: Path, shards: int) -> None:
    """Write the set: one shard whole, the others as links and jsons."""
    import simplejpeg

    from synclones.base.files import write_atomic
    from synclones.base.json_file import canonical_json, pretty_json, read_json
    from synclones.base.manifest import write_manifest
    from synclones.shards.index import finish_folder
    from synclones.shards.schema import Sample, ShardFiles, shard_name
    from synclones.shards.write import ShardWriter

    rng = np.random.default_rng(0)
    jpegs = [simplejpeg.encode_jpeg(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), quality=50) for _ in range(16)]
    first = ShardFiles(folder, shard_name("train", 0, shards))
    facts = [canonical_json({"caption_id": i // 4}) for i in range(PER_SHARD)]
    samples = [Sample(index=i, jpg=jpegs[i % 16], json=facts[i], txt="x", label=i % 1000) for i in range(PER_SHARD)]
    with ShardWriter(folder, first.name, "0" * 16) as writer:
        writer.add_batch(0, samples)
        writer.finish()
    summary = read_json(first.json)
    for number in range(1, shards):
        files = ShardFiles(folder, shard_name("train", number, shards))
        # A file has at most 65,000 names on common file systems.
        source = first if number < 30_000 else ShardFiles(folder, shard_name("train", 30_000, shards))
        for path, origin in ((files.tar, source.tar), (files.parquet, source.parquet)):
            if number == 30_000:
                path.write_bytes((first.tar if path == files.tar else first.parquet).read_bytes())
            else:
                os.link(origin, path)
        start = number * PER_SHARD
        own = {"name": files.name, "first_index": start, "last_index": start + PER_SHARD - 1}
        files.json.write_bytes(pretty_json(summary | own))
    write_atomic(folder / "plan.json", canonical_json({"plan_id": "0" * 16, "num_shards": shards}))
    finish_folder(folder)
    write_manifest(folder, "benchmark", {}, [], {}, {}, {"classes": [f"c{i:03d}" for i in range(1000)]})


def read(folder: Path, step: int, epochs: int, images_per_caption: int) -> None:
    """Open the set as a training does, and read batches from a step on; print times and peak memory."""
    from synclones.shards.loading.batches import BatchLoader
    from synclones.shards.loading.crops import Crops
    from synclones.shards.loading.mixture import parse_mixture
    from synclones.shards.loading.parts import open_item, open_mixture

    started = time.monotonic()
    mixed = open_mixture(parse_mixture([str(folder)]), lambda item: open_item(item, images_per_caption))
    for part in mixed.parts:
        part.source.source.check(quick=True)
        part.source.check_labels()
        part.identity()
    opened = time.monotonic() - started
    loader = BatchLoader(mixed, batch_size=BATCH, seed=0, crops=Crops(size_px=32), threads=2)
    next(iter(loader.batches(step, step + 1)))
    first = time.monotonic() - started
    print(
        f"{mixed.images_per_epoch:,} images, {mixed.parts[0].shuffle}: opened in {opened:.1f} s, first batch after "
        f"{first:.1f} s, {peak():.2f} GB"
    )
    per_epoch = mixed.images_per_epoch // BATCH
    for epoch in range(1, epochs + 1):
        for _ in loader.batches(step + epoch * per_epoch, step + epoch * per_epoch + 20):
            pass
        if epoch in (1, 10, epochs):
            print(f"20 batches of epoch {epoch}: peak {peak():.2f} GB")


def peak() -> float:
    """Return the peak memory of this process in 10^9 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, default=1600)
    parser.add_argument("--folder", type=Path, help="a set that an earlier call made, or to be made and kept")
    parser.add_argument("--read", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--images-per-caption", type=int, default=1)
    arguments = parser.parse_args()
    size = arguments.images_per_caption
    if arguments.read is not None:
        read(arguments.folder, arguments.read, 30 if size == 1 else 0, size)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch) / "set"
        if not folder.exists():
            folder.mkdir()
            started = time.monotonic()
            make(folder, arguments.shards)
            print(f"{arguments.shards} shards made in {time.monotonic() - started:.0f} s")
        middle = arguments.shards * PER_SHARD // BATCH // 2
        for step in (0, middle, 29 * middle):
            command = [sys.executable, __file__, "--folder", str(folder), "--read", str(step)]
            command += ["--images-per-caption", str(size)]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
