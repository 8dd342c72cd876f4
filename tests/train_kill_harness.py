"""Kills trainings at chosen points and restarts them, in worlds of one and of two processes.

    python tests/train_kill_harness.py WORK_FOLDER DATASET SEED KILLS FAMILY

Children are forked from this process after torch is loaded. A child dies by SIGKILL of its own in one phase, only after
it has made a new step; then the rest of its world is killed too, as a launcher would. Goes on until each world has had
KILLS kills and one in every phase; with no more KILLS than phases the phases take turns. Prints JSON: kills by world
and phase, and for each finished run whether its weights, its metrics and the samples of every step equal those of an
uninterrupted one; then the same for the usual loop around `save_state` and `skip_first_batches`, until one of its runs
has ended elsewhere.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import forks
import torch

import synclones.train.export.finish  # noqa: F401 - loaded once, before the forks
import synclones.train.loop as loop
import synclones.train.run as run
from synclones.train.settings import TrainConfig

PHASES = ("step", "checkpoint write", "rename", "rotation")
SHAPE = {"architecture": "vit_tiny_patch16_224", "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
SETTINGS = {
    "image_size_px": 32,
    "batch_size": 8,
    "steps": 24,
    "checkpoint_every": 3,
    "log_every": 2,
    "torch_threads": 1,
}
RUNS_PER_WORLD = 12
# One objective of each kind: with all that a checkpoint holds, and all that is drawn.
FAMILIES = {
    "supervised": {},
    "averaged": {"ema_decay": 0.9, "mixup_alpha": 0.8, "optimizer": "sgd", "drop_path": 0.2, "depth": 2},
    "multipositive": {
        **{"objective": "multipositive", "views": 2, "local_views": 1, "local_size_px": 32, "ema_decay": 0.9},
        **{"projection_hidden": 16, "projection_dim": 8, "positives": "label", "blur_probability": 0.5},
    },
    "clip": {
        **{"objective": "clip", "text_width": 8, "text_heads": 2, "text_layers": 1, "joint_dim": 8, "text_length": 12},
        "micro_batch_size": 3,
    },
    "synclr": {
        **{"objective": "synclr", "positives": "label", "local_views": 1, "local_size_px": 16, "micro_batch_size": 3},
        **{"ema_decay": 0.9, "ema_schedule": "cosine", "weight_decay_end": 0.2, "drop_path": 0.2, "depth": 2},
        **{"projection_hidden": 16, "projection_dim": 8, "prototypes": 16, "prototype_dim": 8, "prototype_hidden": 16},
        "target_temperature_steps": 10,
    },
}


class Fate(forks.Fate):
    """When this child dies: at the ``countdown``-th event of ``phase`` after its first new step."""

    steps = 0

    def counts(self) -> bool:
        return self.steps > 0


def arm(fate: Fate | None, samples: Path) -> None:
    """Write down which samples each step sees, and put the child's fate into the functions of each phase."""
    step, write, replace, rmtree = loop.Trainer.train_step, Path.write_bytes, os.replace, shutil.rmtree

    def stepping(self, batch):
        if fate and fate.due("step"):
            fate.die()
        note(samples, batch.step, batch.index)
        step(self, batch)
        if fate:
            fate.steps += 1

    def writing(path, data):
        if fate and path.parent.name.startswith(".step-") and fate.due("checkpoint write"):
            write(path, data[: len(data) // 2])
            fate.die()
        return write(path, data)

    def renaming(source, target):
        if fate and "step-" in str(target) and fate.due("rename"):
            if random.random() < 0.5:
                replace(source, target)
            fate.die()
        replace(source, target)

    def removing(path, **kwargs):
        if fate and Path(path).name.startswith(".step-") and fate.due("rotation"):
            next(Path(path).iterdir()).unlink()
            fate.die()
        rmtree(path, **kwargs)

    loop.Trainer.train_step, Path.write_bytes = stepping, writing
    os.replace, shutil.rmtree = renaming, removing


def note(path: Path, step: int, indices) -> None:
    with path.open("a") as file:
        file.write(json.dumps([int(step), [int(i) for i in indices]]) + "\n")


def samples_of(folder: Path, world: int) -> dict[int, list[int]]:
    """Step -> sample indices over all ranks, as of each step's last time."""
    seen: dict[int, list[int]] = {}
    for rank in range(world):
        path = folder.with_suffix(f".samples{rank}")
        last = dict(json.loads(line) for line in path.read_text().splitlines() if line.endswith("]]"))
        for step, indices in last.items():
            seen[step] = seen.get(step, []) + indices
    return seen


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def child(train, folder: Path, rank: int, world: int, port: int, fate: Fate | None) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), ACCELERATE_USE_CPU="true", GLOO_SOCKET_IFNAME="lo"
    )
    if world == 1:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name)
    sys.stdout = sys.stderr = open(folder.with_suffix(".log"), "a")
    train(folder, rank, world, fate)


