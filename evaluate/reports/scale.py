"""Scales of drawings made of HTML: where an axis begins and ends, and its round marks.

In: the smallest and the largest value. Out: values.
"""

import math


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Return about as many round numbers as asked for, evenly apart, from at most ``low`` to at least ``high``."""
    rough = max(high - low, 1e-3) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.floor(low / step + 1e-9)
    last = max(first + 1, math.ceil(high / step - 1e-9))
    return [round(number * step, 12) for number in range(first, last + 1)]


class Scale:
    """A linear scale in percent of the width of a drawing."""

    def __init__(self, low: float, high: float):
        self.ticks = ticks(low, high)
        self._low, self._span = self.ticks[0], self.ticks[-1] - self.ticks[0]

    def at(self, value: float) -> float:
        """Return where a value lies, 0 to 100; what lies beyond an end is drawn at it."""
        return min(100.0, max(0.0, 100 * (value - self._low) / self._span))
