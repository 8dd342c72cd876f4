"""Near-duplicates: images hashed per second, and the search among a million hashes, beside comparing all pairs.

The peer is numpy over all pairs, in blocks, at the largest size that it does in seconds; both must find the same pairs
first. A fiftieth of the hashes are planted within three bits of another.

python benchmarks/dedup.py
"""

import time

import numpy as np
import simplejpeg

from synclones.shards.similarity.near import drop_list, near_pairs
from synclones.shards.similarity.phash import image_hash
from synclones.shards.sources.decode import decode_image

DISTANCE, SMALL, LARGE, IMAGES, SIDE = 4, 30_000, 1_000_000, 300, 256


def planted(n: int) -> np.ndarray:
    """Return at most n distinct hashes, ascending uint64, a fiftieth of them within three bits of another."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, n, dtype=np.uint64)
    targets, sources = rng.permutation(n)[: n // 50], rng.permutation(n)[: n // 50]
    for _ in range(3):
        hashes[targets] = hashes[sources] ^ (np.uint64(1) << rng.integers(0, 64, len(targets)).astype(np.uint64))
    return np.unique(hashes)


def all_pairs(hashes: np.ndarray) -> list[tuple[int, int]]:
    """Compare every pair, row by row: the peer."""
    pairs = []
    for i, one in enumerate(hashes[:-1]):
        near = np.flatnonzero(np.bitwise_count(hashes[i + 1 :] ^ one) <= DISTANCE)
        pairs += [(i, i + 1 + int(k)) for k in near]
    return pairs


def main() -> None:
    """Print images hashed per second, and seconds of both searches."""
    small, large = planted(SMALL), planted(LARGE)
    pixels = np.kron(np.random.default_rng(1).integers(0, 255, (8, 8, 3), np.uint8), np.ones((32, 32, 1), np.uint8))
    jpg = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels[:SIDE, :SIDE]), quality=90, colorsubsampling="420")
    started = time.process_time()
    for _ in range(IMAGES):
        image_hash(decode_image(jpg))
    rate = IMAGES / (time.process_time() - started)
    times = []
    for search in (lambda: near_pairs(small, DISTANCE), lambda: all_pairs(small)):
        started = time.process_time()
        result = search()
        times.append((time.process_time() - started, result))
    (ours, (i, j, _)), (peer, pairs) = times
    assert list(zip(i.tolist(), j.tolist(), strict=True)) == pairs, "both must find the same pairs"
    started = time.process_time()
    dropped = len(drop_list(large, DISTANCE)[0])
    seconds = time.process_time() - started
    print(f"hashed: {rate:.0f} JPEGs of {SIDE} px per CPU second, decoding included")
    print(f"{SMALL} hashes, distance {DISTANCE}: ours {ours:.2f} s, all pairs {peer:.2f} s, ratio {peer / ours:.0f}")
    print(f"{LARGE} hashes, distance {DISTANCE}: {seconds:.1f} CPU s, {dropped} to drop")


if __name__ == "__main__":
    main()
