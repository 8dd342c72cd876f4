"""How far two clones are apart on the same images, training by training, and over trainings.

In: results of `synclones evaluate` with kept logits, pairs of runs. Out: ``what-if.md``.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from synclones.base.errors import VerificationError
from synclones.base.files import write_atomic
from synclones.base.manifest import find_parent, read_manifest
from synclones.evaluate.bounds.intervals import Interval, basic_interval, resampled_sums
from synclones.evaluate.stored.logits_file import read_logits
from synclones.evaluate.stored.results import Cell, read_cells

RESAMPLES = 2000
PAGE = "what-if.md"


def write_difference(out: Path, says: str, pairs: Sequence[tuple[Path, Path]]) -> str:
    """Write the page and return it.

    Args:
        out: folder of everything, with ``results``.
        says: what was changed.
        pairs: runs as they would be, and as they were.

    Raises:
        VerificationError: results lack a clone, or kept logits are damaged.
    """
    results = out / "results"
    cells = [cell for cell in read_cells(results) if cell.protocol == "corrected"]
    lines = [
        f"# What if: {says}",
        "",
        "| training | as it was | as it would be | difference in accuracy |",
        "|---|---:|---:|---|",
    ]
    differences = []
    for number, (changed, was) in enumerate(pairs):
        new, old = (_correct(results, cells, run) for run in (changed, was))
        apart = paired(new, old)
        differences.append(100 * (new.mean() - old.mean()))
        lines.append(f"| {number} | {100 * old.mean():.1f} % | {100 * new.mean():.1f} % | {_shown(apart)} |")
    return _write(
        out, [*lines, "", _over_trainings(differences), "", f"All other numbers: {results / 'report.html'}", ""]
    )


def paired(new: np.ndarray, old: np.ndarray) -> Interval | None:
    """Return the difference of two accuracies with its 95 % interval by a paired bootstrap over the images.

    Where all images say the same, as where one is right and the other wrong on each, the interval has no width.

    Args:
        new: float64[n], 1 where an answer is right; ``old`` alike, of the same images.

    Returns:
        None where both are right on the same images throughout, and resampling can say nothing.
    """
    terms = (new - old)[:, None]
    value = float(terms.mean())
    interval = basic_interval(value, resampled_sums(terms, RESAMPLES, 0)[:, 0] / len(terms))
    return interval if terms.any() else None


def _shown(apart: Interval | None) -> str:
    if apart is None:
        return "none on these images"
    noise = ", inside the noise of the test images" if apart.inside_noise else ""
    return f"{100 * apart.value:+.1f} [{100 * apart.low:+.1f}, {100 * apart.high:+.1f}] points{noise}"


def _over_trainings(differences: Sequence[float]) -> str:
    """Say what holds for another training: intervals over images do not cover that."""
    if len(differences) == 1:
        return (
            "Intervals are over test images. One training of each says nothing about the next: another seed alone may "
            "move accuracy as far. `--seeds 3` and more trains both again."
        )
    from scipy import stats  # takes a second

    spread = stdev(differences)
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * spread / len(differences) ** 0.5
    low, high = mean(differences) - half, mean(differences) + half
    noise = "; 0 is inside, so it may be none" if low <= 0 <= high else ""
    return (
        f"Over {len(differences)} trainings of each: {mean(differences):+.1f} points [{low:+.1f}, {high:+.1f}] "
        f"(Student's t over trainings paired by seed; standard deviation {spread:.1f}){noise}."
    )


def _correct(results: Path, cells: Sequence[Cell], run: Path) -> np.ndarray:
    """Return which images of the test set a clone answers rightly, float64[n] of 0 and 1."""
    from synclones.evaluate.answers.reading import columns_of  # these load torch
    from synclones.evaluate.test_set import TestSet

    record = read_manifest(run)
    own = [cell for cell in cells if cell.weights_sha256 == record["content_hash"] and not cell.settings]
    cell = next((cell for cell in own if cell.metric == "accuracy"), None)
    stated = [parent for parent in read_manifest(results)["parents"] if parent["name"] == "test data"]
    folder = find_parent(results, stated[0]["path"]) if stated else None
    if cell is None or folder is None:
        raise VerificationError(f"{results}: lacks {run}, or its test data are gone; remove it, and run again")
    test_set, classes = TestSet(folder), [str(class_id) for class_id in record["classes"]]
    kept = read_logits(results, cell.logits[0], test_set.labels.astype(np.int64), len(classes), len(classes))
    columns = columns_of(test_set, classes)
    logits = kept.logits if columns is None else kept.logits[:, columns]
    right: np.ndarray = (logits.argmax(axis=1) == kept.labels).astype(np.float64)
    return right


def _write(out: Path, lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    write_atomic(out / PAGE, text.encode())
    return text
