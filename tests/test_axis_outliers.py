"""Outliers in sets with roles: settings as they were, and score and rate of the papers' code where D4 is followed."""

import numpy as np
import pytest
from answered_sets import by_metric, of_model, value, with_logits
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from synclones.evaluate.axes.outliers import measure
from synclones.evaluate.methods.separation import Separation, entropy, max_probability
from synclones.evaluate.settings import EvaluateConfig


def fpr_at_recall(inside, outside, recall_level=0.95):
    """hendrycks/outlier-exposure's rate, written out: of descending distinct thresholds, from the recall of all on."""
    scores = np.r_[inside, outside]
    is_inside = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    thresholds = np.unique(scores)[::-1]
    tps = np.array([(is_inside * (scores >= t)).sum() for t in thresholds])
    fps = np.array([((1 - is_inside) * (scores >= t)).sum() for t in thresholds])
    last = int(np.searchsorted(tps, tps[-1]))
    recall, fps = (tps / tps[-1])[last::-1], fps[last::-1]
    distance = np.abs(recall - recall_level).round(12)
    return fps[distance.argmin()] / len(outside)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 60), st.sampled_from([0, 1, 6]))
def test_the_rate_at_the_nearest_recall_is_the_papers_code_s_on_either_side(seed, n, m, digits):
    rng = np.random.default_rng(seed)
    inside, outside = rng.normal(0.5, 1, n).round(digits), rng.normal(0, 1, m).round(digits)
    area, id_positive, outlier_positive = Separation(inside, outside, nearest=True).measured()
    assert area == pytest.approx(Separation(inside, outside).measured()[0])
    assert id_positive == pytest.approx(fpr_at_recall(inside, outside))
    assert outlier_positive == pytest.approx(fpr_at_recall(-outside, -inside))


def test_the_nearest_recall_is_another_than_the_first_that_reaches_95_percent():
    # Of 31 images with a class 29 are 93.5 %, 1.5 points below, and 30 are 96.8 %, 1.8 points above. The first that
    # reaches 95 % is that of 30, down to a score of 2, which an outlier shares; that of 29 is nearest, none passes.
    inside, outside = np.arange(31, 0, -1.0), np.array([2.0, 0.5, 0.4])
    assert Separation(inside, outside).measured()[1] == pytest.approx(1 / 3)
    assert Separation(inside, outside, nearest=True).measured()[1] == 0
    # Of thresholds with that recall the lowest counts: an outlier between 3 and 2 passes.
    assert Separation(inside, np.array([2.5, 0.5]), nearest=True).measured()[1] == 0.5


def _sets():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(0, 3, (80, 6)), rng.normal(0, 2, (50, 6))
    reference = with_logits("reference", inside, rng.integers(0, 6, 80), name="val")
    return reference, with_logits("outliers", outside, np.zeros(50), name="noise")


def _measured(deviations=(), **config):
    return by_metric(measure(of_model(*_sets(), deviations=deviations), EvaluateConfig(**config)))


def test_settings_name_the_set_its_hash_and_the_score_as_before():
    (auroc,) = _measured()["auroc"]
    assert auroc.settings == {"outliers": "noise", "outliers_sha256": "hash of noise", "score": "max-probability"}
    assert auroc.more_logits == ("logits of noise, clean",) and len(auroc.terms) == 80 and auroc.deviations == ()
    reference, others = _sets()
    labels, scores = np.r_[np.ones(80), np.zeros(50)], [max_probability(x.clean) for x in (reference, others)]
    assert value(auroc) == pytest.approx(roc_auc_score(labels, np.concatenate(scores)))


def test_under_d4_the_score_is_the_entropy_and_says_so_and_other_scores_stay():
    found = _measured({"D4"}, outlier_scores=("max-probability", "energy"))
    assert [(x.settings["score"], x.deviations) for x in found["auroc"]] == [("entropy", ("D4",)), ("energy", ())]
    reference, others = _sets()
    labels, scores = np.r_[np.ones(80), np.zeros(50)], [entropy(x.clean) for x in (reference, others)]
    assert value(found["auroc"][0]) == pytest.approx(roc_auc_score(labels, np.concatenate(scores)))
    both = _measured({"D4"}, outlier_scores=("max-probability", "entropy"))
    assert [x.settings["score"] for x in both["auroc"]] == ["entropy"], "one number, not the same twice"
    assert [x.settings["score"] for x in _measured({"D4"}, outlier_scores=("energy",))["auroc"]] == ["energy"]
