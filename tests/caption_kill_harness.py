"""Kills the writing of captions at random points and restarts it with one to three processes at once.

    python tests/caption_kill_harness.py WORK_FOLDER SEED KILLS

Children are forked from this process after the tiny models are loaded, so a restart costs milliseconds. A child dies by
SIGKILL of its own at the k-th operation of one phase, half way through it; one whose turn never comes lives to the end.
Prints JSON: kills by phase, and whether every file equals that of one uninterrupted process, as do those of three at
once that nobody kills.
"""

import json
import os
import random
import shutil
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import forks
import numpy as np
import torch
from forks import Fate
from PIL import Image
from tiny_writers import write_blip2, write_llama

import synclones.prompts.captions.describe as describing
import synclones.prompts.captions.journal as journal
import synclones.prompts.captions.language_model as language_model
import synclones.prompts.captions.pieces as pieces
from synclones.prompts.captions.transformers_model import find_text_model, load_text_model
from synclones.prompts.run import main as prompts

PHASES = ("answer", "append", "write", "rename", "remove")
WEIGHTS = (3, 4, 1, 2, 1)
MOST = (4, 4, 2, 4, 1)  # a process writes two files whole, and removes one folder


def arm(fate: Fate) -> None:
    """Put the child's fate into the functions of each phase."""
    append, atomic, replace, remove = journal.append_durably, pieces.write_atomic, os.replace, shutil.rmtree
    answer = pieces.PieceJournal.add

    def answered(self, records):
        if fate.due("answer"):
            fate.die()
        answer(self, records)

    def appending(file, end, data):
        if fate.due("append"):  # half of the bytes reach the file
            file.truncate(end)
            file.write(data[: len(data) // 2])
            fate.die()
        return append(file, end, data)

    def writing(path, data):
        if fate.due("write"):
            path.with_name(f".{path.name}.tmp-{os.getpid()}-dead").write_bytes(data[: len(data) // 2])
            fate.die()
        atomic(path, data)

    def renaming(source, target):
        if fate.due("rename"):
            if random.random() < 0.5:
                replace(source, target)
            fate.die()
        replace(source, target)

    def removing(folder):
        if fate.due("remove"):
            next(path for path in folder.iterdir()).unlink()
            fate.die()
        remove(folder)

    pieces.PieceJournal.add = answered
    journal.append_durably, pieces.write_atomic, os.replace, shutil.rmtree = appending, writing, renaming, removing


def child(argv: list[str], rank: int, world: int, fate: Fate | None) -> None:
    if random.random() < 0.5:  # a rank of a launcher, or a plain command
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(world))
    sys.stdout = sys.stderr = open(os.devnull, "w")
    if fate:
        arm(fate)
    prompts(argv)


def one_round(argv: list[str], world: int, rng: random.Random, interrupt: bool, kills: Counter) -> None:
    """Start ``world`` children, wait for all, and count those that died of their fate."""
    children = []
    for rank in range(world):
        (phase, most), flag = rng.choices([*zip(PHASES, MOST, strict=True)], WEIGHTS)[0], forks.flag()
        fate = Fate(phase, rng.randint(1, most), flag) if interrupt else None
        children.append((forks.forked(partial(child, argv, rank, world, fate), rng.random()), phase, flag))
    forks.count_kills(children, kills)


def make_commands(folder: Path) -> dict[str, list[str]]:
    """Write models and images, load the models once for all children, and return the two commands."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    for number in range(23):
        path = folder / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
    shutil.copy(path, path.with_name("again.png"))
    loaded: dict = {}
    for kind, model in (("image-to-text", write_blip2(folder / "blip2")), ("text", write_llama(folder / "llama"))):
        loaded[kind] = load_text_model(find_text_model(str(model), "", "--model"), kind, "cpu", "--model")
    describing.load_text_model = language_model.load_text_model = lambda folder, kind, *more: loaded[kind]
    short = ["--device", "cpu", "--threads", "1", "--batch-size", "2"]
    images = ["--images", str(folder / "images"), "--model", str(folder / "blip2"), "--max-new-tokens", "4"]
    words = ["--classes", "lab-digits", "--model", str(folder / "llama"), "--max-tokens", "4"]
    return {"caption": ["caption", *images, *short], "write": ["write", "--captions-per-class", "3", *words, *short]}


def main() -> None:
    folder, seed, wanted = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    commands, rng = make_commands(folder), random.Random(seed)
    kills, equal, leftovers, reference = Counter(), [], set(), {}

    def compare(verb: str, made: Path) -> None:
        equal.append((made / "c.parquet").read_bytes() == reference[verb])
        leftovers.update({path.name for path in made.iterdir()} - {"c.parquet"})

    for verb, command in commands.items():
        alone, three = folder / f"{verb}-alone", folder / f"{verb}-three"
        one_round([*command, "--out", str(alone / "c.parquet")], 1, rng, False, kills)
        reference[verb] = (alone / "c.parquet").read_bytes()
        one_round([*command, "--out", str(three / "c.parquet")], 3, rng, False, kills)
        compare(verb, three)
    runs = 0
    while sum(kills.values()) < wanted or runs < len(commands):
        verb = list(commands)[runs % len(commands)]
        made = folder / f"{verb}-{runs}"
        command = [*commands[verb], "--out", str(made / "c.parquet")]
        while not (made / "c.parquet").exists():
            one_round(command, rng.randint(1, 3), rng, True, kills)
        one_round(command, 1, rng, False, kills)
        compare(verb, made)
        runs += 1
    print(json.dumps({"kills": kills, "equal": equal, "leftovers": sorted(leftovers)}))


if __name__ == "__main__":
    main()
