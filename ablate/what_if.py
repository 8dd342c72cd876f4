"""Counterfactuals: what a clone would be without some images, with a class from other prompts, with other seeds.

In: a finished run, whose manifest names its data and their prompts. Out: what changes, drawn and trained again, and
nothing else; results of both on the same images; ``what-if.md`` with paired differences.

    synclones ablate what-if runs/syn --without doubtful.txt --out without
    synclones ablate what-if runs/syn --classes 7 --prompts captions.parquet --seeds 3 --out sevens
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from synclones.ablate.appended import prompts_of
from synclones.ablate.changes import (
    SETTINGS,
    Run,
    as_yaml,
    elsewhere,
    item_of,
    left_out,
    numbers_of_classes,
    open_run,
    other_prompts,
    redrawn,
    without,
)
from synclones.ablate.difference import write_difference
from synclones.ablate.recorded import OUT, Running, Step, named_by_command
from synclones.base.config import check_ranges, grouped, to_dict
from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.manifest import MANIFEST_FILE, Parent, read_manifest, write_manifest
from synclones.base.process import stop_on_signals
from synclones.base.yaml_file import Dumper
from synclones.prompts.table import PromptTable
from synclones.shards.loading.chosen import read_numbers
from synclones.shards.loading.mixture import Item, Mixture
from synclones.shards.lock import claim

STAGE = "ablate what-if"
LEFT_OUT, PROMPTS, IMAGES, DATA = "left-out.txt", "prompts.parquet", "images", "data.yaml"


@grouped(
    What="run out seeds data workers dry_run",
    Change="without without_classes classes prompts image_seed train_seed of",
    Settings="evaluate_config",
)
@dataclass(frozen=True, kw_only=True)
class WhatIfConfig:
    """Train a clone again as it would be with one thing changed, and say how far the two are apart."""

    run: Path = field(kw_only=False)
    """Folder of the finished run."""
    without: Path | None = None
    """Text file with the numbers, or keys, of images that it shall be without, one on each line."""
    without_classes: tuple[str, ...] = ()
    """Ids of classes without whose images it shall be; the network keeps their outputs."""
    classes: tuple[str, ...] = ()
    """Ids of classes whose images are drawn again, from --prompts."""
    prompts: Path | None = None
    """Prompt table that has rows for --classes: the k-th image of a class is drawn from its k-th row."""
    image_seed: int | None = None
    """Seed from which the set is drawn again, all of it."""
    train_seed: int | None = None
    """Seed with which it is trained again."""
    of: str = ""
    """Which of its sets changes, by the name that its mixture gives it; needed where there are several."""
    seeds: int = 1
    """Trainings of both, with seeds that follow that of the run: one training says little about another."""
    data: Path | None = None
    """Labelled set that both are tested on; by default the lab's real test digits."""
    evaluate_config: tuple[Path, ...] = ()
    """YAML files with further settings of `synclones evaluate`."""
    workers: int = 1
    """Trainings at once."""
    out: Path = Path("what-if")
    """Folder of what is made; the same command goes on after a kill."""
    dry_run: bool = False
    """Print what changes and the commands, and write nothing."""

    def __post_init__(self) -> None:
        check_ranges(self, seeds=(1, 1000), workers=(1, 1000))
        if any(character in str(self.out) for character in "{}"):
            raise InputError(f"--out: {self.out} has a brace; rename it")
        if bool(self.classes) != (self.prompts is not None):
            raise InputError("--classes, --prompts: give both: whose images are drawn again, and from what")
        changes = ("without", "without_classes", "classes", "image_seed", "train_seed")
        given = [name for name in changes if getattr(self, name) not in (None, ())]
        if len(given) != 1:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in changes)
            raise InputError(f"{flags}: {len(given)} were given, expected one: what is compared differs in one thing")


