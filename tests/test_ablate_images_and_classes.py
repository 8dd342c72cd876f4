"""Classes by what growth does to them, and what a set of images is like: closed forms and other programs' values."""

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.metrics.pairwise import cosine_distances

from synclones.ablate.classes import answers_by_class, class_curves, newcombe
from synclones.ablate.image_sets import diversity, macro_f1, mean_distance, recognisability, vendi_score
from synclones.evaluate.intervals import wilson


def counts(*right, of=50):
    """One training: how many of 50 images of each class were right."""
    return np.array([[own, of] for own in right])


def test_a_class_is_named_by_what_growth_does_to_it():
    small, large = counts(49, 10, 4, 40, 20), counts(50, 45, 5, 12, 24)  # 136 of 250 right at the largest size
    kinds = [curve.kind for curve in class_curves([[small], [large]])]
    assert kinds == ["easy", "scaling", "poor", "falling", "cannot be told"]


def test_the_middle_sizes_do_not_decide_and_trainings_are_averaged():
    small, middle, large = counts(10, 32), counts(0, 0), counts(40, 32)
    curves = class_curves([[small, counts(20, 32)], [middle, middle], [large, large]])
    assert curves[0].shares[0].value == pytest.approx(15 / 50)
    assert [curve.kind for curve in curves] == ["scaling", "cannot be told"]


def test_more_trainings_on_the_same_images_do_not_narrow_the_interval_over_images():
    one, three = (class_curves([[counts(20)] * n, [counts(30)] * n])[0].gain for n in (1, 3))
    assert (one.low, one.high) == pytest.approx((three.low, three.high))


def test_a_class_without_images_has_no_curve():
    assert [c.label for c in class_curves([[np.array([[0, 0], [3, 9]])]])] == [1]


def test_right_answers_are_counted_by_label():
    labels, correct = np.array([0, 2, 2, 2]), np.array([True, True, False, True])
    assert answers_by_class(labels, correct, 3).tolist() == [[1, 1], [0, 0], [2, 3]]


def test_newcombes_interval_is_that_of_his_example():
    gain = newcombe(wilson(56, 70), wilson(48, 80))  # his table II, example (a), method 10
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_recognised_are_the_images_that_show_what_was_asked_for():
    answers, asked = np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2])
    share = recognisability(answers, asked)
    assert (share.value, share.low, share.high) == (0.75, wilson(3, 4).low, wilson(3, 4).high)
    assert macro_f1(answers, asked) == pytest.approx(f1_score(asked, answers, average="macro"))


def test_distances_are_those_of_all_pairs():
    rows = np.random.default_rng(0).normal(size=(7, 5))
    pairs = cosine_distances(rows)[np.triu_indices(7, 1)]
    assert mean_distance(rows) == pytest.approx(pairs.mean())


@pytest.mark.parametrize("d", [4, 40])
def test_the_effective_number_counts_altogether_different_images(d):
    different = np.eye(d)[:4]
    assert vendi_score(different) == pytest.approx(4)
    assert vendi_score(np.repeat(different, 3, axis=0)) == pytest.approx(4)
    assert vendi_score(np.ones((6, d))) == pytest.approx(1)
    # Two images with a cosine of 0.6 have eigenvalues of 0.8 and 0.2.
    two = np.array([[1.0, 0.0], [0.6, 0.8]])
    assert vendi_score(two) == pytest.approx(np.exp(-0.8 * np.log(0.8) - 0.2 * np.log(0.2)))


def test_diversity_is_within_classes_and_not_between_them():
    apart = np.repeat(np.eye(2), 5, axis=0)
    labels = np.repeat([0, 1], 5)
    assert diversity(apart, labels).distance == pytest.approx(0)
    assert diversity(apart, labels).effective == pytest.approx(1)
    assert diversity(apart, np.tile([0, 1], 5)).effective > 1.8
    assert diversity(np.eye(3), np.arange(3)) is None
