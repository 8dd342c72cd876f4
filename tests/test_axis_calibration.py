"""Calibration on sets with roles, and its other forms: edges, bins and classes by hand, resamples by drawn images."""

from pathlib import Path

import numpy as np
import pytest
import scipy.special
from answered_sets import by_metric, of_model, value, with_logits
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from synclones.evaluate.answers.softmax import confidences, entropies
from synclones.evaluate.axes import calibration
from synclones.evaluate.axes.calibration import calibration_gaps, ece_of_sums, error_if_calibrated, measure
from synclones.evaluate.bounds.intervals import resampled_counts
from synclones.evaluate.methods.calibration_errors import (
    ClassWise,
    EqualMass,
    brier_scores,
    equal_mass_bins,
    equal_mass_edges,
    likelihoods,
)
from synclones.evaluate.settings import EvaluateConfig

ALL = ("adaptive", "class-wise", "nll", "brier")


def _logits(n, classes=7, seed=0, spread=3.0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, spread, (n, classes)).astype(np.float32), rng.integers(0, classes, n)


def _slow_equal_mass(values, correct, bins):
    """The authors' loops over bins (lower, upper], and the images of the lowest confidence in the first."""
    edges, error = equal_mass_edges(np.sort(values), bins), 0.0
    for number, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        inside = (values > low) & (values <= high) | ((number == 0) & (values == edges[0]))
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - values[inside].mean())
    return error


def test_edges_of_equal_mass_are_those_of_a_count_by_hand():
    # Five values, two bins: the edge is at position 2.5, halfway between the third and the fourth.
    assert equal_mass_edges(np.array([0.1, 0.2, 0.3, 0.5, 0.9]), 2).tolist() == pytest.approx([0.1, 0.4, 0.9])
    # Six values, three bins: positions 0, 2, 4 and the end.
    assert equal_mass_edges(np.arange(6) / 10, 3).tolist() == pytest.approx([0, 0.2, 0.4, 0.5])
    # Of these the edge is the value at position 2, the third; a value on an edge is in the lower bin.
    assert equal_mass_bins(np.array([0.9, 0.1, 0.4, 0.41]), 2).tolist() == [1, 0, 0, 0]
    # Four images, two bins, edges .6, .8, 1: .6, .7, .8 in the first: |2/3 - .7| 3/4 + |0 - 1| 1/4.
    error = EqualMass(np.array([0.6, 0.7, 0.8, 1.0]), np.array([1, 0, 1, 0]), 2).measured()
    assert error == pytest.approx(abs(2 / 3 - 0.7) * 0.75 + 0.25)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(1, 12), st.integers(0, 10**6), st.sampled_from([2, 12]))
def test_the_error_over_bins_of_equal_mass_is_its_definition_ties_and_few_images_too(n, bins, seed, digits):
    rng = np.random.default_rng(seed)
    sure, correct = rng.random(n).round(digits), rng.random(n) < 0.5
    assert EqualMass(sure, correct, bins).measured() == pytest.approx(_slow_equal_mass(sure, correct, bins), abs=1e-8)


def test_a_resample_s_bins_are_those_of_the_drawn_images():
    rng = np.random.default_rng(0)
    sure, correct = rng.random(60).round(2), rng.random(60) < 0.6
    resampled = EqualMass(sure, correct, 5).resampled(20, 3)
    for counts, error in zip(np.concatenate(list(resampled_counts(60, 20, 3))).astype(int), resampled, strict=True):
        assert error == pytest.approx(_slow_equal_mass(sure.repeat(counts), correct.repeat(counts), 5), abs=1e-8)


def _slow_class_wise(logits, labels, bins):
    p = scipy.special.softmax(logits.astype(np.float64), 1)
    errors = []
    for number in range(p.shape[1]):
        error = 0.0
        for b in range(bins):
            inside = (p[:, number] > b / bins) & (p[:, number] <= (b + 1) / bins)
            if inside.any():
                error += inside.mean() * abs((labels[inside] == number).mean() - p[inside, number].mean())
        errors.append(error)
    return np.mean(errors)


def test_the_class_wise_error_is_its_definition_on_the_images_and_on_resamples():
    logits, labels = _logits(50, classes=150)  # more classes than one block has
    error = ClassWise(logits, labels, 10)
    assert error.measured() == pytest.approx(_slow_class_wise(logits, labels, 10), abs=1e-8)
    for counts, one in zip(
        np.concatenate(list(resampled_counts(50, 5, 1))).astype(int), error.resampled(5, 1), strict=True
    ):
        drawn = _slow_class_wise(logits.repeat(counts, 0), labels.repeat(counts), 10)
        assert one == pytest.approx(drawn, abs=1e-8)


