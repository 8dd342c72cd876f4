"""Kills generations into an object store at chosen points and restarts them with another number of processes.

    python tests/remote_harness.py WORK_FOLDER PROMPTS SEED URL KILLS

As tests/kill_harness.py, whose children and fates it uses. Phases: ``sampling``; ``lease`` (a lease was just written);
``part`` (a part of a multipart upload has arrived); ``complete`` (the upload's completion was sent, or is about to be);
``json`` (a shard's json has arrived, or is about to be sent). After every round, whatever is visible must be an object
of the uninterrupted set. Prints JSON: kills by phase, sets, wrong and unequal objects, orphaned uploads.
"""

import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

import kill_harness as harness
import s3fs

import synclones.shards.stores.s3 as remote_s3
from synclones.generate.sampling.sampler import Sampler
from synclones.shards.stores.store import open_store

PHASES = ("sampling", "lease", "part", "complete", "json")
MAX_SETS = 8
IDENTITY = ("train-", "info.json", "sizes.json", "SHA256SUMS", "plan.json")


class EarlyFate(harness.Fate):
    """What happens once per shard kills at its first time."""

    def __init__(self, phase: str, countdown: int, killed):
        super().__init__(phase, 1 if phase in ("lease", "complete", "json") else countdown, killed)


def arm(fate: harness.Fate) -> None:
    """Put the child's fate into what it asks of the store."""
    draw, call = Sampler._draw_once, s3fs.S3FileSystem._call_s3

    def drawing(self, prompts, seeds, *more):
        if fate.due("sampling"):
            fate.die()
        result = draw(self, prompts, seeds, *more)
        fate.drawn += 1
        return result

    async def calling(self, method, *args, **kwargs):
        phase = phase_of(method, kwargs.get("Key", ""))
        due = phase is not None and fate.due(phase)
        if due and phase in ("complete", "json") and random.random() < 0.5:
            fate.die()
        answer = await call(self, method, *args, **kwargs)
        if due:
            fate.die()
        return answer

    Sampler._draw_once, s3fs.S3FileSystem._call_s3 = drawing, calling


def phase_of(method: str, key: str) -> str | None:
    if method == "put_object":
        return "lease" if "/.leases/" in key else "json" if "/train-" in key and key.endswith(".json") else None
    return {"upload_part": "part", "complete_multipart_upload": "complete"}.get(method)


def visible(store) -> dict[str, bytes]:
    return store.read_many(name for name in store.listing() if name.startswith(IDENTITY))


def main() -> None:
    folder, prompts, seed, url, least = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
    harness.load_once()
    remote_s3.PART_BYTES = 16_384
    harness.arm, harness.PHASES, harness.Fate = arm, PHASES, EarlyFate
    rng, kills, sets, unequal, wrong, orphans = random.Random(seed), Counter(), 0, 0, set(), 0
    command = ["--prompts", prompts, *harness.SETTINGS]
    harness.one_round([*command, "--out", str(folder / "reference")], 1, rng, False, Counter())
    reference = {path.name: path.read_bytes() for path in (folder / "reference").iterdir() if path.is_file()}
    reference = {name: data for name, data in reference.items() if name.startswith(IDENTITY)}
    while (sum(kills.values()) < least or min(kills[phase] for phase in PHASES) == 0) and sets < MAX_SETS:
        place = f"{url}{sets}"
        there = [*command, "--work", str(folder / "work"), "--out", place]
        for world in (2, 1, 3, 2, 1, 2):
            harness.one_round(there, world, rng, True, kills, least)
            store = open_store(place)
            wrong |= {name for name, data in visible(store).items() if reference.get(name) != data}
            if "manifest.json" in store.listing():
                break
        orphans += len(store.uploads())
        harness.one_round(there, 1, rng, False, Counter())
        unequal += visible(store) != reference
        wrong |= {name for name in store.listing() if name.startswith(".")}
        sets += 1
    print(json.dumps(dict(kills=kills, sets=sets, unequal=unequal, wrong=sorted(wrong), orphans=orphans)))


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    main()
