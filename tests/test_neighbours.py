"""Nearest vectors: exactly those that comparing all gives, in whatever blocks, with a stated order of equal ones."""

import numpy as np
import pytest

from synclones.shards.similarity import neighbours, vectors
from synclones.shards.similarity.neighbours import nearest, scored
from synclones.shards.similarity.vectors import UNIT, Vectors, units


class Given(Vectors):
    """Vectors in memory, in parts."""

    sha256 = "given"

    def __init__(self, parts):
        super().__init__(parts[0].shape[1], [len(part) for part in parts])
        self.parts = parts

    def part(self, number):
        return self.parts[number]


def brute_force(stored: np.ndarray, queries: np.ndarray, k: int) -> list[tuple[int, int, float]]:
    """Every pair in Python's own integers: (query, position, score), the best first, equal ones by position."""
    rows = [[int(x) for x in row] for row in units(stored)]
    result = []
    for number, query in enumerate(units(queries)):
        whole = [int(x) for x in query]
        scores = [(sum(a * b for a, b in zip(whole, row, strict=True)), i) for i, row in enumerate(rows) if any(row)]
        best = sorted(scores, key=lambda pair: (-pair[0], pair[1]))[:k]
        result += [(number, i, score / UNIT**2) for score, i in best]
    return result


def as_list(pairs) -> list[tuple[int, int, float]]:
    return list(zip(pairs.query.tolist(), pairs.position.tolist(), pairs.score.tolist(), strict=True))


@pytest.fixture
def stored() -> np.ndarray:
    """300 vectors of which many are equal or nearly so, two are zero and one is not finite."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(60, 24))
    many = base[rng.integers(0, 60, 300)] + 1e-5 * rng.normal(size=(300, 24)) * rng.integers(0, 2, (300, 1))
    many[[7, 200]], many[33, 3] = 0, np.nan
    return many.astype(np.float16)


@pytest.mark.parametrize("k", [1, 10, 40, 500])
@pytest.mark.parametrize("block_rows", [7, 2**14])
def test_the_nearest_are_those_of_brute_force_whatever_the_blocks(stored, k, block_rows, monkeypatch):
    monkeypatch.setattr(vectors, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(neighbours, "_KEPT_AT_LEAST", 50)
    queries = np.random.default_rng(1).normal(size=(5, 24))
    queries[2] = stored[11]
    parts = Given([stored[:100], stored[100:101], stored[101:101], stored[101:]])
    assert as_list(nearest(parts, units(queries), k)) == brute_force(stored, queries, k)


def test_equal_scores_stand_in_the_order_of_the_set():
    one = np.eye(4)[[1, 0, 1, 0, 0]]
    pairs = nearest(Given([one]), units(np.eye(4)[:1]), 4)
    assert pairs.position.tolist() == [1, 3, 4, 0] and pairs.score.tolist() == [1, 1, 1, 0]


def test_a_vector_without_a_length_is_nobody_s_neighbour():
    stored = np.array([[0.0, 0], [np.inf, 1], [-1, 0]])
    pairs = nearest(Given([stored]), units(np.array([[1.0, 0]])), 3)
    assert as_list(pairs) == [(0, 2, -1.0)]


def test_scores_are_cosines_and_lengths_do_not_matter():
    rng = np.random.default_rng(0)
    stored, queries = rng.normal(size=(50, 32)), rng.normal(size=(3, 32))
    pairs = nearest(Given([stored * 7]), units(queries * 0.01), 50)
    cosines = (queries / np.linalg.norm(queries, axis=1)[:, None]) @ (
        stored / np.linalg.norm(stored, axis=1)[:, None]
    ).T
    assert np.abs(pairs.score - cosines[pairs.query, pairs.position]).max() < 1e-4
    assert len(pairs) == 150


def test_given_pairs_are_scored_as_a_search_scores_them(stored):
    parts, queries = Given([stored[:120], stored[120:]]), units(np.random.default_rng(2).normal(size=(4, 24)))
    every = nearest(parts, queries, 300)
    mixed = np.random.default_rng(3).permutation(len(every))
    again = scored(parts, queries, every.query[mixed], every.position[mixed])
    assert as_list(again) == as_list(every)
    # One without a length has no score.
    assert len(scored(parts, queries, np.array([0, 0]), np.array([7, 8]))) == 1


def test_another_width_is_refused(stored):
    with pytest.raises(ValueError, match="vectors of 24 numbers"):
        nearest(Given([stored]), np.zeros((1, 8), np.float32), 1)
