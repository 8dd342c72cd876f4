"""The lab's experiment, end to end through the public commands: two kinds of prompts, synthetic, real and mixed data.

In: nothing. Out: data, runs and results under one folder, and the table on the terminal; with ``--seeds`` above 1,
means and spreads over trainings in ``--table``. Killed, it goes on where it was: every command resumes.

    synclones demo
    synclones demo --images 4500 --seeds 3 --out lab-results --table docs/results.md
"""

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from synclones.base.config import Count, check_ranges, load
from synclones.base.errors import InputError
from synclones.base.machine import cores
from synclones.base.manifest import read_manifest
from synclones.base.process import run_main, stop_on_signals
from synclones.base.resume import resumed_by
from synclones.base.units import format_duration
from synclones.lab.commands import Headings, side_by_side, synclones

RECIPES = ("class-name", "clip-templates")
# About the seconds on two idle cores (AMD EPYC, 2026-11-29, `make demo`): by their ratios headings tell what is left.
START_S, IMAGE_S, SAMPLE_S, EVALUATION_S = 8.0, 0.025, 0.0007, 8.0


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Compare clones of two kinds of prompts with clones of real and of mixed data, all having seen as many samples."""

    out: Path = Path("lab-demo")
    """Folder of data, runs and results."""
    images: Count = 1500
    """Synthetic images per kind of prompts."""
    samples: Count = 60_000
    """Images each clone sees in training."""
    seeds: int = 1
    """Trainings of each clone."""
    table: Path | None = None
    """Markdown file for the means and spreads over seeds."""

    def __post_init__(self) -> None:
        check_ranges(self, images=(1, 2**32), samples=(1, 2**53), seeds=(1, 1000))
        if self.table is not None and not self.table.parent.is_dir():
            raise InputError(f"--table {self.table}: {self.table.parent} is no folder; make it first")


def main(argv: list[str]) -> None:
    """Draw, train, evaluate, and say where it all lies."""
    config = load(ExperimentConfig, argv, "synclones demo")
    stop_on_signals()  # and with this process end the commands that it runs
    with resumed_by(shlex.join(["python", "-m", "synclones.lab.experiment", *argv]), as_typed=True):
        run(config, argv)


def run(config: ExperimentConfig, argv: list[str]) -> None:
    """Go on with what is missing of the experiment."""
    started, out, headings = time.monotonic(), config.out, Headings(stages(config))
    for recipe in RECIPES:
        headings.next()
        draw(recipe, config)
    drawn = time.monotonic() - started
    headings.next()
    from synclones.lab.real_digits import write_real_digits  # loads torch, which wrong settings should not wait for

    real = write_real_digits(out / "data" / "real", "classifier-train")
    test = write_real_digits(out / "data" / "real-test", "test")
    clones = mixtures(config, real)
    jobs = [(name, seed) for seed in range(config.seeds) for name in clones]
    # One thread each: the fastest way to train several small networks.
    side_by_side("trainings", {_named(*job, config): training(job[0], clones[job[0]], job[1], config) for job in jobs})
    trained = time.monotonic() - started - drawn
    headings.next()
    for seed in range(config.seeds):
        models = [str(run_folder(config, name, seed)) for name in clones]
        synclones("evaluate", "--model", *models, "--data", test, "--out", out / "results" / f"seed-{seed}")
    if config.table is not None:
        from synclones.lab.experiment_table import write_table  # loads scipy

        results = [out / "results" / f"seed-{seed}" for seed in range(config.seeds)]
        write_table(config.table, results, argv, recorded_cost(config, [run_folder(config, *job) for job in jobs]))
    seconds = format_duration(time.monotonic() - started)
    print(f"{seconds}: {format_duration(drawn)} drawing, {format_duration(trained)} training")


def stages(config: ExperimentConfig) -> list[tuple[str, float]]:
    """Return what the experiment does, with the seconds that it takes on the two cores that it was measured on."""
    trainings = (1 + 2 * len(RECIPES)) * config.seeds
    images, samples = f"{config.images:,} images", f"{config.samples:,} samples"
    together = min(cores(), trainings)
    return [
        *((f"drawing {images} of {recipe}", START_S + config.images * IMAGE_S) for recipe in RECIPES),
        (
            f"training {trainings} clones, {samples} each, {together} at once",
            -(-trainings // together) * (START_S + config.samples * SAMPLE_S),
        ),
        (f"evaluating {trainings} clones", config.seeds * START_S + trainings * EVALUATION_S),
    ]


def draw(recipe: str, config: ExperimentConfig) -> None:
    """Draw one synthetic dataset."""
    table = config.out / "prompts" / f"{recipe}.parquet"
    if not table.exists():
        table.parent.mkdir(parents=True, exist_ok=True)
        what = ("--recipe", recipe, "--classes", "lab-digits", "--num-images", config.images)
        synclones("prompts", "build", *what, "--out", table)
    synclones("generate", "--preset", "lab", "--prompts", table, "--out", config.out / "data" / recipe)


def mixtures(config: ExperimentConfig, real: Path) -> dict[str, list[str]]:
    """Clone -> its data folders. In a mixture real images are repeated until they are about half of it."""
    repeat = max(1, round(config.images / 540))
    clones: dict[str, list[str]] = {}
    for recipe in RECIPES:
        folder = str(config.out / "data" / recipe)
        clones |= {recipe: [folder], f"{recipe}+real": [folder, f"{real}:{repeat}"]}
    return clones | {"real": [str(real)]}


def run_folder(config: ExperimentConfig, name: str, seed: int) -> Path:
    """Return where a clone is trained."""
    return config.out / "runs" / (name if config.seeds == 1 else f"seed-{seed}/{name}")


def _named(name: str, seed: int, config: ExperimentConfig) -> str:
    return name if config.seeds == 1 else f"{name}, seed {seed}"


def training(name: str, data: list[str], seed: int, config: ExperimentConfig) -> list[object]:
    """Return the command that trains one clone."""
    length = ("--samples", config.samples, "--seed", seed, "--torch-threads", 1, "--device", "cpu")
    folder = run_folder(config, name, seed)
    return ["train", "--recipe", "lab", "--data", *data, "--out", folder, *length, "--log-every", 1000]


def recorded_cost(config: ExperimentConfig, runs: list[Path]) -> str:
    """Return what the folders say they took, however often this command was started."""
    drawn = sum(read_manifest(config.out / "data" / recipe)["times"]["process_seconds"] for recipe in RECIPES)
    trained = sum(read_manifest(run)["times"]["seconds"] for run in runs)
    machine = f"{cores()} cores" if cores() > 1 else "one core"
    return f"{format_duration(drawn)} of drawing on {machine}, {format_duration(trained)} of training on one core each"


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
