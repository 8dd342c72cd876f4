"""What the lab trains besides classifiers: CLIP, several positives with a probe, last layers on few real images.

In: the sets that `synclones.lab.experiment` has drawn. Out: runs and results beside them, and a part of ``--table``.

    python -m synclones.lab.objectives --experiment lab-results --seeds 3 --table docs/results.md    # make results
"""

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pyarrow.parquet as pq

from synclones.base.config import Count, check_ranges, load
from synclones.base.errors import InputError
from synclones.base.files import write_atomic
from synclones.base.json_file import parse_json
from synclones.base.process import run_main, stop_on_signals
from synclones.base.resume import typed
from synclones.lab.commands import side_by_side, synclones
from synclones.lab.experiment import RECIPES
from synclones.lab.experiment_table import difference, read_values, write_part
from synclones.lab.real_digits import write_real_digits
from synclones.prompts.classes.lists import load_classes
from synclones.shards.dataset import open_dataset

FEW = "fraction=1/8"
# What was learned from many images is not to be forgotten over 67: a tenth of the recipe's rate and of its length.
TUNING_RATE, SHORT = 1e-4, 0.1
# The paper's batch; of a smaller set half, since a batch is part of one epoch, and a tenth of the set is held out.
MOST_OF_PROBE = 1024


@dataclass(frozen=True, kw_only=True)
class ObjectivesConfig:
    """Train what is no classifier from scratch on the lab's sets, and measure it on real digits."""

    experiment: Path = Path("lab-results")
    """Folder of `synclones.lab.experiment`, whose drawn sets are read; runs and results go there too."""
    samples: Count = 60_000
    """Images each training sees."""
    seeds: int = 3
    """Trainings of each kind."""
    table: Path | None = None
    """Markdown file whose last part is written anew."""

    def __post_init__(self) -> None:
        check_ranges(self, samples=(1, 2**53), seeds=(2, 1000))
        for recipe in RECIPES:
            if not (self.experiment / "data" / recipe / "manifest.json").exists():
                raise InputError(
                    f"--experiment {self.experiment}: has no data/{recipe}; run "
                    f"`{typed(['demo', '--out', str(self.experiment)])}` first"
                )


@dataclass(frozen=True)
class Training:
    """One kind of training."""

    name: str
    words: str
    """What it is, for the table."""
    flags: Callable[[Path, int], list[object]]
    """(folder of the runs of its seed, seed) -> flags of ``synclones train``."""
    after: str = ""
    """The training whose weights it begins with."""
    measured: bool = True
    share: float = 1.0
    """Of the images that the others see."""


