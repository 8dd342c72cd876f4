"""Probabilities of many images a few rows at a time: what is summed over classes never needs all of them at once.

In: logits float32[n, classes]. Out: float64 arrays, the same bits as of all rows at once.
"""

from collections.abc import Iterator

import numpy as np

_BLOCK = 2**15
"""Numbers of one block: 256 KiB in float64, which a core's cache holds."""


def blocks(logits: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield which rows, and the exponentials of their logits less the largest of each row, float64[rows, classes].

    The array is the same for every block, and may be written to.
    """
    rows = max(1, _BLOCK // max(1, logits.shape[1]))
    kept = np.empty((rows, logits.shape[1]))  # a fresh one for each block would be zeroed by the system each time
    for start in range(0, len(logits), rows):
        of = slice(start, start + rows)
        block, exponentials = logits[of], kept[: len(logits[of])]
        np.copyto(exponentials, block)
        exponentials -= block.max(1, keepdims=True)
        yield of, np.exp(exponentials, out=exponentials)


def confidences(logits: np.ndarray) -> np.ndarray:
    """Return the largest probability of each row, float64[n]."""
    # The largest exponential is that of 0, and no quotient of the others is larger than that of 1.
    return 1.0 / sums(logits)


def sums(logits: np.ndarray) -> np.ndarray:
    """Return the sum of the exponentials of each row's logits less the largest, float64[n]."""
    totals = np.empty(len(logits))
    for of, exponentials in blocks(logits):
        totals[of] = exponentials.sum(1)
    return totals


def entropies(logits: np.ndarray) -> np.ndarray:
    """Return the entropy of each row's probabilities in nats, float64[n]."""
    result, tiny = np.empty(len(logits)), np.finfo(np.float64).tiny
    for of, p in blocks(logits):
        p /= p.sum(1, keepdims=True)
        result[of] = -(p * np.log(np.maximum(p, tiny))).sum(1)
    return result
