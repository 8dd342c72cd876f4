"""Whether synclones learns as well as the best known code: the same networks, shards and budgets, trained by both.

    make parity                                       # the lab's digits
    make parity CIFAR10=folder-of-tars                # and CIFAR-10: a night on two cores
    python benchmarks/parity/run.py --seeds 2 --rows supervised --worlds lab --out parity

In: nothing, or tars of CIFAR-10. Out: a folder per training with ``result.json``, and the table (``--table``). What is
finished is not done again, so that the command may be interrupted at any time. Peers run in an environment of their own
(``--peer-python``) and import nothing of this project. Each training has one thread; as many run as there are cores.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from equivalence import compare
from report import write_table
from rows import ROWS, Row, Settings, row_named, script_of
from score import score
from worlds import World, open_world

from synclones.shards.sources.open import open_source

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Training:
    """One training of one side."""

    world: World
    world_name: str
    row: Row
    ours: bool
    seed: int
    out: Path
    """Of all."""
    epochs: int
    """In place of the row's, if not 0."""

    @property
    def folder(self) -> Path:
        """Its own."""
        return self.out / "runs" / f"{self.world_name}-{self.row.name}-{'ours' if self.ours else 'peer'}-{self.seed}"

    def settings(self) -> Settings:
        """Return what both sides are given."""
        settings = self.row.for_world(self.world_name, self.world.images, self.epochs) | {"seed": self.seed}
        shards = [str(path.resolve()) for path in self.world.shards]
        settings |= {"folder": str(self.world.folder.resolve()), "shards": shards, "images": self.world.images}
        names = f"train-{{00000..{len(shards) - 1:05d}}}.tar"
        settings |= {"brace": f"{settings['folder']}/{names}", "split": f"{names}|{self.world.images}"}
        if self.row.after:
            first = Training(self.world, self.world_name, row_named(self.row.after), True, 0, self.out, self.epochs)
            settings["weights"] = str((first.folder / "export").resolve())
        return settings | {"num_classes": len(self.world.classes)}

    def identity(self) -> str:
        """Return a hash of what decides the training, wherever its files lie."""
        paths = ("folder", "shards", "brace", "split", "weights")
        decisive = {name: value for name, value in self.settings().items() if name not in paths}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def command(self, settings: Settings, peer_python: str) -> list[str]:
        """Return what trains it."""
        if not self.ours:
            written = self.folder.with_suffix(".json")
            written.write_text(json.dumps(settings, indent=1))
            return [peer_python, str(script_of(self.row)), str(written), str(self.folder)]
        flags = ["--data", settings["folder"], "--out", str(self.folder), "--seed", str(self.seed)]
        flags += ["--device", "cpu", "--torch-threads", "1", "--decode-threads", "1", *self.row.ours(settings)]
        return [sys.executable, "-m", "synclones.train.run", *flags]


def run_one(training: Training, peer_python: str) -> dict:
    """Train, unless that was done, and return what came of it."""
    result, settings = training.folder.with_suffix(".result.json"), training.settings()
    if result.exists() and json.loads(result.read_text()).get("identity") != training.identity():
        print(f"{training.folder.name}: was of other settings; trained again", flush=True)
        shutil.rmtree(training.folder, ignore_errors=True)
        result.unlink()
    if not result.exists():
        training.folder.parent.mkdir(parents=True, exist_ok=True)
        if not training.ours:
            shutil.rmtree(training.folder, ignore_errors=True)  # peers begin anew; ours goes on where it was
        started, log = time.monotonic(), training.folder.with_suffix(".log")
        with log.open("ab") as file:
            command = training.command(settings, peer_python)
            code = subprocess.run(command, stdout=file, stderr=file, env=os.environ | ONE_THREAD).returncode
        if code:
            raise SystemExit(f"{log}: ended with {code}\n{log.read_text()[-2000:]}")
        points = score(training.row.name, training.ours, training.folder, settings, training.world)
        record = {
            "identity": training.identity(),
            "accuracy": points,
            "seconds": round(time.monotonic() - started),
            "steps": settings["steps"],
        }
        result.write_text(json.dumps(record))
        print(f"{training.folder.name}: {points:.2f} % after {record['seconds']} s", flush=True)
    return json.loads(result.read_text())


def trainings(worlds: dict[str, World], rows: list[Row], options: argparse.Namespace) -> list[Training]:
    """Return all, a seed of both sides after the other; what others begin with comes first."""
    planned = []
    for row in rows:
        for seed in range(options.seeds):
            for ours in (True, False):
                if ours or seed < (row.peer_seeds or options.seeds):
                    of_all = (row, ours, seed, options.out, options.epochs)
                    planned += [Training(worlds[name], name, *of_all) for name in worlds]
    return planned


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", default=["lab"], choices=["lab", "cifar10"])
    parser.add_argument("--rows", nargs="+", default=[row.name for row in ROWS], choices=[row.name for row in ROWS])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=0, help="in place of each row's own, to try it out")
    parser.add_argument("--cifar10", type=Path, help="folder of cifar10-train-*.tar and cifar10-test-*.tar")
    parser.add_argument("--out", type=Path, default=Path("parity"))
    parser.add_argument("--peer-python", default=sys.executable, help="of the environment that the peers run in")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", type=Path, help="file to write the table into")
    options = parser.parse_args()
    worlds = {name: open_world(name, options.out / "data", options.cifar10) for name in options.worlds}
    for world in worlds.values():
        open_source(world.folder)  # its index is written once, before several trainings look for it
    planned = trainings(worlds, [row_named(name) for name in options.rows], options)

    # A row that begins with another's weights waits for it.
    results: dict[Path, dict] = {}
    for stage in (lambda t: not t.row.after, lambda t: bool(t.row.after)):
        chosen = [training for training in planned if stage(training)]
        with ThreadPoolExecutor(options.processes) as pool:
            done = pool.map(lambda training: run_one(training, options.peer_python), chosen)
            results |= {training.folder: record for training, record in zip(chosen, done, strict=True)}
    lines = []
    for name in worlds:
        for row in (row_named(name) for name in options.rows):
            of_row = [t for t in planned if t.row is row and t.world_name == name]
            sides = [[results[t.folder]["accuracy"] for t in of_row if t.ours is ours] for ours in (True, False)]
            settings = of_row[0].settings()
            lines.append((name, row, settings, sides, compare(*sides, row.margin)))
    write_table(lines, options.table)


if __name__ == "__main__":
    main()
