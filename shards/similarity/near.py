"""Finds all pairs of 64-bit hashes that differ in few bits, and which of each cluster to leave out; exact.

In: uint64[n]. Out: index pairs with their distances, a drop list, or what is near one of other hashes. Not all pairs
are looked at: 64 bits are cut into m blocks, and two hashes that differ in at most d bits agree in at least m - d
blocks. For every choice of m - d blocks the hashes are sorted by them, and only those that agree there are compared
(Manku, Jain, Das Sarma, "Detecting near-duplicates for web crawling", 2007, section 3).
"""

from itertools import combinations
from math import comb

import numpy as np

BITS = 64
MAX_DISTANCE = 8  # beyond it a million hashes take minutes
_CHUNK = 1 << 22  # pairs compared at once: bounds the memory of large clusters
# Seconds per hash for one table, and per pair for a comparison (one core of 2026); only their ratio matters.
_SORT_S, _COMPARE_S = 1.5e-7, 1.5e-8


def near_pairs(hashes: np.ndarray, max_distance: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find (i, j, distance) of every pair i < j of uint64[n] with at most ``max_distance`` different bits.

    int64, int64 and uint8 of one length, ordered by i, then j. Equal hashes make n^2 / 2 pairs: give unique ones.
    """
    blocks = _best_blocks(len(hashes), max_distance)
    tables = [_table_pairs(hashes, mask, max_distance) for mask in _masks(blocks, max_distance)]
    codes = np.unique(np.concatenate(tables)) if tables else np.empty(0, np.int64)
    i, j = np.divmod(codes, max(1, len(hashes)))
    return i, j, np.bitwise_count(hashes[i] ^ hashes[j])


def _best_blocks(n: int, distance: int) -> int:
    """Blocks that make the search cheapest: many make many tables, few make tables in which many hashes agree."""

    def seconds(blocks: int) -> float:
        agreeing_bits = BITS * (blocks - distance) / blocks
        return comb(blocks, distance) * (n * _SORT_S + n * n / 2 * 2**-agreeing_bits * _COMPARE_S)

    return min(range(distance + 1, distance + 9), key=seconds)


def _masks(blocks: int, distance: int) -> list[np.uint64]:
    """The bits of every choice of ``blocks - distance`` blocks."""
    edges = [BITS * k // blocks for k in range(blocks + 1)]
    whole = [((1 << (high - low)) - 1) << low for low, high in zip(edges, edges[1:], strict=False)]
    return [np.uint64(sum(chosen)) for chosen in combinations(whole, blocks - distance)]


def _table_pairs(hashes: np.ndarray, mask: np.uint64, max_distance: int) -> np.ndarray:
    """``i * n + j`` of the near pairs that agree in the bits of ``mask``."""
    keys = hashes & mask
    order = np.argsort(keys)
    keys = keys[order]
    codes, step = [np.empty(0, np.int64)], 1
    starts = np.arange(len(keys) - 1)
    while len(starts):  # neighbours in the sorted table, then those two apart, and so on while any agree
        starts = starts[starts + step < len(keys)]
        starts = starts[keys[starts] == keys[starts + step]]
        for chunk in np.array_split(starts, -(-len(starts) // _CHUNK) or 1):
            a, b = order[chunk], order[chunk + step]
            near = np.bitwise_count(hashes[a] ^ hashes[b]) <= max_distance
            low, high = np.minimum(a[near], b[near]), np.maximum(a[near], b[near])
            codes.append(low * len(hashes) + high)
        step += 1
    return np.concatenate(codes)


def drop_list(hashes: np.ndarray, max_distance: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (dropped, kept, distance): in the order of uint64[n], each that is near one kept before is dropped.

    Its kept one is the nearest, of equally near ones the first. int64, int64, uint8; ``dropped`` ascends.
    """
    # Pairs are sought among distinct hashes: equal ones are near by definition and may be many.
    unique, firsts, which = np.unique(hashes, return_index=True, return_inverse=True)
    i, j, gaps = near_pairs(unique, max_distance)
    neighbours: dict[int, list[tuple[int, int]]] = {}
    for a, b, gap in zip(i.tolist(), j.tolist(), gaps.tolist(), strict=True):
        neighbours.setdefault(a, []).append((gap, b))
        neighbours.setdefault(b, []).append((gap, a))
    # Only hashes with a neighbour or a double need a decision, in order, since it depends on what was kept before.
    repeated = np.arange(len(hashes)) != firsts[which]
    lonely = np.ones(len(unique), bool)
    lonely[list(neighbours)] = False
    kept, dropped = lonely.copy(), list[tuple[int, int, int]]()
    for position in np.flatnonzero(repeated | ~lonely[which]).tolist():
        own = int(which[position])
        near = [(0, own)] if kept[own] else []
        near += [(gap, other) for gap, other in neighbours.get(own, ()) if kept[other]]
        if near:
            gap, first = min((gap, int(firsts[other])) for gap, other in near)
            dropped.append((position, first, gap))
        else:
            kept[own] = True
    columns = np.array(dropped, dtype=np.int64).reshape(-1, 3)
    return columns[:, 0], columns[:, 1], columns[:, 2].astype(np.uint8)


def nearest_of(hashes: np.ndarray, others: np.ndarray, max_distance: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (position, nearest, distance) of each of uint64[n] that is near one of ``others``, uint64[m].

    The nearest one is the first of equally near ones. int64, int64, uint8; positions ascend.
    """
    unique, which = np.unique(np.concatenate([hashes, others]), return_inverse=True)
    own, theirs = which[: len(hashes)], which[len(hashes) :]
    # Of each distinct hash, where it comes first among the others; beyond them when it is none of them.
    first = np.full(len(unique), len(others), np.int64)
    np.minimum.at(first, theirs, np.arange(len(others)))
    i, j, gaps = near_pairs(unique, max_distance)
    same = np.arange(len(unique))
    of, to = np.concatenate([i, j, same]), np.concatenate([j, i, same])
    gap = np.concatenate([gaps, gaps, np.zeros(len(unique), gaps.dtype)])
    among = first[to] < len(others)
    of, to, gap = of[among], to[among], gap[among]
    order = np.lexsort((first[to], gap, of))
    of, to, gap = of[order], to[order], gap[order]
    best = np.flatnonzero(np.diff(of, prepend=-1))
    at = np.full(len(unique), -1, np.int64)
    at[of[best]] = best
    positions = np.flatnonzero(at[own] >= 0)
    chosen = at[own[positions]]
    return positions, first[to[chosen]], gap[chosen].astype(np.uint8)
