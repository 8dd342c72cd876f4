"""Means and spreads over several trainings, and which differences are larger than chance: Student's t, and Holm.

In: one results folder per seed. Out: a Markdown file.
"""

import csv
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev

from scipy import stats

from synclones.base.escape import markdown_text
from synclones.base.files import write_atomic
from synclones.base.json_file import parse_json
from synclones.base.resume import typed

Values = dict[str, dict[str, list[float]]]
TITLES = {"accuracy": "accuracy", "ece": "ECE", "r_adv": "R_adv", "accuracy_fgsm": "accuracy under FGSM"}
LEVEL = 0.05
# What the README says of the lab rests on these differences in accuracy.
DRAWN, BOTH, REAL = "class-name", "class-name+real", "real"
STATEMENT = "Class names, real images and both:"
# Where the part begins that another experiment writes into the same file.
GRIDS = ["The papers' experiments in the same world, with what holds of each: [all grids](grids/overview.md).", ""]
MARK = "<!-- what follows is written by lab/objectives.py -->"


def read_values(folders: list[Path], column: str = "value") -> Values:
    """Return metric -> model -> one number of a column per seed, in percent; what is empty there is left out."""
    values: Values = {}
    for folder in folders:
        with (folder / "table.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                metric = f"{TITLES.get(row['metric'], row['metric'])}{_strength(row['settings'])}"
                if row.get(column):
                    values.setdefault(metric, {}).setdefault(row["model"], []).append(100 * float(row[column]))
    return values


def _strength(settings: str) -> str:
    epsilon = parse_json(settings).get("epsilon_255")
    return "" if epsilon is None else f" {epsilon:g}/255"


@dataclass(frozen=True)
class Difference:
    """How the means of two clones' trainings differ in one metric, in points: the first minus the second."""

    value: float
    half_width: float
    """Of the 95 % interval by Student's t with Welch's degrees of freedom (Welch 1947)."""
    p: float
    """Probability of a difference of this size or more between trainings that do not differ."""
    holds: bool = False
    """Whether it is significant at 5 % among all differences of the table (Holm 1979)."""

    def shown(self) -> str:
        """Return it for the table: bold where it holds, ``noise`` where its own interval holds 0."""
        text = f"{self.value:+.1f} ± {self.half_width:.1f}"
        return f"**{text}**" if self.holds else text if self.p < LEVEL else f"{text}, noise"


def difference(a: list[float], b: list[float]) -> Difference:
    """Compare the trainings of two clones, at least two each."""
    value, variances = fmean(a) - fmean(b), [stdev(each) ** 2 / len(each) for each in (a, b)]
    error = sum(variances) ** 0.5
    if not error:  # all trainings of each gave the same number
        return Difference(value, 0.0, float(value == 0))
    freedom = error**4 / sum(v**2 / (len(each) - 1) for v, each in zip(variances, (a, b), strict=True))
    p = 2 * float(stats.t.sf(abs(value) / error, freedom))
    return Difference(value, error * float(stats.t.isf(LEVEL / 2, freedom)), p)


Key = tuple[str, str, str]
"""First clone, second clone, metric."""


def differences(values: Values, metrics: list[str], models: list[str]) -> dict[Key, Difference]:
    """Return all differences between clones, with Holm's verdict over all of them."""
    single = {
        (first, second, metric): difference(values[metric][first], values[metric][second])
        for first, second in combinations(models, 2)
        for metric in metrics
    }
    holding: set[Key] = set()
    for rank, (key, item) in enumerate(sorted(single.items(), key=lambda pair: pair[1].p)):
        if item.p > LEVEL / (len(single) - rank):
            break
        holding.add(key)
    return {key: Difference(d.value, d.half_width, d.p, key in holding) for key, d in single.items()}


def write_table(path: Path, folders: list[Path], argv: list[str], cost: str) -> None:
    """Write the table of mean and standard deviation over the folders' seeds, and the differences between clones."""
    values, calibrated = read_values(folders), read_values(folders, "faultless")
    order = ("accuracy", "ECE", "R_adv", "accuracy under")
    place_of = {m: next((i for i, start in enumerate(order) if m.startswith(start)), len(order)) for m in values}
    metrics = sorted(values, key=lambda m: (place_of[m], len(m), m))
    metrics = [m for m in metrics if not m.startswith("accuracy under")]
    models = list(values["accuracy"])
    lines = [
        "# Results of the lab",
        "",
        f"`{typed(['demo', *argv])}` (`make results`), {time.strftime('%Y-%m-%d')},",
        f"{len(folders)} trainings of each clone, {cost}.",
        "",
        "Percent on the lab's 537 real test digits: mean ± standard deviation over trainings. Which images are tested",
        "adds about ± 2.5 points of accuracy near 90 %, the same for all clones. In brackets: what a perfectly",
        "calibrated model of the same confidences would show as ECE on as many images.",
        "",
        *(GRIDS if (path.parent / "grids" / "overview.md").exists() else []),
        f"| clone | {' | '.join(metrics)} |",
        f"|---|{'---|' * len(metrics)}",
    ]
    for model in models:
        cells = [_mean(values[m][model], calibrated.get(m, {}).get(model)) for m in metrics]
        lines.append(f"| {markdown_text(model)} | {' | '.join(cells)} |")
    lines += ["", "## Differences", "", *_differences(values, metrics, models, len(folders))]
    _, mark, rest = path.read_text().partition(MARK) if path.exists() else ("", "", "")
    write_atomic(path, ("\n".join(lines) + "\n" + (f"\n{mark}{rest}" if mark else "")).encode())


def write_part(path: Path, lines: list[str]) -> None:
    """Write lines in the place of what follows the mark."""
    before = path.read_text().partition(MARK)[0].rstrip()
    write_atomic(path, ("\n".join([before, "", MARK, "", *lines]) + "\n").encode())


def _mean(values: list[float], calibrated: list[float] | None) -> str:
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{fmean(values):.1f} ± {spread:.1f}" + (f" ({fmean(calibrated):.1f})" if calibrated else "")


def _differences(values: Values, metrics: list[str], models: list[str], trainings: int) -> list[str]:
    if trainings < 2:
        return ["One training of each clone says nothing about how much another would differ."]
    compared = differences(values, metrics, models)
    lines = [
        f"First minus second (`make results`), mean over {trainings} trainings ± half of a 95 % interval by",
        "Student's t (Welch). What",
        f"holds 0 is inside the noise. These are {len(compared)} differences: if no two clones differed, about",
        f"{LEVEL * len(compared):.1f} intervals would miss 0 by chance. Bold are those that hold with that counted",
        "(Holm, 5 % for all together). Sampling of the test images comes on top.",
        "",
        *statement(compared, trainings),
        f"| first − second | {' | '.join(metrics)} |",
        f"|---|{'---|' * len(metrics)}",
    ]
    for first, second in combinations(models, 2):
        cells = [compared[first, second, metric].shown() for metric in metrics]
        lines.append(f"| {markdown_text(first)} − {markdown_text(second)} | {' | '.join(cells)} |")
    return lines


def statement(compared: dict[Key, Difference], trainings: int) -> list[str]:
    """Return what the accuracies say about class names, real images and both: one line that the README repeats."""
    pairs = [pair for pair in ((DRAWN, BOTH), (DRAWN, REAL), (BOTH, REAL)) if (*pair, "accuracy") in compared]
    parts = [_verdict(first, second, compared[first, second, "accuracy"]) for first, second in pairs]
    return [f"{STATEMENT} over {trainings} trainings of each, {'; '.join(parts)}.", ""] if parts else []


def _verdict(first: str, second: str, item: Difference) -> str:
    numbers = f"{item.value:+.1f} ± {item.half_width:.1f} points of accuracy"
    if item.holds:
        return f"`{first}` and `{second}` differ ({numbers})"
    if item.p < LEVEL:
        return f"`{first}` and `{second}` may differ ({numbers}, not significant among all comparisons)"
    return f"`{first}` and `{second}` cannot be told apart ({numbers})"
