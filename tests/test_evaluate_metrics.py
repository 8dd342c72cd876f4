"""Metrics against independent computations, intervals against known values, attacks against their definition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synclones.evaluate.answers.predictions import Predictions, probabilities
from synclones.evaluate.axes import calibration
from synclones.evaluate.axes.adversarial import relative_robustness
from synclones.evaluate.axes.calibration import (
    bin_of,
    calibration_gaps,
    ece_if_calibrated,
    ece_of_sums,
    reliability,
)
from synclones.evaluate.bounds.intervals import Interval, basic_interval, resampled_sums, wilson
from synclones.evaluate.methods.attacks import START, fgsm, pgd
from synclones.models.network import Classifier, Preprocessing, create_network

BINS = 20


def expected_calibration_error(confidences, correct, bins=BINS) -> float:
    return float(ece_of_sums(calibration_gaps(confidences, correct, bins).sum(0), len(confidences)))


def bootstrap(terms, statistic, resamples, seed, bounds=(-np.inf, np.inf)) -> Interval | None:
    sums = resampled_sums(terms, resamples, seed)
    return basic_interval(float(statistic(terms.sum(0))), statistic(sums), bounds)


def _predictions(logits, labels) -> Predictions:
    return Predictions(np.asarray(logits, dtype=np.float32), np.asarray(labels), np.arange(len(labels)))


def _slow_ece(confidences, correct, bins) -> float:
    """Guo et al.'s definition, word by word."""
    error = 0.0
    for b in range(bins):
        inside = [i for i, c in enumerate(confidences) if b / bins < c <= (b + 1) / bins]
        if inside:
            accuracy = sum(bool(correct[i]) for i in inside) / len(inside)
            mean = sum(confidences[i] for i in inside) / len(inside)
            error += len(inside) / len(confidences) * abs(accuracy - mean)
    return error


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 10**6))
def test_ece_is_its_definition(n, bins, seed):
    rng = np.random.default_rng(seed)
    confidences, correct = rng.random(n) * 0.999 + 1e-4, rng.random(n) < 0.6
    found = expected_calibration_error(confidences, correct, bins)
    assert found == pytest.approx(_slow_ece(confidences, correct, bins), abs=1e-12)


def test_known_calibration_errors():
    sure = np.ones(4)
    assert expected_calibration_error(sure, np.array([1, 1, 1, 0])) == pytest.approx(0.25)
    # a confidence of exactly 1 is in the last bin, with .95: |.5 - .975| (netcal and Guo agree, torchmetrics says .525)
    assert expected_calibration_error(np.array([0.95, 1.0]), np.array([1, 0]), 10) == pytest.approx(0.475)
    assert bin_of(np.array([0.0, 0.05, 0.0500001, 1.0]), 20).tolist() == [0, 0, 1, 19]


def test_reliability_adds_up_to_the_error():
    rng = np.random.default_rng(0)
    confidences, correct = rng.random(500), rng.random(500) < 0.5
    found = reliability(confidences, correct, BINS)
    by_bins = (found.count * np.abs(found.accuracy - found.confidence)).sum() / 500
    assert by_bins == pytest.approx(expected_calibration_error(confidences, correct))
    assert found.count.sum() == 500


def test_probabilities_are_those_of_torch_in_double_precision_and_do_not_overflow():
    logits = np.random.default_rng(0).normal(0, 5, (50, 7)).astype(np.float32)
    assert np.allclose(probabilities(logits), torch.softmax(torch.from_numpy(logits).double(), 1).numpy(), atol=1e-15)
    assert np.allclose(_predictions([[1e30, 0.0]], [0]).confidence, 1)
    assert _predictions([[1.0, 1.0], [0.0, 2.0]], [1, 1]).correct.tolist() == [False, True]


def test_softmax_and_correctness_are_computed_once(monkeypatch):
    import synclones.evaluate.answers.predictions as module

    softmax, calls = module.confidences, []
    monkeypatch.setattr(module, "confidences", lambda logits: calls.append(1) or softmax(logits))
    predictions = _predictions(np.eye(3), np.arange(3))
    for _ in range(3):
        assert predictions.correct.all() and len(predictions.confidence) == 3
    assert calls == [1]


def test_relative_robustness_is_undefined_without_clean_accuracy():
    assert relative_robustness(np.array([[10.0, 5.0], [0.0, 3.0]]))[0] == 0.5
    assert bootstrap(np.zeros((20, 2)), relative_robustness, 200, 0) is None


