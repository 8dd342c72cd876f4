"""Kills generations at chosen and random points and restarts them with another number of processes.

    python tests/kill_harness.py WORK_FOLDER PROMPTS SEED KILLS

Children are forked from this process after the generator is loaded, so a restart costs milliseconds. A child dies by
SIGKILL of its own at the k-th operation of one phase, in the middle of it, but only after it has drawn a new batch; a
child whose turn never comes lives to the end. Goes on until there were KILLS kills, a fifth of them in each phase; with
no more KILLS than phases the phases take turns.
Prints JSON: kills by phase, and whether each finished run's bytes equal those of an uninterrupted one; then the same
for a naive writer, until it has lost one set.
"""

import hashlib
import json
import os
import random
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import forks
import torch

import synclones.generate.run as run
import synclones.generate.target as target
import synclones.generate.worker as work
import synclones.generate.workers as draw
import synclones.shards.write as write
from synclones.generate.generators.generator import make_generator
from synclones.generate.generators.model import find_model
from synclones.generate.plan import choose_dtype
from synclones.generate.sampling.sampler import Sampler

PHASES = ("sampling", "tar write", "rename", "sidecar")
SETTINGS = ["--model", "lab", "--batch-size", "5", "--images-per-shard", "15", "--num-inference-steps", "1"]
WORLDS = (2, 3, 1)
MAX_ROUNDS = 200
MANY = 1000  # kills, more than any run asks for


class Fate(forks.Fate):
    """When this child dies: in the ``countdown``-th operation of ``phase`` after its first new batch."""

    drawn = 0

    def counts(self) -> bool:
        return self.drawn > 0


def arm(fate: Fate) -> None:
    """Put the child's fate into the functions of each phase."""
    draw, append, atomic, replace = Sampler._draw_once, write.append_durably, write.write_atomic, os.replace

    def drawing(self, prompts, seeds, *more):
        if fate.due("sampling"):
            fate.die()
        result = draw(self, prompts, seeds, *more)
        fate.drawn += 1
        return result

    def appending(file, end, data):
        if data and fate.due("tar write"):  # half of the bytes reach the file
            file.truncate(end)
            file.seek(end)
            file.write(data[: len(data) // 2])
            fate.die()
        return append(file, end, data)

    def writing(path, data):
        if fate.due("sidecar"):
            Path(path).with_name(f".{Path(path).name}.tmp-{os.getpid()}-dead").write_bytes(data[: len(data) // 2])
            fate.die()
        atomic(path, data)

    def renaming(source, target):
        if fate.due("rename"):
            if random.random() < 0.5:
                replace(source, target)
            fate.die()
        replace(source, target)

    Sampler._draw_once, write.append_durably, write.write_atomic = drawing, appending, writing
    os.replace = renaming


class NaiveWriter:
    """What most scripts do: open the tar at its final name, write, close; done means that the file is there."""

    def __init__(self, folder, name, plan_id):
        self.path, self.next_batch, self.rows = Path(folder) / f"{name}.tar", 0, []
        self.file = self.path.open("wb")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def add_batch(self, number, samples):
        for sample in samples:
            write.append_durably  # noqa: B018 - the naive writer does not use it
            self.file.write(write.encode_sample(sample)[0])
        self.file.flush()

    def finish(self):
        self.file.write(write.trailer(self.file.tell()))
        write.write_atomic(self.path.with_suffix(".json"), b"{}")


def make_naive() -> None:
    work.ShardWriter = NaiveWriter
    work.is_complete = target.is_complete = lambda folder, name: (Path(folder) / f"{name}.tar").exists()
    target.finish_dataset = lambda job: {"ok": 0, "failed": 0}


def child(argv: list[str], rank: int, world: int, fate: Fate | None) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE="2")
    sys.stdout = sys.stderr = open(os.devnull, "w")
    if fate:
        arm(fate)
    run.main([*argv, "--workers", "1"])


def one_round(argv: list[str], world: int, rng: random.Random, interrupt: bool, kills: Counter, least=MANY) -> None:
    """Start ``world`` children, wait for all, and count those that died of their fate."""
    children, begun = [], Counter()
    for rank in range(world):
        phase, flag = forks.drawn_phase(rng, PHASES, kills + begun, least), forks.flag()
        begun[phase] += 1  # the next child of this round has another phase, where each is to have its own
        fate = Fate(phase, rng.randint(1, 2 if phase == "rename" else 3), flag) if interrupt else None
        pid = forks.forked(partial(child, argv, rank, world, fate), rng.random() + rank)
        children.append((pid, phase, flag))
    forks.count_kills(children, kills)


def hashes(folder: Path) -> dict[str, str]:
    kept = ("train-*", "info.json", "sizes.json", "SHA256SUMS", "plan.json")
    paths = [path for pattern in kept for path in folder.glob(pattern)]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def load_once() -> None:
    """Load the lab's generator before any child is forked; none of them loads it again."""
    torch.set_num_threads(1)
    pipelines: dict = {}
    load = draw.load_pipeline
    draw.load_pipeline = lambda *args: pipelines.setdefault(args, load(*args))
    draw.load_pipeline(
        make_generator(find_model(str(run.GENERATOR))), "DDIMScheduler", choose_dtype("auto", "cpu"), "cpu"
    )


def trial(folder: Path, prompts: str, seed: int, least: int, naive: bool) -> dict:
    """Kill and restart until there were enough kills; a naive writer until one set is wrong."""
    rng, kills, equal, rounds, leftovers = random.Random(seed), Counter(), [], 0, set()
    command = ["--prompts", prompts, *SETTINGS, "--out"]
    one_round([*command, str(folder / "reference")], 1, rng, False, Counter())
    reference = hashes(folder / "reference")
    of_each = max(1, least // 5)  # the naive writer never comes to some phases
    while (naive or sum(kills.values()) < least or min(kills[p] for p in PHASES) < of_each) and rounds < MAX_ROUNDS:
        if naive and False in equal:
            break  # one wrong set is all that it had to show
        out = folder / f"run{len(equal)}"
        for world in WORLDS * 4:  # until the set is complete, at most twelve restarts
            one_round([*command, str(out)], world, rng, True, kills, MANY if naive else least)
            rounds += 1
            if (out / "manifest.json").exists():
                break  # nothing is left to kill
        one_round([*command, str(out)], 1, rng, False, Counter())
        equal.append(hashes(out) == reference)
        leftovers |= {path.name for path in out.glob(".*")}
    return {"kills": kills, "equal": equal, "rounds": rounds, "leftovers": sorted(leftovers)}


def main() -> None:
    folder, prompts, seed, least = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    load_once()
    print(json.dumps(trial(folder / "ours", prompts, seed, least, naive=False)))
    make_naive()
    print(json.dumps(trial(folder / "naive", prompts, seed, least, naive=True)))


if __name__ == "__main__":
    main()