def test_a_class_wise_error_by_hand():
    # Two classes, p of the first .8 .8 .2; it is the label of the first and the last. Two bins.
    # First class: |.2 - 1| / 3 + |.8 - .5| 2/3; the second is its mirror.
    logits = np.log(np.array([[0.8, 0.2], [0.8, 0.2], [0.2, 0.8]])).astype(np.float32)
    assert ClassWise(logits, np.array([0, 1, 0]), 2).measured() == pytest.approx(0.8 / 3 + 0.2, abs=1e-7)


def test_likelihood_and_brier_score_are_those_of_scikit_learn_and_of_their_formula():
    logits, labels = _logits(400)
    p = scipy.special.softmax(logits.astype(np.float64), 1)
    assert likelihoods(logits, labels).mean() == pytest.approx(log_loss(labels, p, labels=range(7)), abs=1e-9)
    assert brier_scores(logits, labels) == pytest.approx(((p - np.eye(7)[labels]) ** 2).sum(1))
    assert likelihoods(np.array([[0.0, 1000.0]], np.float32), np.array([0]))[0] == 1000


def test_probabilities_in_blocks_have_the_bits_of_all_at_once():
    logits, _ = _logits(300, classes=1000)
    exponentials = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    p = exponentials / exponentials.sum(1, keepdims=True)
    assert np.array_equal(confidences(logits), p.max(1))
    assert np.array_equal(entropies(logits), -(p * np.log(np.maximum(p, np.finfo(np.float64).tiny))).sum(1))


def test_errors_are_those_of_netcal_and_torchmetrics():
    """Of the same logits (``make oracles``); torchmetrics computes in single precision."""
    fixture = np.load(Path(__file__).parent / "oracles" / "calibration.npz")
    logits, labels = fixture["logits"], fixture["labels"]
    sure, correct = confidences(logits), logits.argmax(1) == labels
    for bins, netcal, by_class, other in zip(
        *(fixture[name] for name in ("bins", "netcal", "netcal_classwise", "torchmetrics")), strict=True
    ):
        error = float(ece_of_sums(calibration_gaps(sure, correct, bins).sum(0), len(labels)))
        assert error == pytest.approx(netcal, abs=1e-9) and error == pytest.approx(other, abs=1e-6)
        assert ClassWise(logits, labels, int(bins)).measured() == pytest.approx(by_class, abs=1e-8)


# ------------------------------------------------------------------ as measurements


def _measured(*sets, classes=None, **config):
    model = of_model(*sets, **({"classes": classes} if classes else {}))
    return by_metric(measure(model, EvaluateConfig(**config)))


def test_a_single_folder_s_error_keeps_its_settings_and_other_forms_are_measured_where_they_are_asked_for():
    item = with_logits("reference", *_logits(80), name="val")
    alone = _measured(item, classes="abcdefg")
    assert list(alone) == ["ece"] and alone["ece"][0].settings == {"bins": 20}
    found = _measured(item, classes="abcdefg", calibration=ALL, ece_bins=10)
    assert list(found) == ["ece", "ece_adaptive", "ece_classwise", "nll", "brier"]
    assert found["ece_adaptive"][0].settings == {"bins": 10} and found["nll"][0].settings == {}
    assert value(found["ece_adaptive"][0]) == EqualMass(item.clean.confidence, item.clean.correct, 10).measured()
    assert found["nll"][0].metric.printed(1.2345) == "1.234" and found["nll"][0].metric.unit_short == "nats"
    assert found["ece"][0].metric.printed(0.0345) == "3.5"


def test_of_a_shifted_set_of_fewer_classes_the_settings_say_how_many():
    reference = with_logits("reference", *_logits(60, classes=10), name="val")
    some = with_logits("shifted", *_logits(40, classes=4), name="R", class_ids="abcd")
    all_classes = with_logits("shifted", *_logits(50, classes=10), name="V2")
    errors = _measured(reference, some, all_classes)["ece"]
    assert [(x.on.of.name, x.settings) for x in errors] == [
        ("val", {"bins": 20}),
        ("R", {"bins": 20, "classes": 4}),
        ("V2", {"bins": 20}),
    ]


def test_what_a_calibrated_model_would_show_over_bins_of_equal_mass_is_the_mean_of_simulated_labels():
    rng = np.random.default_rng(0)
    sure = rng.beta(4, 1, 200)
    stated = error_if_calibrated(sure, equal_mass_bins(sure, 10), 10)
    simulated = [EqualMass(sure, rng.random(200) < sure, 10).measured() for _ in range(400)]
    assert stated == pytest.approx(np.mean(simulated), rel=0.04) and stated > 0.01


def test_every_form_has_a_builder():
    assert set(ALL) == set(calibration._OTHERS)
