"""Small dataset folders for the tests of shards."""

from pathlib import Path

import numpy as np
import simplejpeg

from synclones.base.files import write_atomic
from synclones.base.json_file import canonical_json
from synclones.base.manifest import write_manifest
from synclones.shards.card import write_card
from synclones.shards.index import content_hash, finish_folder
from synclones.shards.schema import FailedSample, Sample, shard_name
from synclones.shards.write import ShardWriter

PLAN = "0123456789abcdef"


def picture(index: int) -> bytes:
    """A JPEG of 16x16 px that no other index has."""
    pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(pixels, quality=90, colorsubsampling="420")


def sample(index: int) -> Sample:
    """A labelled sample."""
    facts = canonical_json({"index": index, "plan": PLAN})
    return Sample(index=index, jpg=picture(index), json=facts, txt=f"a photo of {index}", label=index % 3, seed=index)


def batches(shard: int, per_shard: int = 8, size: int = 4) -> list[list[Sample | FailedSample]]:
    """The batches of a shard; in each shard's second batch one sample has failed."""
    first = shard * per_shard
    made: list[list[Sample | FailedSample]] = []
    for start in range(first, first + per_shard, size):
        made.append([sample(index) for index in range(start, start + size)])
    made[-1][1] = FailedSample(index=first + per_shard - size + 1, status="failed", reason="not finite", label=0)
    return made


def write_shard(folder: Path, shard: int, num_shards: int = 3) -> str:
    """Write one shard and return its name."""
    name = shard_name("train", shard, num_shards)
    with ShardWriter(folder, name, PLAN) as writer:
        for number, batch in enumerate(batches(shard)):
            if number >= writer.next_batch:
                writer.add_batch(number, batch)
        writer.finish()
    return name


def write_set(folder: Path, split: str, seed: int) -> Path:
    """A finished set of one labelled sample in one shard of a split."""
    folder.mkdir(parents=True)
    with ShardWriter(folder, shard_name(split, 0, 1), PLAN) as writer:
        writer.add_batch(0, [sample(seed)])
        writer.finish()
    finish_folder(folder, split)
    write_manifest(folder, "test", {}, [], {"ok": 1}, {}, {"classes": ["a", "b", "c"]})
    return folder


def write_finished(folder: Path, num_shards: int = 3) -> Path:
    """The set of `write_folder` with the manifest of a finished one, which names its classes."""
    facts = {"content_hash": content_hash(write_folder(folder, num_shards)), "classes": ["a", "b", "c"]}
    write_manifest(folder, "test", {}, [], {"ok": 7 * num_shards}, {}, facts)
    return folder


def write_folder(folder: Path, num_shards: int = 3) -> Path:
    """A finished folder of ``num_shards`` shards of 8 planned samples, one of which failed in each."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "plan.json", canonical_json({"plan_id": PLAN, "num_shards": num_shards}))
    write_card(folder, "test", "test", num_shards * 7, "train")
    for shard in range(num_shards):
        write_shard(folder, shard, num_shards)
    finish_folder(folder)
    return folder
