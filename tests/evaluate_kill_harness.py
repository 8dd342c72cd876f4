"""Kills evaluations at random points and starts them again until they end, in worlds of one, two and three processes.

    python tests/evaluate_kill_harness.py WORK_FOLDER SEED KILLS FLAG...

Children are forked from this process after torch is loaded, as a launcher would start them. One dies by SIGKILL of its
own before or after a batch, in the middle of a file, or before or after a file has its name; then the rest of its
world is killed, too. Every finished batch is written at once. Prints a line of JSON for each world: kills by phase, and
for each evaluation batches that were predicted, how many of them again, batches that were kept twice, and whether the
files are those of an evaluation that nobody killed.
"""

import json
import os
import random
import signal
import stat
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import forks
import torch
from train_kill_harness import free_port

import synclones.evaluate.evaluation  # noqa: F401
import synclones.evaluate.inputs  # noqa: F401 - loaded once, before the forks
import synclones.evaluate.predict as predict
import synclones.evaluate.stored.pieces as pieces
from synclones.evaluate.run import main as evaluate

WORLDS = (1, 2, 3)
PHASES = ("batch", "write", "rename")
LONGEST = {"batch": 3, "write": 9, "rename": 9}
"""Operations of a phase until the kill, at most: so few that an evaluation has room for all kills."""


def arm(fate: forks.Fate | None, notes: Path) -> None:
    """Write down which batches are predicted and kept, and put the child's fate into the functions of each phase."""
    predicting, adding, syncing, replacing = predict._predict_batch, pieces.Pieces.add, os.fsync, os.replace
    pieces.SECONDS = 0.0

    def predicted(model, test_set, positions, condition):
        dies, after = fate is not None and fate.due("batch"), random.random() < 0.5
        if dies and not after:
            fate.die()
        batch = predicting(model, test_set, positions, condition)
        note(notes, "predicted", [str(test_set.folder), str(condition), positions.start])
        if dies:
            fate.die()
        return batch

    def added(self, number, batch):
        adding(self, number, batch)
        note(notes, "kept", [self.key, number])

    def synced(handle):
        if fate and fate.due("write"):
            state = os.fstat(handle)
            if stat.S_ISREG(state.st_mode):  # folders are synced as well
                os.ftruncate(handle, state.st_size // 2)
            fate.die()
        syncing(handle)

    def renamed(source, target, **kwargs):
        if fate and fate.due("rename"):
            if random.random() < 0.5:
                replacing(source, target, **kwargs)
            fate.die()
        replacing(source, target, **kwargs)

    predict._predict_batch, pieces.Pieces.add = predicted, added
    os.fsync, os.replace = synced, renamed


def note(path: Path, what: str, which: list) -> None:
    with path.open("a") as file:
        file.write(json.dumps([what, *which]) + "\n")


def child(flags: list[str], out: Path, rank: int, world: int, port: int, fate: forks.Fate | None) -> None:
    if world > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    os.environ["ACCELERATE_USE_CPU"] = "true"
    sys.stdout = sys.stderr = open(out.with_suffix(".log"), "a")
    arm(fate, out.with_suffix(f".notes{rank}"))
    evaluate([*flags, "--out", str(out)])


def one_start(flags: list[str], out: Path, world: int, rng: random.Random, kills: Counter, least: int) -> bool:
    """Start a world and wait until all its processes have ended; whether it came to its end."""
    doomed = rng.randrange(world) if sum(kills.values()) < least else -1
    phase, pids, port = rng.choice(PHASES), {}, free_port()
    for rank in range(world):
        flag = forks.flag()
        fate = forks.Fate(phase, rng.randint(1, LONGEST[phase]), flag) if rank == doomed else None
        pids[forks.forked(partial(child, flags, out, rank, world, port, fate), rng.random())] = flag
    flags_of_all, died = list(pids.values()), False
    while pids:
        pid, status = os.wait()
        del pids[pid]
        # Who reads from a dead one may end before that one has been waited for.
        died = died or any(flag.value for flag in flags_of_all)
        if status:
            for other in pids:
                os.kill(other, signal.SIGKILL)
        if status and not died:
            raise SystemExit(f"a child failed with status {status}: {out.with_suffix('.log').read_text()[-2000:]}")
    kills[phase] += died
    return not died


def files(folder: Path) -> dict[str, bytes]:
    """Path -> bytes of all results; the manifest has times."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def trial(flags: list[str], work: Path, world: int, seed: int, least: int, whole: dict[str, bytes]) -> dict:
    """Kill and start again until an evaluation has ended, one evaluation after the other until there were enough."""
    rng, kills, found = random.Random(f"{seed} {world}"), Counter(), []
    while sum(kills.values()) < least:
        out = work / f"killed{world}-{len(found)}"
        while not one_start(flags, out, world, rng, kills, least):
            pass
        lines = [line for rank in range(world) for line in _lines(out.with_suffix(f".notes{rank}"))]
        times = [Counter(line for line in lines if line.startswith(f'["{what}"')) for what in ("predicted", "kept")]
        again, twice = (sum(counts.values()) - len(counts) for counts in times)
        found.append({"predicted": len(times[0]), "again": again, "kept twice": twice, "same": files(out) == whole})
    return {"world": world, "kills": kills, "evaluations": found}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    work, seed, least, flags = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    torch.set_num_threads(1)
    assert one_start(flags, work / "whole", 1, random.Random(0), Counter(), 0)
    whole = files(work / "whole")
    for world in WORLDS:
        print(json.dumps(trial(flags, work, world, seed, least, whole)), flush=True)


if __name__ == "__main__":
    main()
