"""The order of training: every group as often as was asked for, evenly, the same from any place and for any world."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synclones.shards.loading.bijection import permuted, unpermuted
from synclones.shards.loading.order import Balanced, MixtureOrder, Shuffled, Windowed, slice_of_rank


def quick_and_slow(test):
    """A dozen examples in the quick suite, 700 in the slow one (3,500 of all five properties)."""

    @pytest.mark.parametrize("examples", [12, pytest.param(700, marks=pytest.mark.slow)])
    def run(examples):
        settings(max_examples=examples, deadline=None)(test)()

    run.__name__ = test.__name__
    return run


# ------------------------------------------------------------------ permutations


@quick_and_slow
@given(st.integers(1, 3000), st.integers(0, 2**63), st.integers(0, 9))
def test_a_permutation_reaches_every_number_once_and_has_an_inverse(n, seed, word):
    image = permuted(np.arange(n), n, seed, word)
    assert np.array_equal(np.sort(image), np.arange(n))
    assert np.array_equal(unpermuted(image, n, seed, word), np.arange(n))


@quick_and_slow
@given(st.integers(2**31, 2**61), st.integers(0, 2**32))
def test_a_permutation_of_any_size_is_computed_number_by_number(n, seed):
    some = np.array([0, 1, n // 2, n - 2, n - 1])
    image = permuted(some, n, seed)
    assert (image >= 0).all() and (image < n).all() and np.array_equal(unpermuted(image, n, seed), some)
    assert np.array_equal(permuted(some[2:3], n, seed), image[2:3])


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_keys_reach_all_permutations_equally_often(n):
    keys = 24_000
    numbers = np.tile(np.arange(n), (keys, 1))
    images = permuted(numbers, n, 11, np.arange(keys)[:, None])
    counts = Counter(map(tuple, images.tolist()))
    expected = keys / math.factorial(n)
    chi2 = sum((counts[each] - expected) ** 2 / expected for each in itertools.permutations(range(n)))
    freedom = math.factorial(n) - 1
    assert chi2 < freedom + 4.5 * math.sqrt(2 * freedom)  # of a perfect shuffle, 3 in 100,000 such tests lie above


def test_neighbours_and_keys_are_unrelated():
    one, two = (permuted(np.arange(100_000), 100_000, key) for key in (1, 2))
    assert abs(np.corrcoef(one, np.arange(100_000))[0, 1]) < 0.015 and abs(np.corrcoef(one, two)[0, 1]) < 0.015
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.015
    # pinned: a training resumed by a later version must see the same order
    assert permuted(np.arange(5), 1000, 7, 3).tolist() == [565, 407, 688, 50, 694]


# ------------------------------------------------------------------ one part

sizes_of_shards = st.lists(st.integers(0, 40), min_size=1, max_size=9).filter(sum)


def parts_of(sizes, used, key, kind, window):
    """A part of each kind, of ``used`` groups (where that can be chosen)."""
    total = sum(sizes)
    if kind == "shuffled":
        return Shuffled(min(used, total), total, 1, key, 3)
    if kind == "windowed":
        return Windowed(sizes, 1, key, min(used, total), 3, window)
    return Balanced(np.arange(total) % 3, total, 1, key, 3)


kinds = st.sampled_from(["shuffled", "windowed", "balanced"])


@quick_and_slow
@given(sizes_of_shards, st.integers(1, 360), kinds, st.integers(1, 4), st.integers(1, 2))
def test_every_pass_shows_every_group_once(sizes, used, kind, window, passes):
    part = parts_of(sizes, used, 0, kind, window)
    group, showing = part.at(np.arange(passes * part.groups))
    assert group.min() >= 0 and group.max() < sum(sizes)
    assert len(set(zip(group.tolist(), showing.tolist(), strict=True))) == passes * part.groups
    if kind != "balanced":
        assert np.array_equal(showing, np.repeat(np.arange(passes), part.groups))
        assert len(set(group.tolist())) == part.groups


def test_a_smaller_subset_is_within_a_larger_one_whatever_shuffles_it():
    chosen = [set(Shuffled(used, 50, seed, 0, 9).at(np.arange(used))[0].tolist()) for seed, used in ((0, 5), (1, 20))]
    assert chosen[0] < chosen[1]
    assert chosen[1] == set(Windowed([10] * 5, 4, 2, 20, 9, 2).at(np.arange(20))[0].tolist())
    assert chosen[1] != set(Shuffled(20, 50, 1, 0, 8).at(np.arange(20))[0].tolist())


@pytest.mark.parametrize("used", [30, 12])
def test_balance_shows_every_class_equally_often(used):
    label = np.array([0] * 20 + [3] * 6 + [1] * 4)
    part = Balanced(label, 30 if used == 30 else 12, 1, 0, 3)
    group, showing = part.at(np.arange(36))
    assert Counter(label[group].tolist()) == {0: 12, 1: 12, 3: 12}
    for start in range(0, 36, 3):
        assert len(set(label[group[start : start + 3]].tolist())) == 3
    if used == 12:  # four of each
        assert {number: len(set(group[label[group] == number].tolist())) for number in (0, 1, 3)} == {0: 4, 1: 4, 3: 4}
        assert set(group.tolist()) < set(Balanced(label, 12, 7, 5, 3).at(np.arange(12))[0].tolist()) | set(range(30))
        assert set(group.tolist()) == set(Balanced(label, 12, 7, 5, 3).at(np.arange(12))[0].tolist())
    assert len(set(zip(group.tolist(), showing.tolist(), strict=True))) == 36


def test_a_class_that_has_too_few_is_named():
    with pytest.raises(ValueError, match="class 1 has 4, 5 are asked for"):
        Balanced(np.array([0] * 20 + [1] * 4), 10, 0, 0)


def test_windows_read_few_shards_and_mix_their_groups():
    part = Windowed([100] * 20, 0, 0, window_shards=4)
    group, _ = part.at(np.arange(2000))
    for start in range(0, 2000, 400):
        shards = group[start : start + 400] // 100
        assert len(set(shards.tolist())) == 4
        assert all(20 < (shards[:200] == shard).sum() < 80 for shard in set(shards.tolist()))
    assert set(part.shards(0, 0).tolist()) == set((group[:400] // 100).tolist())


# ------------------------------------------------------------------ mixtures

mixtures = st.lists(
    st.tuples(sizes_of_shards, st.integers(1, 360), kinds, st.integers(1, 4), st.integers(1, 60)),
    min_size=1,
    max_size=3,
)


def order_of(mixture, seed=5):
    return MixtureOrder([(parts_of(*asked[:2], key, *asked[2:4]), asked[4]) for key, asked in enumerate(mixture)], seed)


@quick_and_slow
@given(mixtures, st.integers(1, 2))
def test_an_epoch_shows_of_every_part_exactly_its_number_evenly(mixture, epochs):
    order = order_of(mixture)
    length = order.groups_per_epoch
    stream = order.stretch(0, epochs * length)
    assert length == sum(asked[4] for asked in mixture)
    for number, asked in enumerate(mixture):
        for epoch in range(epochs):
            mine = stream.part[epoch * length : (epoch + 1) * length] == number
            assert mine.sum() == asked[4]
            # any stretch from the start of the epoch has its share, to within one image per part
            fair = np.arange(1, length + 1) * asked[4] / length
            assert np.abs(np.cumsum(mine) - fair).max() <= len(mixture) + 1
        mine = stream.part == number
        shown = list(zip(stream.group[mine].tolist(), stream.showing[mine].tolist(), strict=True))
        assert len(set(shown)) == len(shown)


@quick_and_slow
@given(mixtures, st.integers(0, 200), st.integers(1, 60), st.integers(1, 7))
def test_any_stretch_and_any_world_read_the_same_stream(mixture, start, length, world):
    order = order_of(mixture)
    together = order_of(mixture).stretch(0, start + length)
    slices = [slice_of_rank(length, rank, world) for rank in range(world)]
    assert [place for part in slices for place in part] == list(range(length))
    for part in slices:
        read = order.stretch(start + part.start, start + part.stop)
        for name in ("epoch", "part", "group", "showing"):
            expected = getattr(together, name)[start + part.start : start + part.stop]
            assert np.array_equal(getattr(read, name), expected)


def test_a_small_set_beside_many_shards_is_never_absent():
    order = MixtureOrder([(Windowed([100] * 300, 0, 0), 30_000), (Windowed([100] * 3, 0, 1), 300)], 0)
    places = np.flatnonzero(order.stretch(0, order.groups_per_epoch).part == 1)
    assert len(places) == 300 and np.diff(places).max() <= 102 and places[0] <= 101


def test_epochs_and_seeds_are_shuffled_differently():
    orders = [MixtureOrder([(Shuffled(100, 100, seed, 0), 100)], seed).stretch(0, 200).group for seed in (0, 1)]
    assert not np.array_equal(orders[0][:100], orders[0][100:]) and not np.array_equal(orders[0], orders[1])
    assert orders[0][:100].tolist() != sorted(orders[0][:100].tolist())


def test_a_stream_of_six_hundred_million_is_read_anywhere_at_once():
    order = MixtureOrder(
        [(Shuffled(600_000_000, 600_000_000, 0, 0), 600_000_000), (Shuffled(7, 7, 0, 1), 200_000_000)], 0
    )
    far = order.stretch(29 * 800_000_000 - 3, 29 * 800_000_000 + 3)
    assert far.epoch.tolist() == [28] * 3 + [29] * 3 and far.group.max() < 600_000_000