@dataclass(frozen=True)
class Change:
    """What is done otherwise.

    Attributes:
        says: it, in words.
        mixture: what is read then.
        draw: commands that draw what is not there yet.
        numbers: images of a set that the file `LEFT_OUT` lists.
        seed: of the training, where that is what changes.
    """

    says: str
    mixture: Mixture
    draw: tuple[Step, ...] = ()
    numbers: np.ndarray | None = None
    seed: int | None = None


def run_what_if(config: WhatIfConfig) -> None:
    """Draw and train what changes, measure both, and write the difference.

    Raises:
        InputError: the run, the change or the folder cannot be used.
        VerificationError: the data of the run are others by now.
        SystemExit: with the exit code of a command that failed; its own line says why.
    """
    run = open_run(config.run)
    change = _change(config, run)
    pairs = _pairs(run, config, change)
    steps = [step for pair in pairs for step in pair]
    evaluation = _evaluation(config, run, pairs)
    if config.dry_run:
        commands = [step.words(config.out) for step in (*change.draw, *steps, evaluation)]
        print("\n".join([change.says, *(f"synclones {' '.join(words)}" for words in commands)]))
        return
    stop_on_signals()
    if (config.out / MANIFEST_FILE).exists() and (stage := read_manifest(config.out)["stage"]) != STAGE:
        raise InputError(f"--out {config.out}: belongs to `synclones {stage}`; give a new folder")
    config.out.mkdir(parents=True, exist_ok=True)
    claimed = claim(config.out, "what-if")
    if claimed is None:
        raise InputError(f"--out: another process works in {config.out}; wait for it, or give a new folder")
    with claimed:
        print(change.says, file=sys.stderr)
        _write_inputs(config, run, change)
        running = Running()
        running.run_all(config.out, [change.draw], 1)
        running.run_all(config.out, [[step] for step in steps], config.workers)
        running.run_all(config.out, [[evaluation]], 1)
        _finish(config, run, change, pairs)


# ------------------------------------------------------------------ what changes


def _change(config: WhatIfConfig, run: Run) -> Change:
    if config.train_seed is not None:
        if abs(config.train_seed - run.seed) < config.seeds:  # else one training would stand on both sides
            apart = f", {config.seeds} or more away: both are trained with so many seeds" if config.seeds > 1 else ""
            raise InputError(f"--train-seed: {run.folder} was trained with {run.seed}; give another{apart}")
        return Change(
            f"trained with seed {config.train_seed} instead of {run.seed}", run.mixture, seed=config.train_seed
        )
    item = item_of(run, config.of)
    if config.image_seed is not None:
        return _other_noise(config, run, item)
    file = config.out / LEFT_OUT
    if config.classes:
        return _other_prompts(config, run, item)
    if config.without is not None:
        numbers, named = read_numbers(config.without, "--without"), f"the {{}} images of {config.without}"
    else:
        numbers = numbers_of_classes(item, config.without_classes, "--without-classes")
        named = f"the {{}} images of {', '.join(config.without_classes)}"
    says = f"{item.name} without {named.format(len(numbers))}; nothing is drawn"
    return Change(says, without(run, item, file), numbers=left_out(item, numbers))


def _other_prompts(config: WhatIfConfig, run: Run, item: Item) -> Change:
    numbers = numbers_of_classes(item, config.classes, "--classes")
    mixture = redrawn(run, item, config.out / LEFT_OUT, config.out / IMAGES)
    says = f"{item.name} with {len(numbers)} images of {', '.join(config.classes)} drawn from {config.prompts}"
    flags = ("--prompts", f"{OUT}/{PROMPTS}", "--num-images", str(len(numbers)), "--out", f"{OUT}/{IMAGES}")
    step = Step(IMAGES, ("generate", "--config", _drawn_by(item), *flags))
    return Change(says, mixture, (step,), left_out(item, numbers))


