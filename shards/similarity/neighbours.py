"""Finds the nearest vectors of each query, exactly: the k of the highest cosine, of equal ones those that come first.

In: `Vectors`, queries as units. Out: `Pairs` of query and position with their score, a cosine in steps of 2^-30. Scores
are first estimated in float32, a block at a time; every pair that could be among the best is then scored exactly.
"""

from dataclasses import dataclass

import numpy as np

from synclones.shards.similarity.vectors import UNIT, Vectors

_ROUNDING = 2.0**-24  # relative error of one operation in float32
_PAIRS_AT_ONCE, _ESTIMATES_AT_ONCE = 2**14, 2**24
_KEPT_AT_LEAST = 2**16  # pairs that wait to be merged, however few are asked for


@dataclass(frozen=True)
class Pairs:
    """Queries and vectors near them; three arrays of one length."""

    query: np.ndarray
    """int64[m]: number of the query."""
    position: np.ndarray
    """int64[m]: of the vector."""
    score: np.ndarray
    """float64[m]: their cosine, -1 to 1."""

    def __len__(self) -> int:
        return len(self.query)

    def take(self, which: np.ndarray) -> "Pairs":
        """Return some of them, by a mask or by numbers."""
        return Pairs(self.query[which], self.position[which], self.score[which])


def no_pairs() -> Pairs:
    """Return no pair at all."""
    return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))


def joined(parts: list[Pairs]) -> Pairs:
    """Return several lists of pairs as one."""
    columns = ([getattr(part, name) for part in (no_pairs(), *parts)] for name in ("query", "position", "score"))
    return Pairs(*(np.concatenate(column) for column in columns))


def in_order(pairs: Pairs) -> Pairs:
    """Return pairs by query, the highest score first, of equal scores the lower position first."""
    return pairs.take(np.lexsort((pairs.position, -pairs.score, pairs.query)))


def ranks(pairs: Pairs) -> np.ndarray:
    """Return how many pairs of the same query stand before each, of pairs in order: int64[m]."""
    new = np.diff(pairs.query, prepend=-1) != 0
    firsts = np.maximum.accumulate(np.where(new, np.arange(len(pairs)), 0))
    return np.arange(len(pairs)) - firsts


def best(pairs: Pairs, k: int) -> Pairs:
    """Return the k best pairs of each query, in order."""
    ordered = in_order(pairs)
    return ordered.take(ranks(ordered) < k)


def nearest(vectors: Vectors, queries: np.ndarray, k: int) -> Pairs:
    """Find the k nearest vectors of each query, equal to comparing all; those without a length are never among them.

    Args:
        queries: units, float32[q, width]; k at least 1.

    Raises:
        ValueError: another width.
        VerificationError: vectors are damaged.
    """
    _check_width(vectors, queries)
    # What a score in float32 may be off: each of `width` products and sums is rounded once.
    margin = 2 * (vectors.width + 2) * _ROUNDING * UNIT**2
    limits = np.full(len(queries), -np.inf)
    kept, waiting, waiting_pairs = no_pairs(), list[Pairs](), 0
    for first, block in vectors.blocks(max(1, _ESTIMATES_AT_ONCE // max(1, len(queries)))):
        estimates = queries @ block.T
        estimates[:, ~block.any(axis=1)] = -np.inf
        # The k-th best of this block is a limit of its own: fewer pairs are scored exactly, above all of the first one.
        if block.shape[0] > k:
            own = np.partition(estimates, -k, axis=1)[:, -k] if np.isinf(limits).any() else limits
            floor = np.maximum(limits, own) - margin
        else:
            floor = limits - margin
        which, rows = np.nonzero((estimates >= floor[:, None]) & np.isfinite(estimates))
        waiting.append(Pairs(which, first + rows, exact_scores(queries, block, which, rows)))
        waiting_pairs += len(which)
        if waiting_pairs > max(_KEPT_AT_LEAST, k * len(queries)) or np.isinf(limits).any():
            kept, waiting, waiting_pairs = best(joined([kept, *waiting]), k), [], 0
            limits = _limits(kept, len(queries), k)
    return best(joined([kept, *waiting]), k)


def _limits(kept: Pairs, queries: int, k: int) -> np.ndarray:
    """Return what a score must reach to be among the k best of each query, in units; -inf while it has fewer."""
    limits = np.full(queries, -np.inf)
    last = ranks(kept) == k - 1
    limits[kept.query[last]] = kept.score[last] * UNIT**2
    return limits


def exact_scores(queries: np.ndarray, block: np.ndarray, which: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the cosines of pairs of a query and a row of a block, all given as units: float64[m].

    Every product and sum is a whole number below 2^53, which no order of adding can change.
    """
    scores = np.empty(len(which), np.float64)
    for start in range(0, len(which), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        products = queries[which[part]].astype(np.float64) * block[rows[part]]
        scores[part] = products.sum(axis=1)
    return scores / UNIT**2


def scored(vectors: Vectors, queries: np.ndarray, which: np.ndarray, positions: np.ndarray) -> Pairs:
    """Score given pairs exactly; those of a vector without a length are left out.

    Raises:
        ValueError: another width.
    """
    _check_width(vectors, queries)
    order = np.argsort(positions, kind="stable")
    parts: list[Pairs] = []
    for start in range(0, len(order), _PAIRS_AT_ONCE):
        chosen = order[start : start + _PAIRS_AT_ONCE]
        unique, rows = np.unique(positions[chosen], return_inverse=True)
        block = vectors.take(unique)
        scores = exact_scores(queries, block, which[chosen], rows)
        has_length: np.ndarray = np.asarray(block.any(axis=1))
        parts.append(Pairs(which[chosen], positions[chosen], scores).take(has_length[rows]))
    return in_order(joined(parts))


def _check_width(vectors: Vectors, queries: np.ndarray) -> None:
    if queries.shape[1:] != (vectors.width,):
        raise ValueError(f"vectors of {vectors.width} numbers, queries of {list(queries.shape[1:])}")
