"""Bounds that hold at every look: how sure a number of a whole set is while its images are still coming in.

In: right or wrong of the first images of a set, in an order that is as good as drawn (`subset.hashed_order`). Out:
intervals, all of which hold together with 95 % probability, so that one may look after every batch and stop when they
are narrow enough, or when a comparison is decided. They are about the number that all images of the set would give,
and have no width once all were seen; how sure that number is of other images is for `intervals` to say.

Sources: Ville 1939 (a positive martingale of mean 1 ever reaches 1 / alpha with probability alpha at most); Wald 1945,
Annals of Mathematical Statistics 16 (ratios of likelihoods); Waudby-Smith and Ramdas, arXiv 2006.04347 (drawing without
replacement) and 2010.09686 (bets, variances estimated on the way); Fan, Grama and Liu 2015, Electronic Journal of
Probability 20 (the inequality behind `difference_bounds`).
"""

from dataclasses import dataclass

import numpy as np

from synclones.evaluate.bounds.intervals import Interval

ALPHA = 0.05
LOOK_EVERY = 256
ASKED_WEIGHT = 0.9
"""Of the chance of error, the part that is spent on being sharp at the width that was asked for; the rest makes the
bounds before that useful, and lets a clear difference be seen early."""
WIDER = 8
"""How much wider the second width is that differences are watched at."""
LARGEST_BET = 0.5
SMALLEST_RANGE = 0.1


@dataclass(frozen=True, eq=False)
class Bounds:
    """A number after the first images and its bounds, at every look."""

    seen: np.ndarray
    """int64[k], ascending: how many images had been seen."""
    value: np.ndarray
    """float64[k]: the number of these images."""
    low: np.ndarray
    """float64[k]."""
    high: np.ndarray
    """float64[k]."""

    def __getitem__(self, look: int) -> Interval:
        return Interval(float(self.value[look]), float(self.low[look]), float(self.high[look]))

    def narrow(self, half_width: float) -> int | None:
        """Return after how many images the half width was at most this for the first time; None: never."""
        return self._first((self.high - self.low) / 2 <= half_width)

    def decided(self) -> int | None:
        """Return after how many images 0 was outside for the first time; None: never."""
        return self._first((self.low > 0) | (self.high < 0))

    def _first(self, met: np.ndarray) -> int | None:
        return int(self.seen[met.argmax()]) if met.any() else None


def look_schedule(images: int, every: int = LOOK_EVERY) -> np.ndarray:
    """Return after how many of ``images`` > 0 one looks, int64[k]: after every batch, and after the last image."""
    return np.append(np.arange(every, images, every), images)


def share_bounds(
    correct: np.ndarray, images: int, half_width: float, looks: np.ndarray | None = None, alpha: float = ALPHA
) -> Bounds:
    """Return bounds of the share of right answers among all images of a set, exact for shares.

    Each possible number K of right answers in the set is tested against K moved by the asked half width and by its
    doubles, upwards and, apart from that, downwards: the ratio of the chances of what was seen, drawn without
    replacement, is a martingale of mean 1 when K is the truth, so that it reaches 2 / alpha with probability alpha / 2
    at most. Upwards it falls with K, so that what it refuses is all below one number: the bound.

    Args:
        correct: bool[n] of the images seen, 1 <= n <= images, in drawn order.
        images: in the whole set.
        half_width: in 0..0.5, exclusive, at which the bounds are to be sharpest; they hold whatever it is.
        looks: int64[k] in 1..n, ascending; by default `look_schedule`.
        alpha: in 0..1, exclusive, the chance that any of the bounds does not hold.
    """
    _check(len(correct), images, half_width)
    seen = _looks(len(correct), looks)
    right = np.cumsum(np.asarray(correct, dtype=np.int64))[seen - 1]
    wrong = seen - right
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, images + 1)))])
    low = _fewest(right, wrong, logs, half_width, alpha)
    high = images - _fewest(wrong, right, logs, half_width, alpha)
    return Bounds(seen, right / seen, low / images, high / images)


