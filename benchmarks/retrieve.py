"""Retrieval: images embedded and queries answered per second, beside a plain loop over NumPy in the same process.

Both must give the same neighbours first. The loop is what one writes: all cosines of a block of vectors in float64, a
full sort, the best so far joined with those of the next block. Inverted lists are measured by how many of the ten
nearest they find. Vectors lie around 2,000 centres, as embeddings of a set with classes do.

python benchmarks/retrieve.py [--rows 50000] [--width 256] [--queries 100]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from synclones.shards.similarity.inverted import InvertedIndex, build_inverted, nearest_of_index, settings_for
from synclones.shards.similarity.neighbours import Pairs, nearest
from synclones.shards.similarity.vectors import BLOCK_ROWS, UNIT, Vectors, units

NEIGHBOURS, CENTRES, SPREAD = 10, 2000, 0.7
CLIP = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12},
}
PREPROCESS = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}


class InMemory(Vectors):
    """Parts of float16 vectors, as a column keeps them."""

    sha256 = "benchmark"

    def __init__(self, parts: list[np.ndarray]):
        super().__init__(parts[0].shape[1], [len(part) for part in parts])
        self.parts = parts

    def part(self, number: int) -> np.ndarray:
        return self.parts[number]


def planted(rows: int, width: int, queries: int) -> tuple[InMemory, np.ndarray]:
    """Return vectors in parts of 10,000, and queries as units."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CENTRES, width)).astype(np.float32)

    def near(count: int) -> np.ndarray:
        noise = rng.normal(size=(count, width)).astype(np.float32)
        return centres[rng.integers(0, CENTRES, count)] + SPREAD * noise

    parts = [near(min(10_000, rows - start)).astype(np.float16) for start in range(0, rows, 10_000)]
    return InMemory(parts), units(near(queries))


def plain_loop(vectors: InMemory, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and cosines of the k nearest, [q, k]: the peer."""
    positions, scores = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0))
    first = 0
    for part in vectors.parts:
        rows = part.astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = (queries.astype(np.float64) / UNIT) @ rows.T
        scores = np.concatenate([scores, cosines], axis=1)
        positions = np.concatenate([positions, np.tile(np.arange(first, first + len(rows)), (len(queries), 1))], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        positions, scores = np.take_along_axis(positions, order, 1), np.take_along_axis(scores, order, 1)
        first += len(rows)
    return positions, scores


def timed(run, *args):
    """Return CPU seconds, seconds and the result."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = run(*args)
    return time.process_time() - cpu, time.perf_counter() - wall, result


def recall(near: Pairs, exact: Pairs) -> float:
    """Return which share of the exact pairs was found."""
    wanted = set(zip(exact.query.tolist(), exact.position.tolist(), strict=True))
    return len(wanted & set(zip(near.query.tolist(), near.position.tolist(), strict=True))) / len(wanted)


def search(rows: int, width: int, queries: int) -> None:
    """Print queries per CPU second of the exact search, of the loop and of inverted lists."""
    vectors, sought = planted(rows, width, queries)
    ours, peers = [], []
    for _ in range(3):  # in turns: other work on the machine meets both
        ours.append(timed(nearest, vectors, sought, NEIGHBOURS))
        peers.append(timed(plain_loop, vectors, sought, NEIGHBOURS))
    exact, (positions, scores) = ours[0][2], peers[0][2]
    same = exact.position.reshape(queries, -1) == positions
    gaps = np.abs(exact.score.reshape(queries, -1) - scores)
    assert gaps.max() < 1e-4 and same.mean() > 0.99, "both must find the same, but for scores within the rounding"
    own, peer = min(run[0] for run in ours), min(run[0] for run in peers)
    print(f"{queries} queries, {rows} vectors of {width}, {NEIGHBOURS} nearest, blocks of {BLOCK_ROWS}")
    print(f"equal to the loop: {same.mean():.2%} of places, scores within {gaps.max():.1e}")
    print(f"exact: {queries / own:.1f} queries per CPU second; plain loop {queries / peer:.1f}; ratio {peer / own:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_for(vectors)
        cpu, wall, paths = timed(build_inverted, vectors, Path(folder) / "index", settings)
        size = sum(path.stat().st_size for path in paths)
        print(
            f"ivfpq: {settings.lists} lists, {settings.bytes_per_vector} bytes, built in {cpu:.0f} CPU s, "
            f"{size / rows:.0f} bytes on the disk per vector"
        )
        for probes in (8, 32):
            index = InvertedIndex(paths, probes)
            for refine in (1, 10):
                cpu, _, near = timed(nearest_of_index, index, vectors, sought, NEIGHBOURS, refine)
                print(
                    f"ivfpq: {probes} probes, refine {refine}: recall@{NEIGHBOURS} {recall(near, exact):.3f}, "
                    f"{queries / cpu:.0f} queries per CPU second"
                )


def embed(images: int) -> None:
    """Print images embedded per second by a ViT-B/32 of random weights, decoding excluded and included."""
    import open_clip
    import simplejpeg
    import torch
    from safetensors.torch import save_file

    from synclones.shards.similarity.embed import Embedder, find_clip
    from synclones.shards.sources.decode import decode_image

    torch.manual_seed(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "clip"
        folder.mkdir()
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": PREPROCESS}))
        save_file(open_clip.CLIP(**CLIP).state_dict(), folder / "open_clip_model.safetensors")
        embedder = Embedder(find_clip(str(folder), "--model"))
    pixels = np.kron(np.random.default_rng(1).integers(0, 255, (8, 8, 3), np.uint8), np.ones((32, 32, 1), np.uint8))
    jpg = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90, colorsubsampling="420")
    cpu, wall, _ = timed(lambda: [embedder.images([decode_image(jpg)] * 32) for _ in range(images // 32)])
    print(f"embedded: {images / cpu:.1f} JPEGs of 256 px per CPU second, ViT-B/32 in float32 ({images / wall:.1f}/s)")


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--images", type=int, default=64, help="0: embed none")
    given = parser.parse_args()
    search(given.rows, given.width, given.queries)
    if given.images:
        embed(given.images)


if __name__ == "__main__":
    main()