def ours(dataset: str, family: str):
    settings = SHAPE | SETTINGS | FAMILIES[family]

    def train(folder: Path, rank: int, world: int, fate: Fate | None) -> None:
        arm(fate, folder.with_suffix(f".samples{rank}"))
        run.train(TrainConfig(data=(dataset,), out=folder, keep_checkpoints=1, **settings), rank, world)

    return train


def one_start(train, folder: Path, world: int, rng: random.Random, interrupt: bool, kills: Counter, turns=()) -> None:
    """Start a world, wait until all its processes have ended; when one dies of its fate the others are killed."""
    pids, port = {}, free_port()
    doomed = rng.randrange(world) if interrupt else -1
    phase = rng.choice(PHASES) if doomed == 0 else "step"  # only the first process writes checkpoints
    if interrupt and turns:
        so_far = Counter({each: kills[f"{world}: {each}"] for each in turns})
        phase = forks.drawn_phase(rng, turns, so_far, len(turns))
        doomed = world - 1 if phase == "step" else 0
    for rank in range(world):
        flag = forks.flag()
        countdown = rng.randint(1, 9) if phase == "step" else rng.randint(1, 3)
        fate = Fate(phase, countdown, flag) if rank == doomed else None
        pid = forks.forked(partial(child, train, folder, rank, world, port, fate), rng.random())
        pids[pid] = flag
    died = False
    while pids:
        pid, status = os.wait()
        flag = pids.pop(pid)
        if flag.value:
            kills[f"{world}: {phase}"] += 1
            died = True
            for other in pids:
                os.kill(other, signal.SIGKILL)
        elif status and not died:
            for other in pids:
                os.kill(other, signal.SIGKILL)
            raise SystemExit(f"a child failed with status {status}")


def outcome(folder: Path, world: int) -> dict:
    """What must be equal: the exported weights, the metrics, the samples of each step."""
    weights = next(iter(folder.glob("export/*model.safetensors")), None)
    metrics = folder / "metrics.jsonl"
    return {
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest() if weights else None,
        "metrics": metrics.read_text() if metrics.exists() else None,
        "samples": samples_of(folder, world),
    }


def epochs_are_whole(samples: dict[int, list[int]]) -> bool:
    """Whether the steps, put together in order, show every image once before any image twice."""
    stream = [index for step in sorted(samples) for index in samples[step]]
    size = len(set(stream))
    epochs = [stream[i : i + size] for i in range(0, len(stream), size)]
    return all(len(set(epoch)) == len(epoch) for epoch in epochs) and len(epochs) > 1


def trial(train, work: Path, seed: int, least: int, usual: bool) -> dict:
    """Kill and restart until there were enough kills; the usual loop until one run ended elsewhere."""
    rng, kills, same, whole = random.Random(seed), Counter(), [], []
    few = least <= len(PHASES)
    turns = () if not few else ("step",) if usual else PHASES  # the usual loop dies in its steps alone
    work.mkdir()
    for world in (1, 2):
        one_start(train, work / f"reference{world}", world, rng, False, Counter())
        reference = outcome(work / f"reference{world}", world)
        of_world: Counter = Counter()
        for number in range(RUNS_PER_WORLD):
            out = work / f"run{world}-{number}"
            for _ in range(len(PHASES) if few else rng.randint(2, 4)):
                one_start(train, out, world, rng, True, of_world, turns)
            one_start(train, out, world, rng, False, Counter())
            found = outcome(out, world)
            same.append({name: found[name] == reference[name] for name in found})
            whole.append(epochs_are_whole(found["samples"]))
            if usual and not (same[-1]["weights"] or same[-1]["samples"]):
                break  # one run that ends elsewhere, by other samples, is all that it had to show
            if sum(of_world.values()) >= least and len([p for p in of_world if of_world[p]]) == len(PHASES):
                break
        kills += of_world
    return {"kills": kills, "same": same, "whole": whole}


def main() -> None:
    work, dataset, seed, least = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    family = sys.argv[5]
    torch.set_num_threads(1)
    print(json.dumps(trial(ours(dataset, family), work / "ours", seed, least, usual=False)))
    if family != "supervised":
        return
    from accelerate_way import accelerate_way  # not before our trainings, which must not depend on it

    print(json.dumps(trial(accelerate_way(dataset, SHAPE, SETTINGS, note), work / "usual", seed, least, usual=True)))


if __name__ == "__main__":
    main()
