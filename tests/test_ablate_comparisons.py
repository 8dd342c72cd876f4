"""Spread over seeds and differences of arms: values of other programs, coverage by simulation, and what is no claim."""

import numpy as np
import pytest
from scipy import stats

from synclones.ablate.comparisons import (
    Difference,
    Measured,
    difference,
    pooled_sd,
    seeds_needed,
    spread_of,
    verdict,
)
from synclones.evaluate.bounds.family import holm

THREE = [0.912, 0.925, 0.918]


def measured(values, resampled=None, half=None, images="same"):
    """An arm whose seeds are 0, 1, ..."""
    return Measured(
        by_seed=dict(enumerate(values)),
        resampled={} if resampled is None else dict(enumerate(resampled)),
        half_widths={} if half is None else dict.fromkeys(range(len(values)), half),
        images=images,
    )


def test_the_interval_of_a_mean_is_student_s():
    spread = spread_of(THREE)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(THREE), scale=stats.sem(THREE))
    assert (spread.mean, spread.low, spread.high) == pytest.approx((np.mean(THREE), low, high))
    assert spread.sd == pytest.approx(np.std(THREE, ddof=1))


def test_one_training_has_no_spread_and_no_interval():
    assert spread_of([0.9]) == spread_of([0.9]).__class__(0.9, None, None, None, 1)


def test_with_images_that_do_not_matter_a_difference_is_the_paired_t_test():
    a, b = np.array([0.91, 0.93, 0.92, 0.95]), np.array([0.90, 0.90, 0.91, 0.92])
    same = np.zeros((4, 50))
    own = difference(measured(a, same), measured(b, same))
    other = stats.ttest_rel(a, b)
    interval = other.confidence_interval(0.95)
    assert (own.p, own.low, own.high) == pytest.approx((other.pvalue, interval.low, interval.high))
    assert own.paired and own.seeds == 4


def test_of_one_seed_a_difference_is_sure_of_its_images_alone():
    drawn = np.random.default_rng(0).normal(0, 0.004, (1, 20_000))
    own = difference(measured([0.91], drawn), measured([0.90], np.zeros((1, 20_000))))
    assert own.sd_seeds is None
    assert (own.low, own.high) == pytest.approx((0.01 - 1.96 * 0.004, 0.01 + 1.96 * 0.004), abs=2e-4)


def test_other_images_are_not_paired_and_the_intervals_of_both_count():
    a, b = measured([0.9, 0.9], half=0.0196, images="x"), measured([0.8, 0.8], half=0.0196, images="y")
    own = difference(a, b)
    assert not own.paired
    assert own.se_images == pytest.approx(np.sqrt(2) * 0.01, rel=1e-3)  # two trainings see the same images


def test_without_an_interval_over_images_nothing_is_said():
    assert difference(measured([0.9, 0.8]), measured([0.7, 0.6])) == "no interval over the test images is known"
    assert difference(measured([0.9]), Measured({5: 0.8}, {}, {}, "same")) == "no seed that both were trained with"


def test_where_nothing_varies_nothing_is_told_apart():
    flat = np.zeros((2, 10))
    own = difference(measured([0.9, 0.9], flat), measured([0.8, 0.8], flat))
    assert own.p is None and verdict(own, None) == "cannot be told"


def test_holm_is_that_of_another_program():
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # R: p.adjust(c(.01,.04,.03,.005), "holm")
    assert holm([0.02, None]) == [0.04, None]


def item(low, high, p):
    return Difference((low + high) / 2, low, high, p, 3, 0.01, 0.001, True)


def test_what_may_be_chance_is_never_called_a_difference():
    assert verdict(item(-0.01, 0.02, 0.4), 0.4) == "inside the noise"
    assert verdict(item(0.001, 0.02, 0.04), 0.2) == "may be chance"
    assert verdict(item(0.01, 0.02, 0.001), 0.01) == "differs"


@pytest.mark.parametrize("ratio", [1.0, 2.0, 0.5])
def test_seeds_needed_are_those_that_the_power_of_the_t_test_asks_for(ratio):
    needed = seeds_needed(0.01 / ratio)

    def power(n):  # exactly, by the noncentral t
        limit, shift = stats.t.ppf(0.975, n - 1), ratio * np.sqrt(n)
        return stats.nct.sf(limit, n - 1, shift) + stats.nct.cdf(-limit, n - 1, shift)

    assert power(needed) > 0.77 and power(needed + 1) > 0.8 > power(needed - 2)


def test_no_number_of_seeds_makes_up_for_too_few_images():
    assert seeds_needed(0.005, se_images=0.01) is None
    assert seeds_needed(0.005, se_images=0.003) > seeds_needed(0.005)


def test_spreads_are_pooled_as_variances():
    assert pooled_sd([item(0, 1, 0.5), item(0, 1, 0.5)]) == pytest.approx(0.01)
    assert pooled_sd([]) is None


def simulate(rng, seeds=3, images=300, spread_of_seeds=0.25, resamples=60):
    """Two arms whose trainings answer the same images: images, seeds, and both together decide who is right."""
    hard = rng.normal(0, 1, images)
    offset = rng.normal(0, spread_of_seeds, (2, seeds, 1)) + np.array([0.6, 0.4])[:, None, None]
    right = (hard + offset + rng.normal(0, 0.7, (2, seeds, images)) > 0).astype(np.float64)
    counts = rng.multinomial(images, np.full(images, 1 / images), resamples)
    return right.mean(2), right @ counts.T / images


def test_intervals_hold_the_true_difference_where_resampled_seeds_alone_would_not():
    rng = np.random.default_rng(7)
    total = np.sqrt(1 + 0.25**2 + 0.7**2)
    true = stats.norm.cdf(0.6 / total) - stats.norm.cdf(0.4 / total)
    ours, resampled_seeds = [], []
    for _ in range(120):
        values, drawn = simulate(rng)
        own = difference(measured(values[0], drawn[0]), measured(values[1], drawn[1]))
        ours.append(own.low <= true <= own.high)
        # What is often done: seeds drawn again with replacement, images drawn again within, percentiles of that.
        chosen = rng.integers(0, 3, (drawn.shape[2], 3))
        apart = (drawn[0] - drawn[1]).T
        low, high = np.quantile(np.take_along_axis(apart, chosen, 1).mean(1), (0.025, 0.975))
        resampled_seeds.append(low <= true <= high)
    assert np.mean(ours) > 0.91
    assert np.mean(resampled_seeds) < 0.88
