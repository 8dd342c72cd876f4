"""Means and spreads over several trainings, and which differences are larger than both kinds of chance.

In: one results folder per seed. Out: a Markdown file.
"""

import csv
import time
from pathlib import Path
from statistics import fmean, stdev

from synclones.base.files import write_atomic
from synclones.base.json_file import parse_json

Values = dict[str, dict[str, list[float]]]
TITLES = {"accuracy": "accuracy", "ece": "ECE", "r_adv": "R_adv", "accuracy_fgsm": "accuracy under FGSM"}


def read_values(folders: list[Path]) -> Values:
    """metric -> model -> one value per seed, in percent."""
    values: Values = {}
    for folder in folders:
        with (folder / "table.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                metric = f"{TITLES[row['metric']]}{_strength(row['settings'])}"
                if row["value"]:
                    values.setdefault(metric, {}).setdefault(row["model"], []).append(100 * float(row["value"]))
    return values


def _strength(settings: str) -> str:
    epsilon = parse_json(settings).get("epsilon_255")
    return "" if epsilon is None else f" {epsilon:g}/255"


def write_table(path: Path, folders: list[Path], argv: list[str], cost: str) -> None:
    """Write the table of mean and standard deviation over the folders' seeds, and the differences between clones."""
    values = read_values(folders)
    order = ("accuracy", "ECE", "R_adv", "accuracy under")
    metrics = sorted(values, key=lambda m: (next(i for i, start in enumerate(order) if m.startswith(start)), len(m), m))
    metrics = [m for m in metrics if not m.startswith("accuracy under")]
    models = list(values["accuracy"])
    lines = [
        "# Results of the lab",
        "",
        f"`python -m synclones.lab.experiment {' '.join(argv)}` (`make results`), {time.strftime('%Y-%m-%d')},",
        f"{len(folders)} trainings of each clone, {cost}.",
        "",
        "Percent on the lab's 537 real test digits: mean ± standard deviation over trainings. Which images are tested",
        "adds about ± 2.5 points of accuracy near 90 %, the same for all clones.",
        "",
        f"| clone | {' | '.join(metrics)} |",
        f"|---|{'---|' * len(metrics)}",
    ]
    for model in models:
        cells = [f"{fmean(values[m][model]):.1f} ± {_spread(values[m][model]):.1f}" for m in metrics]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    lines += ["", "## Differences", "", *_differences(values, metrics, models)]
    write_atomic(path, ("\n".join(lines) + "\n").encode())


def _spread(values: list[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _differences(values: Values, metrics: list[str], models: list[str]) -> list[str]:
    """First minus second over seeds; noise when twice the standard error of the mean difference covers it."""
    lines = [
        "First minus second, mean over trainings ± twice its standard error (a rough 95 % interval from so few seeds);",
        "what is smaller than that is inside the noise. Sampling of the test images comes on top.",
        "",
        f"| first − second | {' | '.join(metrics)} |",
        f"|---|{'---|' * len(metrics)}",
    ]
    for at, first in enumerate(models):
        for second in models[at + 1 :]:
            cells = []
            for metric in metrics:
                a, b = values[metric][first], values[metric][second]
                difference = fmean(a) - fmean(b)
                error = 2 * ((_spread(a) ** 2 + _spread(b) ** 2) / len(a)) ** 0.5
                shown = f"{difference:+.1f} ± {error:.1f}"
                cells.append(f"**{shown}**" if abs(difference) > error else f"{shown}, noise")
            lines.append(f"| {first} − {second} | {' | '.join(cells)} |")
    return lines
