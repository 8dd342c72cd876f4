"""Whether two codes train equally well: two one-sided Welch tests on the accuracies of their trainings.

In: accuracies of both in points, a margin. Out: the difference with its 90 % interval, and a verdict. That two are not
clearly different is no evidence that they are equal; here the whole interval must lie within the margin (Schuirmann
1987).
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t

ALPHA = 0.05  # of each of the two tests, so that the interval is one of 90 %


@dataclass(frozen=True)
class Equivalence:
    """Ours less the peer's, in the unit of the accuracies."""

    difference: float
    low: float
    high: float
    p_value: float
    """The larger of the two one-sided tests: of the hypothesis that the difference is at least the margin."""
    margin: float

    @property
    def verdict(self) -> str:
        """equivalent, or by how much not, or that the trainings were too few to say."""
        if self.p_value < ALPHA:
            return "equivalent"
        if self.low > self.margin or self.high < -self.margin:
            return f"not equivalent: ours is {abs(self.difference):.2f} {'above' if self.low > 0 else 'below'}"
        return f"undecided: the interval is wider than {self.margin:g} to each side"


def compare(ours: Sequence[float], peers: Sequence[float], margin: float) -> Equivalence:
    """Compare two groups of trainings; a group of one is taken for a number without spread.

    Raises:
        ValueError: when both are of one training.
    """
    if min(len(ours), len(peers)) < 1 or len(ours) + len(peers) < 3:
        raise ValueError(f"{len(ours)} and {len(peers)} trainings were given, expected two of one side at least")
    parts = [statistics.variance(group) / len(group) if len(group) > 1 else 0.0 for group in (ours, peers)]
    difference, error = statistics.mean(ours) - statistics.mean(peers), math.sqrt(sum(parts))
    if error == 0:
        return Equivalence(difference, difference, difference, float(abs(difference) >= margin), margin)
    # Welch and Satterthwaite's degrees of freedom: the two sides need not spread alike.
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(group) - 1) for part, group in zip(parts, (ours, peers), strict=True) if part
    )
    reach = float(t.ppf(1 - ALPHA, freedom)) * error
    p_value = float(t.cdf((abs(difference) - margin) / error, freedom))
    return Equivalence(difference, difference - reach, difference + reach, p_value, margin)
