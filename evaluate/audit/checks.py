"""What can be seen in logs alone: each check takes all logs and yields what it finds.

In: `Log`s. Out: `Finding`s. Accuracies are compared as fractions; a log in which none exceeds 1 holds fractions.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from statistics import fmean

from synclones.base.errors import one_line
from synclones.evaluate.audit.findings import Finding
from synclones.evaluate.audit.logs import Log, first_number, number
from synclones.evaluate.audit.running_mean import Verdict, judge

FAR_BELOW = 0.01
"""Points over 100 below a known accuracy that no resizing explains: with the right normalisation the official code
stays within 0.006 of timm's own numbers, with the wrong one it is 0.024 below."""
MAX_DIGITS = 9
"""Decimals of an accuracy beyond which floating point is all there is."""
NOISE = 0.004
"""By how much the random starts of one attack move an accuracy, at most."""
SAME_IMAGES = 0.0002
"""By how much clean accuracies of one model differ between the published logs, at most."""


def running_means(logs: list[Log]) -> Iterator[Finding]:
    """Find corrupted accuracies that are means of everything so far (D1)."""
    for log in logs:
        if log.kind != "corruptions":
            continue
        series = corrupted(log)
        verdict = None if series is None else series.verdict
        if series is None or verdict is None:
            text = "not in order of corruptions and severities; running means cannot be told"
            yield Finding("D1", "note", log.name, text)
        elif verdict.certainty == "open":
            text = "too short, or fits both readings: whether these are running means cannot be told"
            yield Finding("D1", "note", log.name, text)
        elif verdict.certainty != "no":
            yield Finding("D1", verdict.certainty, log.name, _told(series, verdict))


def _told(series: "Series", verdict: Verdict) -> str:
    values = (fmean(series.stored), fmean(verdict.recovered), verdict.error)
    before, after, error = (100 * value / series.top for value in values)
    return (
        f"mean accuracy {before:.2f} %, {after:.2f} % recovered (each set to {error:.4f} points, sets being equally "
        f"large); steps the wrong way: {verdict.faults[0]} as stored, {verdict.faults[1]} as recovered"
    )


@dataclass(frozen=True)
class Series:
    """The accuracies of a log of corruptions in the order of their evaluation."""

    groups: tuple[tuple[float, ...], ...]
    top: float
    digits: int

    @property
    def stored(self) -> list[float]:
        """All accuracies, one after the other."""
        return [value for group in self.groups for value in group]

    @property
    def verdict(self) -> Verdict:
        """Whether they are running means."""
        return judge(self.groups, self.top, self.digits)


def corrupted(log: Log) -> Series | None:
    """Return the accuracies of a log of corruptions; None where they are not in order, or no numbers."""
    values = [number(entry, "acc") for entry in log.entries]
    names = [str(entry["corruption"]) for entry in log.entries]
    if any(math.isnan(value) for value in values):
        return None
    groups, start = [], 0
    for _, members in groupby(names):
        end = start + len(list(members))
        severities = [number(entry, "severity") for entry in log.entries[start:end]]
        if any(map(math.isnan, severities)) or severities != sorted(set(severities)):
            return None
        groups.append(tuple(values[start:end]))
        start = end
    if len(groups) != len(set(names)):
        return None
    digits = max(len(repr(value).partition(".")[2]) for value in values)
    return Series(tuple(groups), _top(values), min(digits, MAX_DIGITS))


def _top(values: list[float]) -> float:
    return 100.0 if max(values) > 1 else 1.0


# ------------------------------------------------------------------ attacks, and accuracies of one model side by side


def weak_attacks(logs: list[Log]) -> Iterator[Finding]:
    """Find attacks whose step is larger than epsilon, or which do less than FGSM's single step (D3)."""
    # One log says it outright, where it states step and strength.
    robust: dict[tuple[str, str, str], tuple[float, str]] = {}
    for log in logs:
        if log.kind != "attack":
            continue
        for entry in log.entries:
            step, epsilon = first_number(entry, ("alpha", "step_size", "step")), first_number(entry, ("eps", "epsilon"))
            if step > epsilon:
                yield Finding("D3", "certain", log.name, f"step {step:.4g} is larger than epsilon {epsilon:.4g}")
            key = (log.model, f"{epsilon}", one_line(str(entry["attack"]))[:40].lower())
            robust[key] = (number(entry, "robust_acc"), log.name)
    # Two logs together show it: PGD's first step within the ball already does about as much as FGSM.
    for (model, strength, attack), (accuracy, name) in robust.items():
        single, other = robust.get((model, strength, "fgsm"), (math.nan, ""))
        if attack.startswith("pgd") and accuracy > single:
            text = (
                f"{model}: more is left under {attack.upper()} ({accuracy:g}) than under FGSM ({single:g}, {other}); "
                "many steps within the ball do at least as much as one, so the step is probably larger than epsilon"
            )
            certainty = "certain" if accuracy - single > NOISE * _top([accuracy, single]) else "likely"
            yield Finding("D3", certainty, name, text)


def clean_accuracies(logs: list[Log]) -> dict[str, list[tuple[float, str]]]:
    """Return model -> its accuracies on clean ImageNet as fractions, each with the log that states it."""
    stated: dict[str, list[tuple[float, str]]] = {}
    for log in logs:
        entry = log.entries[0]
        if log.kind == "attack":
            value = number(entry, "clean_acc")
            value /= _top([value]) if value == value else 1.0
        elif log.kind == "calibration" and log.text("dataset") == "imagenet":
            value = 1 - number(entry, "test_error")
        else:
            continue
        if not math.isnan(value):
            stated.setdefault(log.model, []).append((value, log.name))
    return stated


def low_accuracies(logs: list[Log]) -> Iterator[Finding]:
    """Find models whose clean accuracies differ, or are below what is known of them (D9)."""
    for model, stated in clean_accuracies(logs).items():
        low, high = min(stated), max(stated)
        if high[0] - low[0] > SAME_IMAGES + 1e-9:
            text = f"{model}: clean accuracy {100 * low[0]:.3f} %, {100 * high[0]:.3f} % in {high[1]}; other images?"
            yield Finding("clean", "likely", low[1], text)
        expected, source = _known().get(model, (math.nan, ""))
        if expected - high[0] > FAR_BELOW:
            text = (
                f"{model}: clean accuracy {100 * high[0]:.2f} %, {100 * expected:.2f} % by {source}; mean and "
                "deviation, or the weights, may be another model's"
            )
            yield Finding("D9", "likely", high[1], text)


def low_backgrounds(logs: list[Log]) -> Iterator[Finding]:
    """Find models that tell nine classes apart worse than a thousand, as without normalisation (D6)."""
    clean = clean_accuracies(logs)
    for log in logs:
        if log.kind != "backgrounds" or log.model not in clean:
            continue
        nine, (thousand, where) = number(log.entries[0], "original_acc"), max(clean[log.model])
        nine /= _top([nine]) if nine == nine else 1.0
        if nine < thousand:
            text = (
                f"{log.model}: {100 * nine:.2f} % of nine classes, {100 * thousand:.2f} % of a thousand ({where}); "
                "images may have gone in without normalisation"
            )
            yield Finding("D6", "likely", log.name, text)


@cache
def _known() -> dict[str, tuple[float, str]]:
    with open(Path(__file__).with_name("known.csv"), encoding="utf-8", newline="") as file:
        return {row["model"]: (float(row["accuracy"]) / 100, row["source"]) for row in csv.DictReader(file)}
