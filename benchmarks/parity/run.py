"""Whether synclones learns as well as the best known code: the same networks, shards and budgets, trained by both.

    make parity                                       # the lab's digits
    make parity CIFAR10=folder-of-tars                # and CIFAR-10: a night on two cores
    python benchmarks/parity/run.py --seeds 2 --rows supervised --worlds lab --out parity

In: nothing, or tars of CIFAR-10. Out: a folder per training, a line of ``--records`` for each, and the
table (``--table``) of all lines whose settings are today's. What is finished is not done again, so that the command may
be interrupted at any time and a table gathered over several nights. Peers run in an environment of their own
(``--peer-python``) and import nothing of this project. Each training has one thread; as many run as there are cores.
"""

import argparse
import datetime
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
from records import Record, add_record, read_records
from report import cpu_name, write_table
from rows import ROWS, Row, Settings, row_named, script_of
from score import score
from worlds import World, open_world

from synclones.base.files import sha256_file
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
        return self.out / "runs" / f"{self.world_name}-{self.row.name}-{self.side}-{self.seed}"

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

    @property
    def side(self) -> str:
        """Whose code trains."""
        return "ours" if self.ours else "peer"

    def identity(self) -> str:
        """Return a hash of what decides the training, wherever its files lie; the seed stands beside it."""
        beside = ("folder", "shards", "brace", "split", "weights", "seed")
        decisive = {name: value for name, value in self.settings().items() if name not in beside}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]

    def start(self) -> str:
        """Return a hash of the weights that it begins with, or nothing if they are random."""
        if not self.row.after:
            return ""
        return sha256_file(Path(self.settings()["weights"]) / "model.safetensors")[:16]

    def is_of(self, record: Record) -> bool:
        """Return whether a line is this training's, under today's settings."""
        ours = (self.world_name, self.row.name, self.side, self.seed, self.identity())
        return ours == (record.data, record.row, record.side, record.seed, record.settings)

    def command(self, settings: Settings, peer_python: str) -> list[str]:
        """Return what trains it."""
        if not self.ours:
            written = self.folder.with_suffix(".json")
            written.write_text(json.dumps(settings, indent=1))
            return [peer_python, str(script_of(self.row)), str(written), str(self.folder)]
        flags = ["--data", settings["folder"], "--out", str(self.folder), "--seed", str(self.seed)]
        flags += ["--device", "cpu", "--torch-threads", "1", "--decode-threads", "1", *self.row.ours(settings)]
        return [sys.executable, "-m", "synclones.train.run", *flags]


def run_one(training: Training, options: argparse.Namespace, needed: bool) -> None:
    """Train, unless that was done; ``needed``: its weights must lie here, not its accuracy alone."""
    known = [r for r in read_records(options.records) if training.is_of(r) and r.start == training.start()]
    finished, settings = training.folder.with_suffix(".finished"), training.settings()
    if finished.exists() and finished.read_text() != training.identity():
        print(f"{training.folder.name}: was of other settings; trained again", flush=True)
        shutil.rmtree(training.folder, ignore_errors=True)
        finished.unlink()
    if known and (finished.exists() or not needed):
        return
    if not finished.exists():
        training.folder.parent.mkdir(parents=True, exist_ok=True)
        if not training.ours:
            shutil.rmtree(training.folder, ignore_errors=True)  # peers begin anew; ours goes on where it was
        started, log = time.monotonic(), training.folder.with_suffix(".log")
        with log.open("ab") as file:
            command = training.command(settings, options.peer_python)
            code = subprocess.run(command, stdout=file, stderr=file, env=os.environ | ONE_THREAD).returncode
        if code:
            raise SystemExit(f"{log}: ended with {code}\n{log.read_text()[-2000:]}")
        points = round(score(training.row.name, training.ours, training.folder, settings, training.world), 4)
        seconds = round(time.monotonic() - started)
        if not known:  # a training again, for its weights alone, is no second number
            key = (training.world_name, training.row.name, training.side, training.seed)
            today = f"{datetime.date.today():%Y-%m-%d}"
            made = (training.identity(), training.start(), points, seconds, today, cpu_name())
            add_record(options.records, Record(*key, *made))
        finished.write_text(training.identity())
        print(f"{training.folder.name}: {points:.2f} % after {seconds} s", flush=True)


def trainings(worlds: dict[str, World], rows: list[Row], options: argparse.Namespace) -> list[Training]:
    """Return all, a seed of both sides after the other."""
    planned = []
    for row in rows:
        for seed in range(options.seeds):
            for ours in (True, False):
                if ours or seed < (row.peer_seeds or options.seeds):
                    of_all = (row, ours, seed, options.out, options.epochs)
                    planned += [Training(worlds[name], name, *of_all) for name in worlds]
    return planned


def lines_of(planned: list[Training], records: list[Record]) -> list[tuple]:
    """Return the table's rows: every line of the records with today's settings, whatever machine and night it is of."""
    lines = []
    for first in {(training.world_name, training.row.name): training for training in planned}.values():
        world, row = first.world_name, first.row
        of_row = [r for r in records if (r.data, r.row, r.settings) == (world, row.name, first.identity())]
        of_row = [r for r in of_row if r.start == max(of_row, key=lambda r: r.date).start]  # of one start, the last
        sides = [[r.accuracy for r in of_row if r.side == side] for side in ("ours", "peer")]
        if min(map(len, sides)) and sum(map(len, sides)) > 2:
            lines.append((world, row, first.settings(), sides, compare(*sides, row.margin), of_row))
    return lines


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
    parser.add_argument("--records", type=Path, help="CSV file of all finished trainings; default: OUT/records.csv")
    parser.add_argument("--table", type=Path, help="file to write the table into")
    options = parser.parse_args()
    options.records = options.records or options.out / "records.csv"
    worlds = {name: open_world(name, options.out / "data", options.cifar10) for name in options.worlds}
    for world in worlds.values():
        open_source(world.folder)  # its index is written once, before several trainings look for it
    rows = [row_named(name) for name in options.rows]
    planned = trainings(worlds, rows, options)

    # A row that begins with another's weights waits for it.
    first = trainings(worlds, [row_named(row.after) for row in rows if row.after], options)
    needed = {t.folder: t for t in first if t.ours and t.seed == 0}
    others = [t for t in planned if t.folder not in needed]
    for stage in (needed.values(), *([t for t in others if bool(t.row.after) is last] for last in (False, True))):
        with ThreadPoolExecutor(options.processes) as pool:
            list(pool.map(lambda training: run_one(training, options, training.folder in needed), stage))
    write_table(lines_of(trainings(worlds, list(ROWS), options), read_records(options.records)), options.table)


if __name__ == "__main__":
    main()
