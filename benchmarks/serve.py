"""How long pages of a set of millions take in the browser, and how much memory the server holds while it is asked.

    python benchmarks/serve.py                 # 1,600 shards of 10,000 rows: 16 M, with a prompt table of 16 M rows
    python benchmarks/serve.py --shards 160
    python benchmarks/serve.py --folder /scratch/set   # made there once, and kept

    python benchmarks/serve.py --folder /scratch/set   # made there once, and kept
an image. Of images there is one shard, whose tar stands for all by links. The server is a process of its own; its first
page is timed from its start, pages and searches from the request, and its memory is what the kernel states.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

import numpy as np

PER_SHARD, CLASSES, RANDOM_PAGES, MODEL = 10_000, 1000, 500, "clip:benchmark"
COMMAND = (sys.executable, "-m", "synclones.cli")


def make(folder: Path, shards: int) -> None:
    """Write prompt table and set: sidecars of their own, and one tar under the names of all."""
    import pyarrow as pa

    from synclones.base.files import sha256_bytes, write_atomic
    from synclones.base.json_file import pretty_json, read_json
    from synclones.base.manifest import Parent, write_manifest
    from synclones.prompts.table import PromptTable
    from synclones.shards.index import finish_folder
    from synclones.shards.schema import ShardFiles, shard_name
    from synclones.shards.sidecar import read_sidecar
    from synclones.shards.write import parquet_bytes

    table_path = folder.parent / f"{folder.name}.prompts.parquet"
    build = ("prompts", "build", "--recipe", "clip-templates", "--classes", "imagenet1k")
    subprocess.run([*COMMAND, *build, "--num-images", str(shards * PER_SHARD), "--out", str(table_path)], check=True)
    prompts = PromptTable(table_path)
    summary, first = first_shard(folder, shards)
    rows = read_sidecar(first.parquet)
    rng = np.random.default_rng(0)
    for number in range(shards):
        files = ShardFiles(folder, shard_name("train", number, shards))
        index = np.arange(number * PER_SHARD, (number + 1) * PER_SHARD)
        seeds, scores = rng.integers(0, 2**32, PER_SHARD), rng.normal(0.28, 0.03, PER_SHARD)
        columns = {
            "key": [f"{i:010d}" for i in index.tolist()],
            "index": index,
            "seed": seeds,
            "label": (index % CLASSES).astype("i4"),
            "scores": [json.dumps({MODEL: round(score, 4)}) for score in scores.tolist()],
        }
        own = rows
        for name, values in columns.items():
            at = own.schema.get_field_index(name)
            own = own.set_column(at, own.schema.field(name), pa.array(values, own.schema.field(name).type))
        data = parquet_bytes(own)
        files.parquet.unlink(missing_ok=True)
        files.parquet.write_bytes(data)
        if number:
            os.link(first.tar, files.tar)
        facts = {"name": files.name, "first_index": int(index[0]), "last_index": int(index[-1])}
        facts["parquet"] = {"bytes": len(data), "sha256": sha256_bytes(data)}
        files.json.write_bytes(pretty_json(summary | facts))
    plan = {"plan_id": "0" * 16, "num_shards": shards, "prompts_sha256": prompts.metadata["content_sha256"]}
    write_atomic(folder / "plan.json", pretty_json(plan | {"images_per_shard": PER_SHARD, "stored_px": 32}))
    finish_folder(folder)
    parents = [Parent("prompts", str(table_path), plan["prompts_sha256"])]
    counts = {status: summary[status] * shards for status in ("ok", "failed", "dropped")}
    write_manifest(folder, "benchmark", {}, parents, counts, {}, {"classes": list(prompts.class_ids())})
    assert read_json(first.json)["planned"] == PER_SHARD


def first_shard(folder: Path, shards: int):
    """Write the one shard that has images; one row in a thousand has none."""
    import simplejpeg

    from synclones.base.json_file import read_json
    from synclones.shards.schema import FailedSample, Sample, ShardFiles, shard_name
    from synclones.shards.write import ShardWriter

    rng = np.random.default_rng(0)
    jpegs = [simplejpeg.encode_jpeg(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), quality=50) for _ in range(16)]
    files = ShardFiles(folder, shard_name("train", 0, shards))
    samples: list[Sample | FailedSample] = [
        Sample(index=i, jpg=jpegs[i % 16], json=b"{}", txt="a photo of a benchmark", label=i % CLASSES)
        for i in range(PER_SHARD)
    ]
    for i in range(500, PER_SHARD, 1000):
        samples[i] = FailedSample(index=i, status="failed", reason="not finite", label=i % CLASSES)
    with ShardWriter(folder, files.name, "0" * 16) as writer:
        writer.add_batch(0, samples)
        writer.finish()
    return read_json(files.json), files


def memory_mb(pid: int) -> float:
    """Return what a process holds in memory now, in 10^6 bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024 / 1e6


