"""How often the bootstrap's 95 % interval of a calibration error holds the true error, on simulated test sets.

Prints a line per true error: the coverage of the basic interval that `evaluate` writes, that of plain quantiles, and
the mean measured error beside the one that a calibrated model would show.

    python benchmarks/coverage.py [--images 537] [--sets 200] [--resamples 2000] [--bins 20]
"""

import argparse
from functools import partial

import numpy as np

from synclones.evaluate.axes.calibration import calibration_gaps, ece_if_calibrated, ece_of_sums
from synclones.evaluate.intervals import basic_interval, resampled_sums

OVERCONFIDENCE = (0.0, 0.02, 0.05, 0.1, 0.2)


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


def main() -> None:
    """Print the coverage for every true error."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("images", 537), ("sets", 200), ("resamples", 2000), ("bins", 20)):
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


if __name__ == "__main__":
    main()