def trainings(config: ObjectivesConfig, real: Path) -> list[Training]:
    """Return all kinds; those that begin with others come later."""
    data = config.experiment / "data"
    drawn, named = data / "clip-templates", data / "class-name"
    repeat = 8 * max(1, round(4500 / 540))
    few = ["--data", f"{real},{FEW},repeat={repeat}"]
    lab: list[object] = ["--recipe", "lab"]
    probe: list[object] = ["--recipe", "probe", "--data", named, "--image-size-px", 32, "--precision", "fp32"]
    probe += ["--hold-out", 0.1, "--probe-norm", "--crop-scale-min", 0.9, "--no-flip"]
    probe += ["--batch-size", min(MOST_OF_PROBE, len(open_dataset(named)) // 2)]
    shape: list[object] = ["--patch-size", 8, "--embed-dim", 96, "--depth", 4, "--num-heads", 3]

    def tuned(*part: object) -> Callable[[Path, int], list[object]]:
        begun = ["--head", "kept", "--learning-rate", TUNING_RATE]
        return lambda runs, seed: [*lab, *few, "--weights", runs / "clone", *begun, *part]

    return [
        Training("clone", "classifier of drawn images (CLIP's templates)", lambda runs, seed: [*lab, "--data", drawn]),
        Training("real", "classifier of all real images", lambda runs, seed: [*lab, "--data", real]),
        Training("real-eighth", "classifier of 1/8 of the real images", lambda runs, seed: [*lab, *few]),
        Training(
            "clip",
            "CLIP of drawn images and their prompts (templates), zero-shot",
            lambda runs, seed: ["--recipe", "lab-clip", "--data", drawn],
        ),
        Training(
            "several",
            "",
            lambda runs, seed: ["--recipe", "lab-multipositive", "--data", named],
            measured=False,
        ),
        Training("probe-fresh", "probe of a backbone with fresh weights", lambda runs, seed: [*probe, *shape]),
        Training(
            "probe-several",
            "probe of a backbone of several positives (drawn images of one class name)",
            lambda runs, seed: [*probe, "--weights", runs / "several", "--architecture", "weights"],
            after="several",
        ),
        Training(
            "last-1",
            "the clone, last block on 1/8 of the real images",
            tuned("--train-only", "last:1"),
            "clone",
            share=SHORT,
        ),
        Training(
            "last-2", "the clone, last two blocks on these", tuned("--train-only", "last:2"), "clone", share=SHORT
        ),
        Training("all", "the clone, all layers on these", tuned(), "clone", share=SHORT),
    ]


def main(argv: list[str]) -> None:
    """Train, evaluate, write the table."""
    config = load(ObjectivesConfig, argv, "python -m synclones.lab.objectives")
    stop_on_signals()
    data = config.experiment / "data"
    real, test = write_real_digits(data / "real", "classifier-train"), write_real_digits(data / "real-test", "test")
    kinds = trainings(config, real)
    # Those that begin with another's weights wait for all others; one thread each, as many at once as there are cores.
    for stage in ([k for k in kinds if not k.after], [k for k in kinds if k.after]):
        jobs = [(kind, seed) for seed in range(config.seeds) for kind in stage]
        side_by_side("trainings", {f"{kind.name}, seed {seed}": _training(kind, seed, config) for kind, seed in jobs})
    folders = []
    for seed in range(config.seeds):
        runs = [_runs(config, seed) / kind.name for kind in kinds if kind.measured]
        folders.append(config.experiment / "objectives" / "results" / f"seed-{seed}")
        synclones("evaluate", "--model", *runs, "--data", test, "--out", folders[-1])
    lines = table(kinds, read_values(folders)["accuracy"], argv, config)
    print("\n".join(lines))
    if config.table is not None:
        write_part(config.table, lines)


def _runs(config: ObjectivesConfig, seed: int) -> Path:
    return config.experiment / "objectives" / "runs" / f"seed-{seed}"


def _training(kind: Training, seed: int, config: ObjectivesConfig) -> list[object]:
    """Return the command that trains one; the same command goes on after any kill."""
    flags = kind.flags(_runs(config, seed), seed)
    length = (
        "--samples",
        max(1, round(kind.share * config.samples)),
        "--seed",
        seed,
        "--torch-threads",
        1,
        "--device",
        "cpu",
    )
    classes = ("--zero-shot-classes", _class_list(config)) if kind.name == "clip" else ()
    return ["train", *flags, "--out", _runs(config, seed) / kind.name, *length, *classes, "--log-every", 1000]


def _class_list(config: ObjectivesConfig) -> Path:
    """Return the digits' names as a file, by which CLIP classifies."""
    path = config.experiment / "objectives" / "digits.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{digit.class_id},{digit.name}\n" for digit in load_classes("lab-digits").classes]
    write_atomic(path, "".join(["class_id,name\n", *rows]).encode())
    return path


def table(
    kinds: list[Training], accuracies: dict[str, list[float]], argv: list[str], config: ObjectivesConfig
) -> list[str]:
    """Return the part of the results as Markdown lines, with what the numbers come to."""
    measured = [kind for kind in kinds if kind.measured]
    lines = [
        "## CLIP, probes, and few real images",
        "",
        f"`python -m synclones.lab.objectives {' '.join(argv)}` (`make results`), {time.strftime('%Y-%m-%d')},",
        f"{config.seeds} trainings of each, on {config.samples:,} images; those begun with the clone on a tenth as",
        "many, at a tenth of the rate. Percent of the lab's 537 real test digits, mean ± standard deviation over",
        "trainings; chance is 10 %.",
        "",
        "| training | accuracy |",
        "|---|---|",
    ]
    lines += [f"| {k.words} | {_mean(accuracies[k.name])} |" for k in measured]
    return [*lines, "", *_floor(config), *conclusions(accuracies)]


def _floor(config: ObjectivesConfig) -> list[str]:
    """Return how near CLIP's loss came to the lowest possible one: of equal prompts no image can be told by text."""
    runs = [_runs(config, seed) / "clip" for seed in range(config.seeds)]
    losses = [parse_json((run / "metrics.jsonl").read_text().splitlines()[-1])["loss"] for run in runs]
    batch = int(parse_json((runs[0] / "plan.json").read_text())["batch_size"])
    table = pq.read_table(config.experiment / "prompts" / "clip-templates.parquet", columns=["prompt"])
    counts = Counter(table["prompt"].to_pylist())
    shares = np.array(list(counts.values())) / len(table)
    floor = float((shares * np.log1p((batch - 1) * shares)).sum())
    return [
        f"- CLIP's loss ended at {fmean(losses):.2f}. Equal prompts are positives of each other, so that in a batch of "
        f"{batch} of these prompts it cannot fall below about {floor:.2f}; of guessing it is {np.log(batch):.2f}.",
    ]


def _mean(values: list[float]) -> str:
    return f"{fmean(values):.1f} ± {stdev(values):.1f}"


def conclusions(accuracies: dict[str, list[float]]) -> list[str]:
    """Return what the accuracies say, each with its interval of 95 % (Welch's t)."""
    probe = difference(accuracies["probe-several"], accuracies["probe-fresh"])
    gap = difference(accuracies["real"], accuracies["clone"])
    lines = [
        f"- The probe of several positives is {probe.value:+.1f} ± {probe.half_width:.1f} points from that of fresh "
        "weights.",
        f"- The clone of drawn images is {-gap.value:+.1f} ± {gap.half_width:.1f} points from that of all real images.",
        "  Begun with the clone and trained on an eighth of these,",
    ]
    for name, words in (("last-1", "the last block"), ("last-2", "the last two"), ("all", "all layers")):
        gained = difference(accuracies[name], accuracies["clone"])
        share = 100 * gained.value / gap.value if gap.value > 0 else float("nan")
        lines.append(f"  {words}: {gained.value:+.1f} ± {gained.half_width:.1f} points, {share:.0f} % of that gap;")
    alone = difference(accuracies["real-eighth"], accuracies["clone"])
    lines.append(f"  the same images without the clone: {alone.value:+.1f} ± {alone.half_width:.1f} points from it.")
    return lines


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