def _fewest(right: np.ndarray, wrong: np.ndarray, logs: np.ndarray, half_width: float, alpha: float) -> np.ndarray:
    """Return the smallest numbers of right answers in the set that are not refused for larger ones, int64[looks]."""
    images = len(logs) - 1
    widths = half_width * 2.0 ** np.arange(1 + int(np.log2(0.5 / half_width)))
    moves = np.maximum(1, np.round(widths * images)).astype(np.int64)
    weights = np.full(len(moves), (1 - ASKED_WEIGHT) / max(1, len(moves) - 1))
    weights[0] = ASKED_WEIGHT if len(moves) > 1 else 1.0
    # The ratio falls with K, so that halving finds where it crosses: refused at `low`, kept at `high`.
    low, high = right - 1, images - wrong
    while (open_ := high - low > 1).any():
        middle = np.where(open_, (low + high) // 2, high)
        ratios = [
            _log_ratio(middle, move, right, wrong, logs) + np.log(w) for move, w in zip(moves, weights, strict=True)
        ]
        refused = np.logaddexp.reduce(ratios, axis=0) >= np.log(2 / alpha)
        low, high = np.where(open_ & refused, middle, low), np.where(open_ & ~refused, middle, high)
    return high


def _log_ratio(total: np.ndarray, move: np.int64, right: np.ndarray, wrong: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """Return the logarithm of how much likelier what was seen is with ``move`` more right answers in the set.

    With K right answers of N, a given order of s right and f wrong ones has the chance
    K! (N - K)! (N - s - f)! / ((K - s)! (N - K - f)! N!).
    """
    images = len(logs) - 1
    moved = np.minimum(total + move, images)
    possible = images - moved >= wrong
    moved = np.where(possible, moved, total)

    def chance(k: np.ndarray) -> np.ndarray:
        of: np.ndarray = logs[k] - logs[k - right] + logs[images - k] - logs[images - k - wrong]
        return of

    return np.where(possible, chance(moved) - chance(total), -np.inf)


def difference_bounds(
    differences: np.ndarray, images: int, half_width: float, looks: np.ndarray | None = None, alpha: float = ALPHA
) -> Bounds:
    """Return bounds of the mean difference of two models on all images of a set.

    Against each mean that is too small one bets on what comes next, with stakes that fall with the variance so far; the
    mean is refused when the bets have won 2 / alpha. Let xi = d - (mean so far) >= -b, and stakes 0 <= s < 1 / b that
    are known before d: exp(s xi - psi xi^2) <= 1 + s xi where psi = (-log(1 - s b) - s b) / b^2 (Fan, Grama and Liu),
    so that the product of exp(s (d - m) - psi xi^2) is a supermartingale when m is the mean of the images that are
    left. Its logarithm is linear in the mean of the set, which gives the bound in one pass.

    Args:
        differences: float64[n] in -1..1 of the images seen, 1 <= n <= images, in drawn order: of right answers, the
            first model's minus the second's.
        images: in the whole set.
        half_width: in 0..0.5, exclusive, at which the bounds are to be sharpest; they hold whatever it is.
        looks: int64[k] in 1..n, ascending; by default `look_schedule`.
        alpha: in 0..1, exclusive, the chance that any of the bounds does not hold.
    """
    _check(len(differences), images, half_width)
    seen, values = _looks(len(differences), looks), np.asarray(differences, dtype=np.float64)
    sums = np.cumsum(values)[seen - 1]
    value = sums / seen
    # Whatever the images that are left show, each counts between -1 and 1.
    low, high = (sums - (images - seen)) / images, (sums + (images - seen)) / images
    for width, part in ((half_width, ASKED_WEIGHT), (WIDER * half_width, 1 - ASKED_WEIGHT)):
        below = _refused_below(values, images, width, alpha * part)[seen - 1]
        above = -_refused_below(-values, images, width, alpha * part)[seen - 1]
        low, high = np.maximum(low, below), np.minimum(high, above)
    return Bounds(seen, value, np.minimum(low, value), np.maximum(high, value))


def _refused_below(values: np.ndarray, images: int, width: float, alpha: float) -> np.ndarray:
    """Return below which mean of the set every mean is refused after each image, float64[n]."""
    number = np.arange(1, len(values) + 1)
    left = images - number + 1
    # What is known before an image comes: the sum, the mean and the variance so far, begun with 0 and 1.
    before = np.cumsum(values) - values
    mean = before / number
    squares = (values - mean) ** 2
    variance = (1 + np.cumsum(squares) - squares) / number
    # The stake that wins most if the mean is wrong by `width`, which the images that are left must make up for.
    wrong_by = width * images / left
    reach = np.maximum(1 + mean, SMALLEST_RANGE)
    stake = np.minimum(wrong_by / (variance + reach * wrong_by), LARGEST_BET / reach)
    cost = (-np.log1p(-stake * reach) - stake * reach) / reach**2
    # The mean of the images that are left is (N m - sum so far) / left: solve for m where the bets win 2 / alpha.
    won = np.cumsum(stake * values + stake / left * before - cost * squares) - np.log(2 / alpha)
    bound: np.ndarray = won / (images * np.cumsum(stake / left))
    return bound


def _check(seen: int, images: int, half_width: float) -> None:
    assert 1 <= seen <= images, f"{seen} of {images} images"
    assert 0 < half_width < 0.5, f"half width {half_width}"


def _looks(seen: int, looks: np.ndarray | None) -> np.ndarray:
    return look_schedule(seen) if looks is None else np.asarray(looks, dtype=np.int64)
