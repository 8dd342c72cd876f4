"""Spread over seeds, differences of two arms of a grid with intervals, and what they would need to be sure.

In: a number per training, and the same on resamples of the test images. Out: `Spread`s and `Difference`s. An arm is one
combination of the axes' values; its trainings differ in the seed alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synclones.evaluate.bounds.family import ALPHA, Verdict

POWER = 0.8
MOST_SEEDS = 1000


def t_quantile(p: float, df: float) -> float:
    """Return the p-quantile of Student's t with df > 0 degrees of freedom; of the normal one where df is infinite."""
    from scipy.special import ndtri, stdtrit

    return float(stdtrit(df, p) if np.isfinite(df) else ndtri(p))


@dataclass(frozen=True)
class Spread:
    """A mean over trainings, and where that of infinitely many would plausibly lie, on the same test images.

    Attributes:
        sd: standard deviation over trainings; None of one.
        low, high: 95 % t interval of the mean; None of one training.
        seeds: how many trainings.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    seeds: int

    @property
    def half(self) -> float | None:
        """Half the width of the interval; None of one training."""
        return None if self.high is None else self.high - self.mean


def spread_of(values: Sequence[float]) -> Spread:
    """Return mean, standard deviation and t interval, mean +- t(0.975, S-1) sd / sqrt(S), of S >= 1 numbers."""
    own = np.asarray(values, dtype=np.float64)
    mean = float(own.mean())
    if len(own) < 2:
        return Spread(mean, None, None, None, len(own))
    sd = float(own.std(ddof=1))
    half = t_quantile(1 - ALPHA / 2, len(own) - 1) * sd / np.sqrt(len(own))
    return Spread(mean, sd, mean - half, mean + half, len(own))


# ------------------------------------------------------------------ differences


@dataclass(frozen=True, eq=False)
class Measured:
    """One column of the trainings of one arm.

    Attributes:
        by_seed: seed -> value.
        resampled: seed -> the value on each resample of the test images, float64[resamples]; empty where unknown.
        half_widths: seed -> half the 95 % interval over test images, where one is known.
        images: what identifies the test images; resamples of two arms are paired where it is the same.
    """

    by_seed: dict[int, float]
    resampled: dict[int, np.ndarray]
    half_widths: dict[int, float]
    images: str


@dataclass(frozen=True)
class Difference:
    """The first arm minus the second, with a 95 % interval over trainings and test images together.

    Attributes:
        seeds: how many trainings of each arm; paired by their seed.
        sd_seeds: standard deviation over seeds of the paired difference; None of one seed.
        se_images: standard error over test images.
        paired: whether the test images are the same and resampled together.
        p: two-sided; None where nothing varies, so that nothing can be told.
    """

    value: float
    low: float
    high: float
    p: float | None
    seeds: int
    sd_seeds: float | None
    se_images: float
    paired: bool

    @property
    def inside_noise(self) -> bool:
        """Whether the interval holds 0."""
        return self.low <= 0 <= self.high


def difference(a: Measured, b: Measured) -> Difference | str:
    """Return how two arms differ, or in words why it is not known.

    The seeds are the outer level: sd_seeds is the standard deviation of the S differences between trainings of one
    seed, se_images that of the mean difference over resamples of the test images, the same for both arms. The interval
    is value +- sqrt((t(0.975, S-1) sd_seeds / sqrt S)^2 + (1.96 se_images)^2): the half widths of both, as if each were
    alone, added as squares (Zou and Donner 2008). Images and seeds are crossed, so that their interaction counts
    twice, and the interval is a little wide (Owen 2007). ``p`` is that at which the interval would just reach 0.
    """
    seeds = sorted(set(a.by_seed) & set(b.by_seed))
    if not seeds:
        return "no seed that both were trained with"
    differences = np.array([a.by_seed[seed] - b.by_seed[seed] for seed in seeds])
    se_images, paired = _over_images(a, b, seeds)
    if se_images is None:
        return "no interval over the test images is known"
    value, count = float(differences.mean()), len(seeds)
    sd = float(differences.std(ddof=1)) if count > 1 else None
    if not sd and not se_images:
        return Difference(value, -np.inf, np.inf, None, count, sd, se_images, paired)
    half = half_width(1 - ALPHA / 2, sd, count, se_images)
    p = _p_value(abs(value), sd, count, se_images)
    return Difference(value, value - half, value + half, p, count, sd, se_images, paired)


def _over_images(a: Measured, b: Measured, seeds: list[int]) -> tuple[float | None, bool]:
    """Return the standard error over test images of the mean difference, and whether the images were paired.

    Where resamples are not known, that of each arm is read from its interval, as if the images were different ones,
    which is too much rather than too little.
    """
    if a.images == b.images and all(seed in side.resampled for side in (a, b) for seed in seeds):
        drawn = np.mean([a.resampled[seed] - b.resampled[seed] for seed in seeds], axis=0)
        drawn = drawn[np.isfinite(drawn)]
        if len(drawn) > 1:
            return float(drawn.std(ddof=1)), True
    halves = [side.half_widths[seed] for side in (a, b) for seed in seeds if seed in side.half_widths]
    if len(halves) < 2 * len(seeds):
        return None, False
    # Trainings of one arm see the same images: their mean is no surer of them than each is.
    z = t_quantile(1 - ALPHA / 2, np.inf)
    return float(np.sqrt(2 * np.mean(np.square(halves))) / z), False


def half_width(quantile: float, sd: float | None, seeds: int, se_images: float) -> float:
    """Return how far from its estimate a difference may lie at a quantile in 0.5..1, over seeds and images together."""
    of_seeds = t_quantile(quantile, seeds - 1) * sd / np.sqrt(seeds) if sd else 0.0
    return float(np.hypot(of_seeds, t_quantile(quantile, np.inf) * se_images))


def _p_value(value: float, sd: float | None, seeds: int, se_images: float) -> float:
    """Return the two-sided p at which the half width is ``value``, by bisection; at least 1e-12."""
    low, high = -12.0, 0.0  # of its logarithm to the base of 10
    for _ in range(60):
        middle = (low + high) / 2
        if half_width(1 - 10**middle / 2, sd, seeds, se_images) > value:
            low = middle
        else:
            high = middle
    return float(10**high)


def verdict(item: Difference, adjusted: float | None) -> Verdict:
    """Return what may be said of a difference.

    ``differs`` needs the comparison to hold among all of its family; inside its interval 0 is no difference.
    """
    if item.p is None:
        return "cannot be told"
    if item.inside_noise:
        return "inside the noise"
    return "differs" if adjusted is not None and adjusted < ALPHA else "may be chance"


# ------------------------------------------------------------------ how many seeds


def seeds_needed(sd_seeds: float, se_images: float = 0.0, difference: float = 0.01) -> int | None:
    """Return how many seeds show a difference in 80 % of experiments, at the 5 % level; None where no number does.

    The smallest S with difference >= h(0.975) + h(0.8), h the half width of `half_width`. Images that are too few
    cannot be made up for by trainings.

    Args:
        sd_seeds: of the paired difference between two trainings of one seed.
    """
    for seeds in range(2, MOST_SEEDS + 1):
        if difference >= sum(half_width(q, sd_seeds, seeds, se_images) for q in (1 - ALPHA / 2, POWER)):
            return seeds
    return None


def pooled_sd(differences: Sequence[Difference]) -> float | None:
    """Return the root mean square of the spreads of several differences over seeds; None where none has one."""
    squares = [item.sd_seeds**2 for item in differences if item.sd_seeds is not None]
    return float(np.sqrt(np.mean(squares))) if squares else None
