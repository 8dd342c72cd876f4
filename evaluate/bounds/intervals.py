"""How sure a number is: 95 % intervals over the choice of test images.

In: counts, or per-image terms. Out: `Interval`s. They do not cover that a training with another seed varies as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054
CHUNK_NUMBERS = 20_000_000


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def inside_noise(self) -> bool:
        """Whether 0 is in the interval: for a difference, that the images cannot tell the two apart."""
        return self.low <= 0 <= self.high


def wilson(successes: int, n: int) -> Interval:
    """Return Wilson's score interval of a share (Wilson 1927). ``n`` > 0."""
    share = successes / n
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * np.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Interval(share, min(float(low), share), max(float(high), share))


def resampled_counts(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each of n images is drawn again with replacement, float64[chunk, n], ``resamples`` in all.

    The same seed and n draw the same images.
    """
    rng, chunk = np.random.default_rng([seed, n]), max(1, CHUNK_NUMBERS // n)
    # In chunks, because the counts of all resamples at once would be as large as the images times the resamples.
    for start in range(0, resamples, chunk):
        chosen = rng.integers(0, n, (min(chunk, resamples - start), n))
        yield np.stack([np.bincount(row, minlength=n) for row in chosen]).astype(np.float64)


def resampled_sums(terms: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return column sums float64[resamples, k] of ``terms`` [n, k], the n images being drawn again with replacement.

    The same seed and n draw the same images, so that models are compared on the same resamples. Exact to 1e-9 n.
    """
    # Multiples of 2^-30 add up without rounding, so that no sum depends on the order that threads add in.
    exact = np.round(terms * 2.0**30) / 2.0**30
    return np.concatenate([counts @ exact for counts in resampled_counts(len(terms), resamples, seed)])


def basic_interval(
    value: float, resampled: np.ndarray, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> Interval | None:
    """Return the basic bootstrap interval of a value, from its statistic on each resample float64[resamples].

    Basic (2 x value - quantiles), because a resampled calibration error is biased upwards, by as much as the measured
    one is: quantiles alone could leave the value out. None where the statistic is undefined. Source: Davison and
    Hinkley 1997, "Bootstrap Methods and their Application", section 5.2. Of a calibration error the interval is
    approximate: of 200 simulated sets of 537 images with sharp confidences it held the true error in 90 to 94 % where
    that was 0.02 to 0.2 (plain quantiles in 2 to 93 %), and in 54 % where it was 0, which no measured error can lie
    below (`python benchmarks/coverage.py` prints these).
    """
    resampled = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(resampled):
        return None
    low, high = 2 * value - np.quantile(resampled, (0.975, 0.025))
    return Interval(value, *(float(np.clip(bound, *bounds)) for bound in (min(low, value), max(high, value))))
