"""How long `synclones status` takes for sets of millions, as a process: start, imports, every shard's json and sizes.

    python benchmarks/status.py                    # 1,600 shards of 10,000: 16 M samples, finished and growing
    python benchmarks/status.py --shards 60000     # 600 M

The set is that of `benchmarks/scale.py`. For a growing one eight shards are journals of 9,950 rows, each shard has the
lock file that its worker left, and one is held.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scale import PER_SHARD, make

TURNS, GROWING = 5, 8


def seconds(folder: Path) -> tuple[float, str]:
    """Return the shortest time of several calls, and what was printed."""
    times = []
    for _ in range(TURNS):
        started = time.monotonic()
        command = [sys.executable, "-m", "synclones.cli", "status", str(folder)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        times.append(time.monotonic() - started)
    return min(times), shown


def let_grow(folder: Path, shards: int) -> None:
    """Make of a finished set one whose last shards are being drawn."""
    from synclones.base.files import write_atomic
    from synclones.base.json_file import pretty_json
    from synclones.shards.schema import Sample, ShardFiles, shard_name
    from synclones.shards.write import ShardWriter

    for name in ("info.json", "SHA256SUMS", "manifest.json", "sizes.json"):
        (folder / name).unlink()
    plan = {"plan_id": "0" * 16, "num_shards": shards, "num_samples": shards * PER_SHARD}
    write_atomic(folder / "plan.json", pretty_json(plan))
    for number in range(shards):
        (folder / f".{shard_name('train', number, shards)}.lock").touch()
    for number in range(shards - GROWING, shards):
        files = ShardFiles(folder, shard_name("train", number, shards))
        for path in (files.tar, files.parquet, files.json):
            path.unlink()
        with ShardWriter(folder, files.name, "0" * 16) as writer:
            for start in range(0, PER_SHARD - 50, 50):
                first = number * PER_SHARD + start
                batch = [Sample(index=first + i, jpg=b"x" * 100, json=b"{}", txt="x") for i in range(50)]
                writer.add_batch(start // 50, batch)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, default=1600)
    shards = parser.parse_args().shards
    from synclones.shards.lock import claim
    from synclones.shards.schema import shard_name

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "set"
        folder.mkdir()
        make(folder, shards)
        took, _ = seconds(folder)
        print(f"{shards * PER_SHARD:,} samples, finished: {took:.2f} s")
        let_grow(folder, shards)
        with claim(folder, shard_name("train", shards - 1, shards)):
            took, shown = seconds(folder)
        print(f"{shards * PER_SHARD:,} samples, {GROWING} shards growing: {took:.2f} s\n{shown}")


if __name__ == "__main__":
    main()
