"""What may be said of one difference among many: a family of comparisons that hold together.

In: a p-value per comparison. Out: adjusted p-values. Of many pairs of equal models some differ by chance.
"""

from collections.abc import Sequence
from typing import Literal

ALPHA = 0.05

Verdict = Literal["differs", "may be chance", "inside the noise", "cannot be told"]


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Return adjusted p-values: below 0.05 hold all together with the confidence of one (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1, and none is below one before it. None stays None and counts.
    """
    sortable = [2.0 if own is None else own for own in p]
    order = sorted(range(len(p)), key=sortable.__getitem__)
    adjusted: list[float | None] = [None] * len(p)
    floor = 0.0
    for rank, i in enumerate(order):
        own = p[i]
        if own is not None:
            floor = max(floor, min(1.0, own * (len(p) - rank)))
            adjusted[i] = floor
    return adjusted
