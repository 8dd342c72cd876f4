"""The table of a practice: every learner's accuracy, by what it was trained on, what was drawn for it and what it saw.

In: arms, results of `synclones evaluate` for each seed. Out: ``practice.csv``, a line for each learner, and
``practice.md``, means over seeds, with differences to what was drawn at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from synclones.ablate.columns import reference_of
from synclones.ablate.rounds import Arm, Clone
from synclones.base.errors import VerificationError
from synclones.base.files import write_atomic
from synclones.evaluate.stored.results import read_cells

AT_ONCE = "at-once"


@dataclass(frozen=True)
class Measured:
    """A learner's accuracy on the test set, 0 to 1."""

    policy: str
    seed: int
    clone: Clone
    accuracy: float


def write_table(out: Path, arms: Sequence[Arm], weights: Mapping[Path, str]) -> str:
    """Write both files and return the second's text.

    Args:
        weights: run -> sha256 of its weights, by which results are filed.

    Raises:
        VerificationError: results lack a learner.
    """
    lines = _measured(out, arms, weights)
    rows = ["policy,seed,round,images,drawn,seen,accuracy"]
    for line in lines:
        c = line.clone
        rows.append(f"{line.policy},{line.seed},{c.round},{c.images},{c.drawn},{c.samples},{line.accuracy!r}")
    write_atomic(out / "practice.csv", ("\n".join(rows) + "\n").encode())
    text = _markdown(lines)
    write_atomic(out / "practice.md", text.encode())
    return text


def _measured(out: Path, arms: Sequence[Arm], weights: Mapping[Path, str]) -> list[Measured]:
    accuracy: dict[tuple[int, str], float | None] = {}
    for seed in {one.seed for one in arms}:
        cells = read_cells(out / f"seed-{seed}" / "results")
        reference = reference_of(cells)  # of a suite with shifted sets there are several accuracies
        for cell in cells:
            if (cell.metric, cell.dataset_sha256, cell.protocol) == ("accuracy", reference, "corrected"):
                accuracy[seed, cell.weights_sha256] = cell.value
    lines = []
    for one in arms:
        for clone in one.clones:
            value = accuracy.get((one.seed, weights[out / clone.name]))
            if value is None:
                raise VerificationError(f"{out}/seed-{one.seed}/results: lacks {clone.name}; remove it, and run again")
            lines.append(Measured(one.policy, one.seed, clone, value))
    return lines


def _markdown(lines: Sequence[Measured]) -> str:
    """Return means over seeds; the differences of last rounds are paired by seed."""
    groups: dict[tuple[str, int], list[Measured]] = {}
    for line in lines:
        groups.setdefault((line.policy, line.clone.round), []).append(line)
    last = max(line.clone.round for line in lines)
    base = {line.seed: line.accuracy for line in groups.get((AT_ONCE, last), [])}
    rows = [
        "| policy | round | images | drawn | images seen | accuracy | minus at-once |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (policy, number), several in groups.items():
        c, values = several[0].clone, [100 * line.accuracy for line in several]
        spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
        apart = [100 * (line.accuracy - base[line.seed]) for line in several if line.seed in base]
        shown = _difference(apart) if number == last and policy != AT_ONCE and len(apart) == len(several) else ""
        amounts = f"{c.images:,} | {c.drawn:,} | {c.samples:,}"
        rows.append(f"| {policy} | {number} | {amounts} | {mean(values):.1f} %{spread} | {shown} |")
    seeds = len({line.seed for line in lines})
    return "\n".join([*rows, "", _note(seeds), ""])


def _note(seeds: int) -> str:
    if seeds == 1:
        return "One seed: nothing here says how much another training would differ."
    return (
        f"Means and standard deviations over {seeds} seeds. Differences are paired by seed, with 95 % intervals of "
        "Student's t; one whose interval holds 0 is inside the noise."
    )


def _difference(values: Sequence[float]) -> str:
    """Return a mean difference in points with its interval, where seeds say how sure it is."""
    if len(values) < 2:
        return f"{values[0]:+.1f}"
    from scipy import stats  # takes a second

    half = float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    low, high = mean(values) - half, mean(values) + half
    noise = " inside the noise" if low <= 0 <= high else ""
    return f"{mean(values):+.1f} [{low:+.1f}, {high:+.1f}]{noise}"
