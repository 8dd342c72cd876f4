"""How the error falls with the number of images: a law with a floor, error = a + b n^-c, with intervals, or a refusal.

In: `Point`s, errors of trainings at several sizes, each with its standard error. Out: a `Law` and what it expects at
other sizes. A straight line in log-log, which has no floor, is here to be compared with. NumPy alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

FEWEST_SIZES = 3
FARTHEST = 10.0
"""How many times the largest measured size a law is asked at most."""
NARROW = 0.02
"""An interval of this width says something even where growth has gained less."""
PROFILE = 3.841458820694124
"""The 95 % quantile of chi-squared with one degree of freedom."""
_MISFIT = (6.635, 9.210, 11.345, 13.277, 15.086, 16.812, 18.475, 20.090)
"""99 % quantiles of chi-squared with 1 to 8 degrees of freedom."""
_EXPONENTS = np.geomspace(0.02, 4.0, 200)
_FLOORS = 160


@dataclass(frozen=True)
class Point:
    """The error at one number of images.

    Attributes:
        size: number of images, > 0.
        error: fraction of wrong answers, 0..1.
        sigma: its standard error, a fraction > 0, over trainings and test images.
    """

    size: float
    error: float
    sigma: float


@dataclass(frozen=True)
class Expected:
    """An accuracy that a law expects of a training that was not done, with its 95 % interval; fractions."""

    size: float
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True)
class Refusal:
    """Why nothing is expected."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class Law:
    """error(n) = floor + factor (n / largest)^-exponent, fitted by weighted least squares with all three >= 0.

    Attributes:
        factor: what is above the floor at the largest measured size.
        misfit: the sum of squared residuals in standard errors.
    """

    points: tuple[Point, ...]
    floor: float
    factor: float
    exponent: float
    misfit: float

    @property
    def largest(self) -> float:
        """The largest measured size."""
        return max(point.size for point in self.points)

    def error(self, size: float) -> float:
        """Return the error at a number of images."""
        return float(self.floor + self.factor * (size / self.largest) ** -self.exponent)

    def interval(self, size: float, sigma: float = 0.0) -> tuple[float, float]:
        """Return the 95 % profile interval of the error at a size; with ``sigma``, of a training's measured there.

        All laws count whose squared residuals, that of the new training included, are within 3.84 of the best.
        """
        exponents, floors, fitted, curvature, misfits = self._profile
        spare = np.maximum(self.misfit + PROFILE - misfits, 0.0)
        within = misfits <= self.misfit + PROFILE
        at = (size / self.largest) ** -exponents
        value, half = floors + fitted * at, np.sqrt(spare * (at**2 / curvature + sigma**2))
        low, high = (value - half)[within], (value + half)[within]
        best = self.error(size)
        return float(max(0.0, min(low.min(), best))), float(min(1.0, max(high.max(), best)))

    def exponents(self) -> tuple[float, float]:
        """Return the 95 % profile interval of the exponent."""
        return self._range(0)

    def floors(self) -> tuple[float, float]:
        """Return the 95 % profile interval of the floor."""
        return self._range(1)

    def _range(self, which: int) -> tuple[float, float]:
        values = np.broadcast_to(self._profile[which], self._profile[4].shape)
        inside = values[self._profile[4] <= self.misfit + PROFILE]
        own = (self.exponent, self.floor)[which]
        return (float(min(inside.min(), own)), float(max(inside.max(), own))) if len(inside) else (own, own)

    @cached_property
    def _profile(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Exponents [c, 1], floors [1, a], and for each pair the best factor, its curvature and the misfit [c, a]."""
        top = min(point.error + 3 * point.sigma for point in self.points)
        # The law itself is on the grid, so that some pair is always within.
        exponents = np.sort(np.append(_EXPONENTS, self.exponent))[:, None]
        floors = np.sort(np.append(np.linspace(0.0, max(top, 1e-9), _FLOORS), self.floor))[None, :]
        weights, errors, powers = _arrays(self.points, exponents[:, 0])
        curvature = (weights * powers**2).sum(1)[:, None]
        above = errors[None, None, :] - floors[..., None]
        fitted = np.maximum((weights * powers[:, None, :] * above).sum(2) / curvature, 0.0)
        misfits = (weights * (above - fitted[..., None] * powers[:, None, :]) ** 2).sum(2)
        return exponents, floors, fitted, curvature, misfits


def fit(points: Sequence[Point]) -> Law | Refusal:
    """Fit the law with a floor, or refuse: fewer than three sizes, or errors that no such law fits (1 % level)."""
    points = tuple(sorted(points, key=lambda point: point.size))
    sizes = len({point.size for point in points})
    if sizes < FEWEST_SIZES:
        return Refusal(f"only {sizes} of at least {FEWEST_SIZES} sizes: a law has three numbers")
    if any(not (p.size > 0 and 0 <= p.error <= 1 and p.sigma > 0) for p in points):
        return Refusal("an error is no fraction, or its standard error is unknown")
    grid = _EXPONENTS
    # Twice around the best exponent of the grid, each time a hundred times finer.
    for _ in range(3):
        floor, factor, misfit = _best(points, grid)
        at = int(misfit.argmin())
        law = Law(points, float(floor[at]), float(factor[at]), float(grid[at]), float(misfit[at]))
        grid = np.linspace(grid[max(0, at - 1)], grid[min(len(grid) - 1, at + 1)], 201)
    if law.misfit > _misfit_limit(max(1, sizes - 3)):
        return Refusal("no curve that falls to a floor fits: the errors differ from the best by more than their noise")
    return law


def _misfit_limit(freedom: int) -> float:
    """Return the 99 % quantile of chi-squared; of more than 8 degrees of freedom by Wilson and Hilferty 1931."""
    if freedom <= len(_MISFIT):
        return _MISFIT[freedom - 1]
    part = 2 / (9 * freedom)
    return float(freedom * (1 - part + 2.326348 * part**0.5) ** 3)


def _best(points: Sequence[Point], exponents: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return floor >= 0, factor >= 0 and misfit of the best law of each exponent, float64[exponents] each."""
    weights, errors, powers = _arrays(points, exponents)
    total, linear, square = weights.sum(), (weights * powers).sum(1), (weights * powers**2).sum(1)
    mean, cross = (weights * errors).sum(), (weights * powers * errors).sum(1)
    determinant = np.maximum(total * square - linear**2, 1e-300)
    floor, factor = (mean * square - linear * cross) / determinant, (total * cross - linear * mean) / determinant
    # Where one of them would be negative it is 0, and the other is best without it.
    factor = np.where(floor < 0, cross / square, factor)
    floor = np.where(floor < 0, 0.0, np.where(factor < 0, mean / total, floor))
    factor = np.maximum(factor, 0.0)
    return floor, factor, (weights * (errors - floor[:, None] - factor[:, None] * powers) ** 2).sum(1)


def _arrays(points: Sequence[Point], exponents: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights and errors [k], and (size / largest)^-exponent [exponents, k]."""
    sizes = np.array([point.size for point in points])
    weights = 1 / np.array([point.sigma for point in points]) ** 2
    return weights, np.array([point.error for point in points]), (sizes / sizes.max()) ** -exponents[:, None]


def expected_accuracy(points: Sequence[Point], size: float, sigma: float | None = None) -> Expected | Refusal:
    """Return the accuracy that the law expects of a training with ``size`` images, or why none is expected.

    Refused are: fewer than three sizes; errors that no such law fits; a size of more than 10 times the largest; and an
    interval that is useless, which is one wider than 2 points that is also wider than all that growth from the smallest
    to the largest measured size has gained.

    Args:
        sigma: standard error of the training that is expected; by default the mean of the points'.
    """
    law = fit(points)
    if isinstance(law, Refusal):
        return law
    if size > FARTHEST * law.largest:
        return Refusal(f"{size:,.0f} images are more than {FARTHEST:g} times the largest measured size")
    own = float(np.sqrt(np.mean([p.sigma**2 for p in law.points]))) if sigma is None else sigma
    low, high = law.interval(size, own)
    gained = max(0.0, law.points[0].error - law.points[-1].error)
    if high - low > max(gained, NARROW):
        return Refusal(
            f"its interval of {100 * (high - low):.1f} points is wider than the {100 * gained:.1f} that growth has "
            "gained so far"
        )
    return Expected(size, 1 - law.error(size), 1 - high, 1 - low)


def log_log(points: Sequence[Point], size: float) -> float:
    """Return the error that a straight line through log error over log size expects: no floor, equal weights."""
    logs = np.log([[point.size, point.error] for point in points])
    slope, start = np.polyfit(logs[:, 0], logs[:, 1], 1)
    return float(np.exp(start + slope * np.log(size)))
