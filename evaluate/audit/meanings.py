"""Which score, which side and which unit the numbers of a log are of, and bins of calibration counted again.

In: `Log`s. Out: `Finding`s.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from synclones.evaluate.audit.findings import Finding
from synclones.evaluate.audit.logs import Log, first_number, number

ROUNDED = 0.05
"""How far a quotient of two numbers may be from a power of ten, in decades: one of them has two digits."""
SMALL = 0.01
"""Below it two digits say too little of a quotient."""
EQUAL = 1e-5
"""Difference of two calibration errors that single precision explains (of the published logs 3.5e-8 at most)."""


def scores(logs: list[Log]) -> Iterator[Finding]:
    """Find which score and which side an out-of-distribution log is of (D4), and numbers that exclude each other."""
    for log in logs:
        if log.kind != "out-of-distribution":
            continue
        entry = log.entries[0]
        auroc, fpr, aupr = (number(entry, key) for key in ("auroc", "fpr", "aupr"))
        if score := log.text("score"):
            if score.lower() not in ("msp", "max_softmax", "softmax"):
                yield Finding("D4", "note", log.name, f"the score is {score}, not the largest probability")
        if auroc > 0.5 and aupr < auroc:
            text = f"AUPR {aupr:.3f} is below AUROC {auroc:.3f}: out-of-distribution images are probably the positives"
            yield Finding("D4", "likely", log.name, f"{text}, and FPR@95 is the share of in-distribution ones")
        # A curve through (FPR, 0.95) has at least the area to the right of that point below 0.95, and at most all but
        # the corner above it to the left.
        if not (0.95 * (1 - fpr) - 0.01 <= auroc <= 1 - 0.05 * fpr + 0.01) and not math.isnan(auroc + fpr):
            yield Finding("unit", "certain", log.name, f"AUROC {auroc:g} and FPR@95 {fpr:g} exclude each other")


def units(logs: list[Log]) -> Iterator[Finding]:
    """Find numbers in a unit that they cannot have, and stated quotients that are off by a power of ten (D7)."""
    fractions = {
        "backgrounds": ("original_acc", "mixed_same_acc", "mixed_rand_acc"),
        "out-of-distribution": ("auroc", "fpr"),
        "calibration": ("ece", "test_error"),
        "shape bias": ("shape_bias",),
    }
    for log in logs:
        for key in fractions.get(log.kind, ()):
            value = number(log.entries[0], key)
            if not 0 <= value <= 1:
                text = f"{key} is {value:g}, expected a fraction of 1" if value == value else f"{key} is no number"
                yield Finding("unit", "certain", log.name, text)
        if log.kind in ("attack", "corruptions"):
            keys = ("clean_acc", "robust_acc") if log.kind == "attack" else ("acc",)
            values = [number(entry, key) for entry in log.entries for key in keys]
            if not all(0 <= value <= 100 for value in values):
                yield Finding("unit", "certain", log.name, "an accuracy is no number of 0 to 100")
        yield from _quotients(log)


# Stated under one of these names, and what it follows from.
_DERIVED: tuple[tuple[tuple[str, ...], str, Callable[[dict[str, object]], float]], ...] = (
    (("bg_gap", "gap"), "mixed_same_acc", lambda e: number(e, "mixed_same_acc") - number(e, "mixed_rand_acc")),
    (("r_adv",), "robust_acc", lambda e: number(e, "robust_acc") / (number(e, "clean_acc") or math.nan)),
)


def _quotients(log: Log) -> Iterator[Finding]:
    for entry in log.entries:
        for names, needed, compute in _DERIVED:
            stated, right = first_number(entry, names), compute(entry) if needed in entry else math.nan
            if math.isnan(stated + right) or abs(right) < SMALL:
                continue
            power = math.log10(stated / right) if stated / right > 0 else math.nan
            near = round(power) if math.isfinite(power) else 0
            if abs(power - near) <= ROUNDED and near in (-2, 0, 2):
                continue
            text = f"{names[0]} is {stated:g}, {right:g} by the numbers beside it"
            if abs(power - near) <= ROUNDED:
                yield Finding("D7", "certain", log.name, f"{text}: 10^{near} times as much")
            else:
                yield Finding("unit", "likely", log.name, text)


# ------------------------------------------------------------------ bins of calibration


def bins(logs: list[Log]) -> Iterator[Finding]:
    """Count stored bins again: their own means, the calibration error, and the error of the log that they belong to."""
    calibration = {log.name: log.entries[0] for log in logs if log.kind == "calibration"}
    for log in logs:
        if log.kind != "bins":
            continue
        # What the bins say by themselves, then what the log beside them says of the same answers.
        yield from _uneven(log)
        error, wrong = calibration_error(log)
        path = PurePosixPath(log.name)
        beside = str(path.with_name(path.name.removeprefix("rel_plot_")))
        entry = calibration.get(beside)
        if entry is None or beside == log.name:
            text = f"ECE is {error:.4f} of {len(log.entries)} bins; no log beside it states one"
            yield Finding("bins", "note", log.name, text)
            continue
        stated, stated_wrong = number(entry, "ece"), number(entry, "test_error")
        if not abs(stated - error) <= EQUAL:
            text = f"ECE of the bins is {error:.5f}, {beside} states {stated:.5f}"
            yield Finding("bins", "certain", log.name, text)
        if not abs(stated_wrong - wrong) <= EQUAL:
            text = f"test error of the bins is {wrong:.5f}, {beside} states {stated_wrong:.5f}"
            yield Finding("bins", "certain", log.name, text)


def calibration_error(log: Log) -> tuple[float, float]:
    """Return the expected calibration error and the share of wrong answers of stored bins, NaN of no images."""
    rows = [tuple(number(entry, key) for key in ("count", "bin_acc", "bin_conf")) for entry in log.entries]
    parts = [row for row in rows if row[0]]
    n = sum(count for count, _, _ in parts)
    if not n > 0:
        return math.nan, math.nan
    error = sum(count * abs(accuracy - confidence) for count, accuracy, confidence in parts) / n
    return error, 1 - sum(count * accuracy for count, accuracy, _ in parts) / n


def _uneven(log: Log) -> Iterator[Finding]:
    """Find bins whose mean confidence lies outside of them, (lo, hi] of equal width."""
    total = len(log.entries)
    for index, entry in enumerate(log.entries):
        count, confidence = number(entry, "count"), number(entry, "bin_conf")
        if math.isnan(count) or count < 0 or count and not 0 <= number(entry, "bin_acc") <= 1:
            yield Finding("bins", "certain", log.name, f"bin {index} has no count, or no accuracy of 0 to 1")
        elif count and not index / total - EQUAL <= confidence <= (index + 1) / total + EQUAL:
            text = f"bin {index} of {total} has mean confidence {confidence:.4f}, which belongs into another"
            yield Finding("bins", "certain", log.name, text)