def ask(base: str, path: str) -> tuple[float, str]:
    """Return the seconds that an answer took, and the page."""
    started = time.monotonic()
    with urllib.request.urlopen(base + path, timeout=60) as answer:
        page = answer.read().decode("utf-8", "replace")
    return time.monotonic() - started, page


def measure(folder: Path) -> None:
    """Start the server, ask it for pages, follow searches to the end, and print times and memory."""
    started = time.monotonic()
    server = subprocess.Popen([*COMMAND, "serve", str(folder), "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        base = server.stdout.readline().split()[0]
        ready = time.monotonic() - started
        images = f"/images?folder={quote(str(folder))}"
        seconds, page = ask(base, images)
        total = int(re.search(r"([0-9,]+) images of", page)[1].replace(",", ""))
        print(f"{total:,} images: ready in {ready:.2f} s, first page {seconds:.2f} s, {memory_mb(server.pid):.0f} MB")
        middle = total // 2
        wanted = {
            "first page again": "",
            "page in the middle": f"&from={middle}",
            "class 7": "&class=7",
            "prompt holds 'sketch'": "&text=sketch",
            "status failed": "&status=failed",
            "score of at least 0.4": f"&score={quote(MODEL)}&min=0.4",
        }
        for words, parameters in wanted.items():
            seconds, page = ask(base, images + parameters)
            count = page.count('href="/image?')
            print(f"{words:<28} {seconds:6.3f} s  {count:3} images  {memory_mb(server.pid):6.0f} MB")
        for words, parameters in {
            "prompt that none has": "&text=zzzz",
            "status that none has": "&status=dropped",
            "class that none has": "&class=4000",
            "score that none has": f"&score={quote(MODEL)}&min=9",
        }.items():
            follow(base, images + parameters, words, server.pid)
        start = time.monotonic()
        for index in np.random.default_rng(0).integers(0, total, RANDOM_PAGES).tolist():
            ask(base, f"{images}&from={index}")
        seconds = (time.monotonic() - start) / RANDOM_PAGES
        print(
            f"{RANDOM_PAGES} pages at random places    {seconds:6.3f} s each          {memory_mb(server.pid):6.0f} MB"
        )
        seconds, _ = ask(base, f"/image?folder={quote(str(folder))}&index=4321")
        print(f"{'one image with neighbours':<28} {seconds:6.3f} s               {memory_mb(server.pid):6.0f} MB")
    finally:
        server.terminate()
        server.wait(timeout=20)


def follow(base: str, path: str, words: str, pid: int) -> None:
    """Follow a search that finds nothing from page to page until the end of the set, at most a hundred."""
    longest, pages, started, highest = 0.0, 0, time.monotonic(), 0.0
    while path and pages < 100:
        seconds, page = ask(base, path)
        longest, pages, highest = max(longest, seconds), pages + 1, max(highest, memory_mb(pid))
        on = re.search(r'href="([^"]+)">search on', page)
        path = on[1].replace("&amp;", "&") if on else ""
    ended = "to the end" if not path else "not to the end"
    print(
        f"{words:<28} {longest:6.3f} s at most, {pages} pages {ended} in {time.monotonic() - started:.1f} s, "
        f"{highest:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, default=1600)
    parser.add_argument("--folder", type=Path, help="a set that an earlier call made, or to be made and kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch) / "set"
        if not folder.exists():
            folder.mkdir(parents=True)
            started = time.monotonic()
            make(folder, arguments.shards)
            print(f"{arguments.shards} shards made in {time.monotonic() - started:.0f} s")
        measure(folder)


if __name__ == "__main__":
    main()