def _other_noise(config: WhatIfConfig, run: Run, item: Item) -> Change:
    table, seed = prompts_of(Path(item.path)).path, str(config.image_seed)
    flags = ("--prompts", str(table), "--seed", seed, "--out", f"{OUT}/{IMAGES}")
    step = Step(IMAGES, ("generate", "--config", _drawn_by(item), *flags))
    says = f"{item.name} drawn again with seed {seed}, all of it"
    return Change(says, elsewhere(run, item, config.out / IMAGES), (step,))


def _drawn_by(item: Item) -> str:
    """Return the settings that a set was drawn with.

    Raises:
        InputError: it was not drawn.
    """
    folder = Path(item.path)
    if not (folder / MANIFEST_FILE).is_file() or read_manifest(folder)["stage"] != "generate":
        raise InputError(f"{folder}: was not drawn by `synclones generate`, so it cannot be drawn again")
    return str(folder / SETTINGS)


def _write_inputs(config: WhatIfConfig, run: Run, change: Change) -> None:
    """Write what the commands read: a function of run and change, so that a second start writes the same."""
    if change.numbers is not None:
        text = "".join(f"{number}\n" for number in change.numbers.tolist())
        write_atomic(config.out / LEFT_OUT, text.encode())
    if config.prompts is not None:
        item = item_of(run, config.of)
        numbers = numbers_of_classes(item, config.classes, "--classes")
        other_prompts(config.out / PROMPTS, Path(item.path), numbers, PromptTable(config.prompts))
    for name, mixture in ((DATA, change.mixture), (f"as-it-was-{DATA}", run.mixture)):
        text = yaml.dump(as_yaml(mixture), Dumper=Dumper, sort_keys=False, allow_unicode=True)
        write_atomic(config.out / name, text.encode())


# ------------------------------------------------------------------ what is trained and measured


def _pairs(run: Run, config: WhatIfConfig, change: Change) -> list[list[Step]]:
    """Return for each seed the training of the clone as it would be, and as it was where the run is not that one."""
    pairs = []
    for number in range(config.seeds):
        seed = run.seed + number
        other = seed if change.seed is None else change.seed + number
        changed = _trained(run, f"changed-{number}", DATA, other)
        pairs.append(
            [changed] if not number else [changed, _trained(run, f"as-it-was-{number}", f"as-it-was-{DATA}", seed)]
        )
    return pairs


def _trained(run: Run, name: str, data: str, seed: int) -> Step:
    settings = str(run.folder / SETTINGS)
    flags = ("--data", f"{OUT}/{data}", "--seed", str(seed), "--out", f"{OUT}/{name}")
    return Step(name, ("train", "--config", settings, *flags))


def _both(run: Run, pair: Sequence[Step], out: Path | str) -> tuple[str, str]:
    """Return the runs of a pair: as it would be, as it was."""
    was = f"{out}/{pair[1].name}" if len(pair) > 1 else str(run.folder)
    return f"{out}/{pair[0].name}", was


def _evaluation(config: WhatIfConfig, run: Run, pairs: Sequence[Sequence[Step]]) -> Step:
    models = [model for pair in pairs for model in _both(run, pair, OUT)]
    more = ("--config", *map(str, config.evaluate_config)) if config.evaluate_config else ()
    data = ("--data", str(config.data)) if config.data else ()
    return named_by_command("results", ("evaluate", "--model", *models, *data, *more, "--out", f"{OUT}/results"))


def _finish(config: WhatIfConfig, run: Run, change: Change, pairs: Sequence[Sequence[Step]]) -> None:
    runs = [tuple(map(Path, _both(run, pair, config.out))) for pair in pairs]
    text = write_difference(config.out, change.says, [(pair[0], pair[1]) for pair in runs])
    every = [folder for pair in runs for folder in pair]
    parents = [Parent("clone", str(one), str(read_manifest(one)["content_hash"])) for one in every]
    counts = {"trainings": sum(map(len, pairs)), "seeds": config.seeds}
    facts = {"content_hash": sha256_bytes(text.encode()), "change": change.says}
    write_manifest(config.out, STAGE, to_dict(config), parents, counts, {}, facts)
    print(text)
