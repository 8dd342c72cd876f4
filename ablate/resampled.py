"""A column's value on resamples of the test images, from the logits that an evaluation keeps: what pairs two cells.

In: folders of results, the `Number`s that were read from them. Out: float64[resamples] per training; the same resamples
of the same images for all of them. Every value is first computed anew from the logits, and where that is not the
number of the results, there are none: then differences rest on the results' own intervals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from synclones.ablate.columns import Number
from synclones.base.errors import SynclonesError
from synclones.evaluate.answers.predictions import Predictions
from synclones.evaluate.axes.adversarial import relative_robustness
from synclones.evaluate.axes.calibration import calibration_gaps, ece_of_sums
from synclones.evaluate.bounds.intervals import resampled_sums
from synclones.evaluate.methods.separation import SCORES, Separation
from synclones.evaluate.stored.logits_file import read_kept
from synclones.evaluate.stored.results import Cell

RESAMPLES = 1000
EXACT = 1e-6
_FPR95 = 1
"""Which of the three numbers of a separation it is."""


@dataclass(frozen=True, eq=False)
class _Sums:
    """A number as a statistic of sums over images: terms float64[n, k], sums float64[..., k] -> float64[...]."""

    terms: np.ndarray
    statistic: Callable[[np.ndarray], np.ndarray]


def resample_column(numbers: Sequence[tuple[Path, Number]], resamples: int = RESAMPLES) -> list[np.ndarray | None]:
    """Return the value of each training on the same resamples, float64[resamples], or None where it is not known.

    Args:
        numbers: folder of results and number of each training, of one column.
    """
    known: list[np.ndarray | None] = [None] * len(numbers)
    alike: dict[int, list[tuple[int, _Sums]]] = {}
    for position, (folder, number) in enumerate(numbers):
        try:
            if len(number.cells) == 1 and number.cells[0].metric in _SUMS:
                own = _SUMS[number.cells[0].metric](folder, number.cells[0])
                if _agrees(own.statistic(own.terms.sum(0)), number.value):
                    alike.setdefault(len(own.terms), []).append((position, own))
            elif all(cell.metric in _WHOLE for cell in number.cells):
                known[position] = _mean_of(folder, number, resamples)
        except (SynclonesError, OSError):  # no logits, or damaged ones: the number stands, resamples of it do not
            continue
    # Drawing costs more than summing, so all trainings share one drawing of the same number of images.
    for group in alike.values():
        joined = np.concatenate([own.terms for _, own in group], 1)
        sums = resampled_sums(joined, resamples, 0)
        ends = np.cumsum([own.terms.shape[1] for _, own in group])[:-1]
        for (position, own), part in zip(group, np.split(sums, ends, axis=1), strict=True):
            known[position] = own.statistic(part)
    return known


def _agrees(computed: float | np.ndarray, stated: float) -> bool:
    return bool(abs(float(computed) - stated) < EXACT)


def _mean_of(folder: Path, number: Number, resamples: int) -> np.ndarray | None:
    """Return the mean of several numbers on each resample, or of the one there is."""
    values, drawn = [], []
    for cell in number.cells:
        value, resample = _WHOLE[cell.metric](folder, cell)
        values.append(value)
        drawn.append(resample(resamples, 0))
    return np.mean(drawn, axis=0) if _agrees(float(np.mean(values)), number.value) else None


# ------------------------------------------------------------------ numbers that are statistics of sums


def right_answers(folder: Path, cell: Cell) -> Predictions:
    """Return the predictions that a number on the clean test set rests on.

    Raises:
        SynclonesError: there are none any more, or they are damaged.
    """
    return read_kept(folder, cell.logits[0])


def gives(kept: Predictions, stated: float | None) -> bool:
    """Return whether the largest logit gives the accuracy that is stated: not where classes have members."""
    return stated is not None and _agrees(kept.correct.mean(), stated)


def _accuracy(folder: Path, cell: Cell) -> _Sums:
    correct = right_answers(folder, cell).correct
    return _Sums(correct[:, None].astype(np.float64), partial(_share, n=len(correct)))


def _share(sums: np.ndarray, n: int) -> np.ndarray:
    share: np.ndarray = sums[..., 0] / n
    return share


def _relative(folder: Path, cell: Cell) -> _Sums:
    clean, attacked = (read_kept(folder, key).correct for key in cell.logits)
    return _Sums(np.stack([clean, attacked], 1).astype(np.float64), relative_robustness)


def _ece(folder: Path, cell: Cell) -> _Sums:
    kept = right_answers(folder, cell)
    gaps = calibration_gaps(kept.confidence, kept.correct, int(cell.settings["bins"]))
    return _Sums(gaps, partial(ece_of_sums, n=len(kept)))


_SUMS: dict[str, Callable[[Path, Cell], _Sums]] = {
    "accuracy": _accuracy,
    "r_adv": _relative,
    "r_adv_pgd": _relative,
    "ece": _ece,
}


# ------------------------------------------------------------------ numbers of several sets


Whole = tuple[float, Callable[[int, int], np.ndarray]]


def _separation(which: int, folder: Path, cell: Cell) -> Whole:
    score = SCORES[str(cell.settings["score"])]
    inside, others = (score(read_kept(folder, key)) for key in cell.logits)
    separation = Separation(inside, others)
    return separation.measured()[which], partial(separation.resampled_rate, which)


def _corrupted(folder: Path, cell: Cell) -> Whole:
    """Return R_cc where all corruptions have the same number of severities: a mean over the parts, over the clean."""
    clean, *parts = (read_kept(folder, key) for key in cell.logits)
    right = [part.correct for part in parts]
    if cell.value is None or not _agrees(_r_cc(clean, right), cell.value):
        right = _right_by_answers(parts)

    def resample(resamples: int, seed: int) -> np.ndarray:
        drawn = np.empty((resamples, len(parts) + 1))
        labels, terms = [clean.labels, *(part.labels for part in parts)], [clean.correct, *right]
        for number, columns in enumerate(_together(labels)):
            alike = np.stack([terms[column] for column in columns], 1).astype(np.float64)
            drawn[:, columns] = resampled_sums(alike, resamples, seed + number) / len(alike)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: np.ndarray = np.where(drawn[:, 0] > 0, drawn[:, 1:].mean(1) / drawn[:, 0], np.nan)
        return ratio

    return _r_cc(clean, right), resample


def _r_cc(clean: Predictions, right: Sequence[np.ndarray]) -> float:
    share = float(clean.correct.mean())
    return float(np.mean([own.mean() for own in right])) / share if share else float("nan")


def _right_by_answers(parts: Sequence[Predictions]) -> list[np.ndarray]:
    """Return which are right where an answer and its confidence are kept in place of logits, bool[n] each."""
    return [part.logits[:, 0] == part.labels for part in parts]


def _together(labels: Sequence[np.ndarray]) -> list[list[int]]:
    """Return the numbers of sets with the same labels in order, which are taken for the same images."""
    groups: dict[bytes, list[int]] = {}
    for number, own in enumerate(labels):
        groups.setdefault(own.tobytes(), []).append(number)
    return list(groups.values())


_WHOLE: dict[str, Callable[[Path, Cell], Whole]] = {
    "fpr95_id_positive": partial(_separation, _FPR95),
    "auroc": partial(_separation, 0),
    "r_cc": _corrupted,
}
