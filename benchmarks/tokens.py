"""Token ids of captions: made on the fly, and taken from the column that ``synclones train tokenize`` keeps.

    python benchmarks/tokens.py [--images 2000] [--rounds 5]

Equality first. Then captions per CPU second of one core, as open_clip's tokenizer makes ids one caption at a time, as
ours does, and as they are mapped; and CPU time of batches of 256 images of 256 px with their captions, decoded by one
thread. Captions have 8 to 24 words out of the names of ImageNet's classes, all different.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import simplejpeg
import torch

from synclones.base.json_file import canonical_json
from synclones.base.manifest import write_manifest
from synclones.models.tokenizer import token_ids
from synclones.prompts.classes.lists import load_classes
from synclones.shards.index import finish_folder
from synclones.shards.loading.batches import BatchLoader
from synclones.shards.loading.crops import Crops
from synclones.shards.loading.extras import Extras
from synclones.shards.loading.parts import single
from synclones.shards.schema import Sample
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.write import ShardWriter
from synclones.train.token_column import TokenizeConfig, tokenize

LENGTH, BATCH = 77, 256


def captions(count: int) -> list[str]:
    """Return captions that differ."""
    rng = np.random.default_rng(0)
    words = sorted({word for one in load_classes("imagenet1k").classes for word in one.name.split()})
    return [" ".join(rng.choice(words, rng.integers(8, 25))) + "." for _ in range(count)]


def make_folder(folder: Path, texts: list[str]) -> Path:
    """Write a set of one shard: an image of 256 px for each caption."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    jpegs = [simplejpeg.encode_jpeg(np.ascontiguousarray(np.kron(s, np.ones((8, 8, 1), np.uint8)))) for s in small]
    facts = canonical_json({"plan": "0" * 16})
    with ShardWriter(folder, "train-00000", "0" * 16) as writer:
        samples = [Sample(index=i, jpg=jpegs[i % 64], json=facts, txt=text, label=0) for i, text in enumerate(texts)]
        writer.add_batch(0, samples)
        writer.finish()
    finish_folder(folder)
    write_manifest(folder, "benchmark", {}, [], {}, {}, {"classes": ["a"]})
    return folder


def batches_of(folder: Path, kept: bool) -> Callable[[], list[torch.Tensor]]:
    """Return what reads a few batches, and returns their ids."""
    extras = Extras(
        tokenize=lambda text: token_ids(text, LENGTH),
        text_length=LENGTH,
        token_column=f"tokens-{LENGTH}" if kept else "",
    )
    mixed = single(LabelledSource(folder))
    loader = BatchLoader(mixed, batch_size=BATCH, seed=0, crops=Crops(size_px=224), extras=extras, threads=1)
    return lambda: [batch.extras.tokens.clone() for batch in loader.batches(0, 4)]


def best_cpu_seconds(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the least CPU time of each, interleaved."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.process_time()
            function()
            best[name] = min(best[name], time.process_time() - started)
    return best


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    texts, peer = captions(arguments.images), open_clip.SimpleTokenizer()
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_folder(Path(scratch), texts)
        tokenize(TokenizeConfig(folder=folder, text_length=LENGTH))
        source = LabelledSource(folder)
        rows = range(len(texts))
        functions: dict[str, Callable[[], object]] = {
            "open_clip": lambda: [peer([text], LENGTH) for text in texts],
            "ours": lambda: [token_ids(text, LENGTH) for text in texts],
            "kept": lambda: [source.tokens(row, 0, 0, f"tokens-{LENGTH}") for row in rows],
        }
        expected = peer(texts, LENGTH)
        assert all((source.tokens(row, 0, 0, f"tokens-{LENGTH}") == expected[row].numpy()).all() for row in rows)
        for name, seconds in best_cpu_seconds(functions, arguments.rounds).items():
            print(f"{name}: {len(texts) / seconds:,.0f} captions per CPU second")
        reads = {"on the fly": batches_of(folder, False), "kept": batches_of(folder, True)}
        one, other = (read() for read in reads.values())
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        seconds = best_cpu_seconds(reads, arguments.rounds)
        for name, each in seconds.items():
            print(f"batch of {BATCH}, ids {name}: {each / 4 * 1000:.0f} ms of CPU")
        print(f"ratio {seconds['on the fly'] / seconds['kept']:.2f}")


if __name__ == "__main__":
    main()
