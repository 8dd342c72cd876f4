"""How often 95 % intervals hold the truth on simulated test sets: those of calibration errors, and those of `--until`.

Prints a line per true calibration error: the coverage of the basic interval that `evaluate` writes, that of plain
quantiles, and the mean measured error beside the one that a calibrated model would show. Then a line per accuracy on a
set of 50,000 images: in how many sequences the bounds held at every look, in how many Wilson's interval did that is
right for one look, and how many images a half width of one point took, beside what Wilson's takes at a fixed number.

    python benchmarks/coverage.py [--images 537] [--sets 200] [--resamples 2000] [--bins 20] [--sequences 200]
"""

import argparse
from functools import partial

import numpy as np

from synclones.evaluate.axes.calibration import calibration_gaps, ece_if_calibrated, ece_of_sums
from synclones.evaluate.bounds.intervals import Z95, basic_interval, resampled_sums, wilson
from synclones.evaluate.bounds.sequential import Bounds, difference_bounds, look_schedule, share_bounds

OVERCONFIDENCE = (0.0, 0.02, 0.05, 0.1, 0.2)
ACCURACIES = (0.02, 0.2, 0.5, 0.8, 0.95, 0.98)
# Shares of images that only the first model, and only the second one answers rightly.
DISAGREEMENTS = ((0.01, 0.01), (0.06, 0.04), (0.1, 0.1), (0.2, 0.1))
SET_IMAGES, HALF_WIDTH = 50_000, 0.01


def simulate(images: int, gap: float, bins: int, resamples: int, seed: int) -> tuple[bool, bool, float, float]:
    """Return whether (basic interval, quantiles) hold the true error, the measured error, and the calibrated one.

    Confidences are sharp, as a trained classifier's (Beta(8, 1), and at least 0.2), and each is ``gap`` above the
    probability of being right, so that the true error is ``gap`` in every bin.
    """
    rng = np.random.default_rng([seed, int(1000 * gap)])
    confidences = np.clip(rng.beta(8, 1, images), 0.2, 1 - 1e-9)
    correct = rng.random(images) < confidences - gap
    terms = calibration_gaps(confidences, correct, bins)
    error = partial(ece_of_sums, n=images)
    resampled, measured = error(resampled_sums(terms, resamples, seed)), float(error(terms.sum(0)))
    interval = basic_interval(measured, resampled, (0.0, 1.0))
    assert interval is not None
    low, high = np.quantile(resampled, (0.025, 0.975))
    calibrated = ece_if_calibrated(confidences, bins, draws=200)
    return interval.low <= gap <= interval.high, bool(low <= gap <= high), measured, calibrated


def print_sequences(sequences: int) -> None:
    """Print what the bounds of ``sequences`` orders of one set hold and need, per accuracy and per disagreement."""
    print(f"\n{sequences} orders of {SET_IMAGES} images, a look after every 256, asked for {HALF_WIDTH:.0%}")
    for accuracy in ACCURACIES:
        values = np.arange(SET_IMAGES) < round(accuracy * SET_IMAGES)
        orders = [np.random.default_rng(seed).permutation(values) for seed in range(sequences)]
        held, wide = _held([share_bounds(order, SET_IMAGES, HALF_WIDTH) for order in orders], values.mean())
        wilsons = np.mean([_wilson_holds(order, values.mean()) for order in orders])
        fixed = Z95**2 * accuracy * (1 - accuracy) / HALF_WIDTH**2
        print(
            f"accuracy {accuracy:3.0%}: held at every look {held:.1%}, Wilson's {wilsons:4.0%}; {_needed(wide, fixed)}"
        )
    for first, second in DISAGREEMENTS:
        values = np.repeat([1.0, -1.0, 0.0], (np.array([first, second, 1 - first - second]) * SET_IMAGES).astype(int))
        orders = [np.random.default_rng(seed).permutation(values) for seed in range(sequences)]
        held, wide = _held([difference_bounds(order, SET_IMAGES, HALF_WIDTH) for order in orders], values.mean())
        fixed = Z95**2 * values.var() / HALF_WIDTH**2
        print(f"difference {first:.0%} - {second:.0%}: held at every look {held:.1%}; {_needed(wide, fixed)}")


def _held(bounds: list[Bounds], truth: float) -> tuple[float, float]:
    """Return in which share of sequences all bounds hold the truth, and the mean of how many images they needed."""
    held = [bool(((item.low <= truth + 1e-9) & (item.high >= truth - 1e-9)).all()) for item in bounds]
    return float(np.mean(held)), float(np.mean([item.narrow(HALF_WIDTH) for item in bounds]))


def _wilson_holds(correct: np.ndarray, truth: float) -> bool:
    seen = look_schedule(len(correct))
    intervals = [wilson(int(k), int(n)) for k, n in zip(np.cumsum(correct)[seen - 1], seen, strict=True)]
    return all(interval.low <= truth <= interval.high for interval in intervals)


def _needed(needed: float, fixed: float) -> str:
    return f"narrow after {needed:6,.0f} images, at a fixed number {fixed:5,.0f} (ratio {needed / fixed:.2f})"


def main() -> None:
    """Print the coverage for every true error, accuracy and difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("images", 537), ("sets", 200), ("resamples", 2000), ("bins", 20), ("sequences", 200)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    print(f"{asked.sets} sets of {asked.images} images, {asked.bins} bins, {asked.resamples} resamples")
    for gap in OVERCONFIDENCE:
        results = np.array(
            [simulate(asked.images, gap, asked.bins, asked.resamples, seed) for seed in range(asked.sets)], dtype=float
        )
        basic, quantiles, measured, calibrated = results.mean(0)
        print(
            f"true ECE {gap:4.0%}: held by the basic interval {basic:4.0%}, by plain quantiles {quantiles:4.0%}; "
            f"measured {measured:5.1%}, calibrated {calibrated:5.1%} on average"
        )
    print_sequences(asked.sequences)


if __name__ == "__main__":
    main()
