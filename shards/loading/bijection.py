"""Keyed permutations of 0..n-1 that are computed number by number: nothing of their length is ever in memory.

In: numbers, how many there are, and the words of a key. Out: where the permutation takes them, or what it takes there.
A Feistel network on pairs of digits to the base ceil(sqrt(n)), a bijection whatever its round function is; numbers that
leave 0..n-1 walk on until they are back (Black and Rogaway 2002, Ciphers with Arbitrary Finite Domains).
"""

from collections.abc import Callable

import numpy as np

from synclones.base.draws import GOLDEN, Words, finalise, hash64

_ROUNDS = 8
_MIN_BASE = 8  # of fewer digits a network reaches some permutations more often than others


def permuted(x: np.ndarray, n: int | np.ndarray, *key: Words) -> np.ndarray:
    """Return where each number goes: int64, 0 <= result < n, a bijection of 0..n-1 for every key.

    ``x``: int64, 0 <= x < n < 2^62. ``n`` and the words of ``key``, integers >= 0, broadcast to it.
    """
    return _walk(x, n, hash64(*key), _forward)


def unpermuted(y: np.ndarray, n: int | np.ndarray, *key: Words) -> np.ndarray:
    """Return what `permuted` takes to each number: its inverse."""
    return _walk(y, n, hash64(*key), _backward)


_Rounds = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _walk(x: np.ndarray, n: int | np.ndarray, key: np.ndarray, rounds: _Rounds) -> np.ndarray:
    values, limit, keys = (part.ravel() for part in np.broadcast_arrays(np.asarray(x, dtype=np.int64), n, key))
    base = _root(limit)
    values = rounds(values, base, keys)
    while len(outside := np.flatnonzero(values >= limit)):
        values[outside] = rounds(values[outside], base[outside], keys[outside])
    walked: np.ndarray = values.reshape(np.broadcast_shapes(np.shape(x), np.shape(n), key.shape))
    return walked


def _root(n: np.ndarray) -> np.ndarray:
    """Return the smallest base, of those allowed, whose square is not below n; a rounded root may be off by one."""
    base = np.ceil(np.sqrt(n)).astype(np.int64)
    base -= (base - 1) * (base - 1) >= n
    root: np.ndarray = np.maximum(base + (base * base < n), _MIN_BASE)
    return root


def _forward(x: np.ndarray, base: np.ndarray, keys: np.ndarray) -> np.ndarray:
    left, right = np.divmod(x, base)
    for number in range(_ROUNDS):
        left, right = right, (left + _mixed(right, keys, number, base)) % base
    moved: np.ndarray = left * base + right
    return moved


def _backward(y: np.ndarray, base: np.ndarray, keys: np.ndarray) -> np.ndarray:
    left, right = np.divmod(y, base)
    for number in reversed(range(_ROUNDS)):
        left, right = (right - _mixed(left, keys, number, base)) % base, left
    moved: np.ndarray = left * base + right
    return moved


def _mixed(digit: np.ndarray, keys: np.ndarray, number: int, base: np.ndarray) -> np.ndarray:
    """Return a number below ``base`` that depends on a digit, the key and the round."""
    with np.errstate(over="ignore"):
        word = finalise((keys ^ digit.astype(np.uint64)) + np.uint64(number + 1) * GOLDEN)
    mixed: np.ndarray = (word % base.astype(np.uint64)).astype(np.int64)
    return mixed
