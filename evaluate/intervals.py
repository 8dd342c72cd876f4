"""How sure a number is: 95 % intervals over the choice of test images, and differences between models on the same ones.

In: counts, or per-image terms. Out: `Interval`s. A training repeated with another seed varies too; that is not in here.
"""

from collections.abc import Callable
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
        """For a difference: whether 0 is in the interval."""
        return self.low <= 0 <= self.high


def wilson(successes: int, n: int) -> Interval:
    """Wilson's score interval of a share (Wilson 1927). ``n`` > 0."""
    share = successes / n
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * np.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Interval(share, min(float(low), share), max(float(high), share))


def resampled_sums(terms: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Column sums float64[resamples, k] of ``terms`` [n, k] when the n images are drawn again with replacement.

    The same seed and n draw the same images, so that models are compared on the same resamples. Exact to 1e-9 n.
    """
    n, rng = len(terms), np.random.default_rng([seed, len(terms)])
    # Multiples of 2^-30 add up without rounding, so that no sum depends on the order that threads add in.
    exact = np.round(terms * 2.0**30) / 2.0**30
    chunk = max(1, CHUNK_NUMBERS // n)
    sums = []
    for start in range(0, resamples, chunk):
        drawn = rng.integers(0, n, (min(chunk, resamples - start), n))
        counts = np.stack([np.bincount(row, minlength=n) for row in drawn])
        sums.append(counts.astype(np.float64) @ exact)
    return np.concatenate(sums)


def bootstrap(
    terms: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    resamples: int,
    seed: int,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Interval | None:
    """Basic bootstrap interval of ``statistic``, a function of sums [..., k] of per-image ``terms`` [n, k].

    Basic (2 x value - quantiles), because a resampled calibration error is biased upwards, by as much as the measured
    one is: quantiles alone could leave the value out. None where the statistic is undefined. Source: Davison and
    Hinkley 1997, "Bootstrap Methods and their Application", section 5.2. Of a calibration error the interval is
    approximate: of 200 simulated sets of 537 images it held the true error in 86 to 94 % where that was 0.02 to 0.2
    (plain quantiles in 4 to 96 %), and in 60 % where it was 0, which no measured error can lie below.
    """
    return basic_interval(float(statistic(terms.sum(0))), statistic(resampled_sums(terms, resamples, seed)), bounds)


def basic_interval(value: float, again: np.ndarray, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Interval | None:
    """The interval of `bootstrap` from a value and the statistic of each resample, float64[resamples]."""
    again = again[np.isfinite(again)]
    if not np.isfinite(value) or not len(again):
        return None
    low, high = 2 * value - np.quantile(again, (0.975, 0.025))
    return Interval(value, *(float(np.clip(bound, *bounds)) for bound in (min(low, value), max(high, value))))
