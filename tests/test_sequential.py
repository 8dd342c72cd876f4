"""Bounds that hold at every look, and subsets by hashed names."""

from itertools import accumulate

import numpy as np
import pytest

from synclones.evaluate.bounds.intervals import wilson
from synclones.evaluate.bounds.sequential import difference_bounds, look_schedule, share_bounds
from synclones.evaluate.subsets.choice import Order
from synclones.evaluate.subsets.subset import KEY, hashed_order

IMAGES, HALF_WIDTH, ORDERS = 600, 0.04, 120
EVERY_IMAGE = np.arange(1, IMAGES + 1, 3)
# Of 120 orders, 5 % are 6: more than 13 come by chance less than once in 200 runs of a method that is exactly right.
MOST_FAILURES = 13


def population(first: float, second: float = 0.0) -> np.ndarray:
    """1 for the first share of the images, -1 for the second, 0 for the others."""
    counts = [round(first * IMAGES), round(second * IMAGES)]
    return np.repeat([1, -1, 0], [*counts, IMAGES - sum(counts)])


def failures(bounds, values: np.ndarray) -> int:
    """In how many orders of the images some bound does not hold the mean of all of them."""
    failed = 0
    for seed in range(ORDERS):
        item = bounds(np.random.default_rng(seed).permutation(values), IMAGES, HALF_WIDTH, EVERY_IMAGE)
        failed += not ((item.low <= values.mean() + 1e-9) & (item.high >= values.mean() - 1e-9)).all()
    return failed


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.8, 0.98])
def test_bounds_of_a_share_hold_at_all_looks_together(share):
    assert failures(share_bounds, population(share)) <= MOST_FAILURES


@pytest.mark.parametrize("shares", [(0.02, 0.02), (0.1, 0.05), (0.05, 0.3), (0.8, 0.1), (0.0, 0.05)])
def test_bounds_of_a_difference_hold_at_all_looks_together(shares):
    assert failures(difference_bounds, population(*shares)) <= MOST_FAILURES


def test_an_interval_for_one_look_does_not_hold_at_all_of_them():
    # What the bounds are for: looking again and again, one of Wilson's intervals fails in many orders.
    values, failed = population(0.5), 0
    for seed in range(ORDERS):
        right = np.cumsum(np.random.default_rng(seed).permutation(values))
        intervals = [wilson(int(right[n - 1]), int(n)) for n in EVERY_IMAGE]
        failed += not all(interval.low <= 0.5 <= interval.high for interval in intervals)
    assert failed > 2 * MOST_FAILURES


def test_bounds_of_shares_are_those_of_the_ratios_by_their_definition():
    # Every number of right answers tried one by one, its chances multiplied image by image.
    images, order = 40, np.random.default_rng(0).permutation(np.arange(40) < 13)
    moves, weights = [4, 8, 16], [0.9, 0.05, 0.05]  # 0.1 of 40, its doubles below a half

    def chance(total, seen):
        right, product = 0, 1.0
        for number, correct in enumerate(order[:seen]):
            of_right = (total - right) / (images - number)
            product *= of_right if correct else 1 - of_right
            right += correct
        return max(product, 0.0)

    for seen in (5, 17, 39, 40):
        kept = []
        for total in range(images + 1):
            least = chance(total, seen)
            if least <= 0:
                continue
            up, down = (
                sum(
                    weight * chance(min(max(total + sign * move, 0), images), seen) / least
                    for move, weight in zip(moves, weights, strict=True)
                )
                for sign in (1, -1)
            )
            if max(up, down) < 2 / 0.05:
                kept.append(total)
        bounds = share_bounds(order[:seen], images, 0.1, np.array([seen]))
        assert (round(bounds.low[0] * images), round(bounds.high[0] * images)) == (kept[0], kept[-1])
        assert kept == list(range(kept[0], kept[-1] + 1))


@pytest.mark.parametrize("bounds, values", [(share_bounds, population(0.3)), (difference_bounds, population(0.1, 0.2))])
def test_nothing_is_unsure_once_every_image_was_seen(bounds, values):
    order = np.random.default_rng(1).permutation(values)
    last = bounds(order, IMAGES, HALF_WIDTH)[-1]
    assert last.low == last.value == last.high == pytest.approx(values.mean())
    # One image before, what is left of the uncertainty is that image.
    before = bounds(order, IMAGES, HALF_WIDTH, np.array([IMAGES - 1]))[0]
    assert 0 < before.high - before.low <= 2 / IMAGES + 1e-12


def test_what_one_point_costs_is_less_than_twice_a_fixed_number_at_middle_accuracies():
    rng = np.random.default_rng(0)
    needed = {share: share_bounds(rng.random(50_000) < share, 50_000, 0.01).narrow(0.01) for share in (0.5, 0.8, 0.95)}
    assert needed[0.5] < 15_000 and needed[0.8] < 11_000 and needed[0.95] < 4_500
    assert all(seen % 256 == 0 for seen in needed.values())