def test_wilson_intervals_are_the_published_ones():
    # R: binom::binom.wilson(81, 263), (0, 20), (20, 20)
    found = wilson(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    assert (wilson(0, 20).low, round(wilson(0, 20).high, 4)) == (0.0, 0.1611)
    assert (round(wilson(20, 20).low, 4), wilson(20, 20).high) == (0.8389, 1.0)


def test_resampled_sums_are_sums_over_drawn_images_and_the_same_for_every_model():
    terms = np.random.default_rng(0).random((40, 3))
    sums = resampled_sums(terms, 300, 5)
    assert sums.shape == (300, 3) and np.allclose(sums.mean(0), terms.sum(0), rtol=0.05)
    assert np.allclose(resampled_sums(terms[:, :1], 300, 5)[:, 0], sums[:, 0], rtol=0)
    shuffled = np.random.default_rng(1).permutation(40)
    counts = np.random.default_rng(2).integers(0, 5, 40).astype(float)
    exact = np.round(terms * 2**30) / 2**30
    assert np.array_equal(counts @ exact, counts[shuffled] @ exact[shuffled]), "no sum may depend on its order"
    assert np.allclose(resampled_sums(np.ones((40, 1)), 10, 1), 40)


def test_bootstrap_intervals_hold_the_truth_about_as_often_as_they_say():
    def coverage(p: float, n: int) -> float:
        rng, hits = np.random.default_rng(1), 0
        for trial in range(200):
            terms = (rng.random((n, 1)) < p).astype(float)
            found = bootstrap(terms, lambda sums: sums[..., 0] / n, 400, trial)
            hits += found.low <= p <= found.high
        return hits / 200

    assert 0.89 <= coverage(0.7, 300) <= 0.99


def test_an_interval_holds_its_value_even_for_a_biased_statistic():
    rng = np.random.default_rng(2)
    for _ in range(20):
        sure = rng.uniform(0.5, 1, 150)
        terms = calibration_gaps(sure, rng.random(150) < sure, 20)
        found = bootstrap(terms, lambda sums: ece_of_sums(sums, 150), 300, 0, (0, 1))
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_a_difference_of_a_model_with_itself_is_inside_the_noise_and_a_large_one_is_not():
    rng = np.random.default_rng(3)
    a, b = (rng.random(400) < 0.8).astype(float), (rng.random(400) < 0.6).astype(float)

    def difference(x, y):
        return bootstrap(np.stack([x, y], 1), lambda s: (s[..., 0] - s[..., 1]) / 400, 500, 0)

    assert difference(a, a).inside_noise and difference(a, a).value == 0
    assert not difference(a, b).inside_noise and difference(a, b).low > 0


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    shape = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
    network = create_network("vit_tiny_patch16_224", 10, 32, shape)
    return Classifier(network, Preprocessing(size_px=32), tuple("0123456789")).eval().requires_grad_(False)


def test_fgsm_moves_every_pixel_by_epsilon_against_the_label(classifier):
    pixels, labels = torch.rand(6, 3, 32, 32) * 0.8 + 0.1, torch.arange(6)
    attacked = fgsm(classifier, pixels, labels, 4 / 255)
    moved = (attacked - pixels).abs()
    assert torch.allclose(moved, torch.full_like(moved, 4 / 255), atol=1e-6)
    loss = [torch.nn.functional.cross_entropy(classifier(x), labels) for x in (pixels, attacked)]
    assert loss[1] > loss[0]
    edge = fgsm(classifier, torch.zeros(2, 3, 32, 32), labels[:2], 0.5)
    assert edge.min() >= 0 and edge.max() <= 1


def test_fgsm_of_an_image_does_not_depend_on_its_batch(classifier):
    pixels, labels = torch.rand(5, 3, 32, 32), torch.arange(5)
    whole = fgsm(classifier, pixels, labels, 2 / 255)
    for i in range(5):
        alone = fgsm(classifier, pixels[i : i + 1], labels[i : i + 1], 2 / 255)
        assert ((alone[0] - whole[i]).abs() > 1e-6).float().mean() < 0.01  # a sign of a gradient near 0 may flip


def test_fgsm_is_the_sign_of_the_gradient(classifier):
    pixels, labels = (torch.rand(3, 3, 32, 32) * 0.8 + 0.1).requires_grad_(True), torch.arange(3)
    torch.nn.functional.cross_entropy(classifier(pixels), labels, reduction="sum").backward()
    expected = pixels.detach() + pixels.grad.sign() / 255
    assert torch.equal(fgsm(classifier, pixels.detach(), labels, 1 / 255), expected.clamp(0, 1))


def test_normalised_input_is_refused(classifier):
    with pytest.raises(ValueError, match=r"pixels from -2 to .* expected 0..1"):
        fgsm(classifier, torch.full((1, 3, 32, 32), -2.0), torch.zeros(1, dtype=torch.long), 1 / 255)


# ------------------------------------------------------------------ what a calibrated model would show


def test_a_calibrated_model_shows_the_error_that_is_expected_of_it():
    """Over sets whose labels are drawn from the probabilities, the mean measured error is the stated one."""
    rng = np.random.default_rng(0)
    for sharpness in (1.0, 8.0):
        confidences = rng.beta(sharpness, 1, 300)
        expected = ece_if_calibrated(confidences, BINS)
        measured = [expected_calibration_error(confidences, rng.random(300) < confidences) for _ in range(400)]
        assert expected == pytest.approx(np.mean(measured), rel=0.03) and expected > 0.01
        assert ece_if_calibrated(confidences, BINS) == expected, "the same confidences give the same number"


def test_the_expected_error_falls_with_more_images_and_is_none_for_certainty():
    rng = np.random.default_rng(1)
    few, many = (ece_if_calibrated(rng.beta(2, 1, n), BINS) for n in (100, 10_000))
    assert 5 < few / many < 15, "as one over the root of the images"
    assert ece_if_calibrated(np.ones(50), BINS) == 0


def test_the_expected_error_does_not_depend_on_chunks(monkeypatch):
    confidences = np.random.default_rng(2).random(50)
    whole = ece_if_calibrated(confidences, BINS)
    monkeypatch.setattr(calibration, "CHUNK_NUMBERS", 50 * 7)
    assert ece_if_calibrated(confidences, BINS) == whole


def _settings(epsilon_255=8.0, steps=5, seed=0):
    return {"epsilon": epsilon_255 / 255, "steps": steps, "step": epsilon_255 / 4 / 255, "seed": seed}


def _answered(classifier, n, seed=0):
    """Return pixels that the classifier answers rightly by definition, and their numbers."""
    pixels = torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 0.9 + 0.05
    return pixels, classifier(pixels).argmax(1), np.arange(n) + 100


def test_pgd_is_its_definition_an_image_at_a_time(classifier):
    """Madry's steps written out for each image, ended when the answer is wrong."""
    pixels, labels, index = _answered(classifier, 6)
    s = _settings()
    attacked = pgd(classifier, pixels, labels, index, **s)
    for i in range(6):
        clean, label = pixels[i : i + 1], labels[i : i + 1]
        draw = np.random.default_rng([0, START, 100 + i]).random((3, 32, 32), dtype=np.float32)
        x = (clean + s["epsilon"] * (2 * torch.from_numpy(draw) - 1)).clamp(0, 1)
        for _ in range(s["steps"]):
            if classifier(x).argmax(1) != label:
                break
            x.requires_grad_(True)
            torch.nn.functional.cross_entropy(classifier(x), label).backward()
            x = x.detach() + s["step"] * x.grad.sign()
            x = torch.maximum(torch.minimum(x, clean + s["epsilon"]), clean - s["epsilon"]).clamp(0, 1)
        assert ((attacked[i] - x[0]).abs() > 1e-5).float().mean() < 0.02  # a sign of a gradient near 0 may flip


def test_pgd_stays_in_the_box_and_hurts_more_than_one_step(classifier):
    pixels, labels, index = _answered(classifier, 64)
    attacked = pgd(classifier, pixels, labels, index, **_settings(8.0, 20))
    assert (attacked - pixels).abs().max() <= 8 / 255 + 1e-6 and attacked.min() >= 0 and attacked.max() <= 1
    logits = classifier(attacked)
    right = logits.argmax(1) == labels
    assert 0 < right.sum() < 64
    # What is answered rightly after all steps was searched to the end: a larger loss than one step found.
    one_step = classifier(fgsm(classifier, pixels, labels, 8 / 255))
    loss = [torch.nn.functional.cross_entropy(x, labels, reduction="none") for x in (one_step, logits)]
    assert (loss[1] >= loss[0] - 1e-4)[right].float().mean() > 0.9


def test_pgd_leaves_what_is_answered_wrongly_and_what_may_not_change(classifier):
    pixels, labels, index = _answered(classifier, 4)
    wrong = (labels + 1) % 10
    assert torch.equal(pgd(classifier, pixels, wrong, index, **_settings()), pixels)
    assert torch.equal(pgd(classifier, pixels, labels, index, **_settings(0.0)), pixels)


def test_pgd_begins_for_each_image_where_its_number_and_the_seed_say(classifier):
    pixels, labels, index = _answered(classifier, 5)
    whole = pgd(classifier, pixels, labels, index, **_settings(1.0, 3))
    for i in (0, 3):
        alone = pgd(classifier, pixels[i : i + 1], labels[i : i + 1], index[i : i + 1], **_settings(1.0, 3))
        assert ((alone[0] - whole[i]).abs() > 1e-6).float().mean() < 0.02
    other = pgd(classifier, pixels, labels, index, **_settings(1.0, 1, seed=1))
    assert not torch.allclose(other, pgd(classifier, pixels, labels, index, **_settings(1.0, 1)))