def test_a_clear_difference_is_decided_early_and_equal_models_never_are():
    rng = np.random.default_rng(0)
    clear = difference_bounds(rng.permutation(np.repeat([1, -1, 0], [9000, 3000, 38_000])), 50_000, 0.01)
    assert clear.decided() <= 1024 and clear.narrow(0.01) > clear.decided()
    equal = difference_bounds(rng.permutation(np.repeat([1, -1, 0], [3000, 3000, 44_000])), 50_000, 0.01)
    assert equal.decided() is None and equal.narrow(0.01) < 50_000


def test_swapping_two_models_turns_the_bounds_round():
    values = np.random.default_rng(0).permutation(population(0.1, 0.3))
    one, other = (difference_bounds(sign * values, IMAGES, HALF_WIDTH) for sign in (1, -1))
    np.testing.assert_allclose(one.low, -other.high, atol=1e-12)
    right = share_bounds(values == 1, IMAGES, HALF_WIDTH)
    wrong = share_bounds(values != 1, IMAGES, HALF_WIDTH)
    np.testing.assert_allclose(right.low, 1 - wrong.high, atol=1e-12)


@pytest.mark.parametrize("bounds", [share_bounds, difference_bounds])
@pytest.mark.parametrize("sizes", [(256,) * 3, (100, 156, 256, 200, 56)])
def test_images_in_batches_have_the_bounds_of_all_at_once(bounds, sizes):
    values, ends = np.random.default_rng(0).permutation(np.repeat([1, 0], [500, 268])), list(accumulate(sizes))
    at_once = bounds(values, 2000, 0.02, np.array(ends))
    for number, end in enumerate(ends):
        assert bounds(values[:end], 2000, 0.02, np.array([end]))[0] == at_once[number]
    every = np.append(values, np.ones(1232))
    last = bounds(every, 2000, 0.02, np.array([768, 2000]))
    assert last.narrow(0.02) == 2000 and last[1].low == last[1].high


def test_one_looks_after_every_batch_and_after_the_last_image():
    assert look_schedule(600).tolist() == [256, 512, 600]
    assert look_schedule(512).tolist() == [256, 512] and look_schedule(3).tolist() == [3]


# ------------------------------------------------------------------ subsets


def fixed_order(names, key=KEY):
    return hashed_order(names, key)[0]


def fixed_subset(names, n):
    return Order(*hashed_order(names)).first(n)


NAMES = [f"n{folder:08d}/image_{number:03d}.JPEG" for folder in range(20) for number in range(40)]


def test_a_subset_is_the_same_images_in_any_order_and_holds_every_smaller_one():
    chosen = {NAMES[position] for position in fixed_subset(NAMES, 100)}
    shuffled = [NAMES[position] for position in np.random.default_rng(0).permutation(len(NAMES))]
    assert {shuffled[position] for position in fixed_subset(shuffled, 100)} == chosen
    assert {NAMES[position] for position in fixed_subset(NAMES, 40)} < chosen
    assert fixed_subset(NAMES, 100).tolist() == sorted(fixed_subset(NAMES, 100).tolist())
    assert len(fixed_subset(NAMES, 10**6)) == len(NAMES)
    assert [shuffled[position] for position in fixed_order(shuffled)] == [NAMES[p] for p in fixed_order(NAMES)]


def test_a_subset_of_some_images_are_those_of_the_whole_that_are_there():
    # A set that lacks images (a part of a corrupted set) is paired in all that it has.
    chosen = {NAMES[position] for position in fixed_subset(NAMES, 200)}
    some = NAMES[::3]
    assert chosen & set(some) <= {some[position] for position in fixed_subset(some, 200)}


def test_copies_in_another_format_are_the_same_images():
    png = [name.replace(".JPEG", ".png") for name in NAMES]
    assert fixed_subset(NAMES, 50).tolist() == fixed_subset(png, 50).tolist()
    assert sorted(fixed_order(["a/1.jpg", "a/1.png"])) == [0, 1]
    assert fixed_order(["a/1.jpg", "a/1.png"]).tolist() == fixed_order(["a/1.png", "a/1.jpg"])[::-1].tolist()


def test_images_of_one_name_in_several_folders_are_chosen_apart():
    # Chosen by name alone, a subset would hold all twenty images of a name or none.
    chosen = [NAMES[position] for position in fixed_subset(NAMES, 100)]
    per_name = np.unique([name.split("/")[1] for name in chosen], return_counts=True)[1]
    assert per_name.max() < 12 and len(per_name) > 30


def test_the_subset_of_these_names_never_changes():
    # Results of subsets are comparable between versions only if the key and what is hashed stay.
    assert [NAMES[position] for position in fixed_order(NAMES)[:3]] == PINNED
    assert fixed_subset([], 3).tolist() == []
    assert fixed_order(NAMES, "another")[:3].tolist() != fixed_order(NAMES)[:3].tolist()


PINNED = ["n00000019/image_005.JPEG", "n00000010/image_023.JPEG", "n00000014/image_003.JPEG"]
