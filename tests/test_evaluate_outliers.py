"""Detection of outliers: the numbers are scikit-learn's, and any folder of images is a set of outliers."""

import json

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load
from sklearn.metrics import roc_auc_score, roc_curve
from test_evaluate import DIGITS, ONE_THREAD, _model

from synclones.base.config import load as load_config
from synclones.base.errors import InputError
from synclones.evaluate import predict
from synclones.evaluate.answers.predictions import Predictions
from synclones.evaluate.methods.separation import SCORES, Separation
from synclones.evaluate.run import main
from synclones.evaluate.settings import EvaluateConfig, command_of
from synclones.evaluate.stored.results import read_cells
from synclones.lab.real_digits import write_real_digits


def _sklearn(inside, outside):
    """AUROC, and both rates at the first threshold that 95 % of the positives reach."""
    labels = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    scores = np.r_[inside, outside]
    rates = []
    for y, s in ((labels, scores), (1 - labels, -scores)):
        false, true, _ = roc_curve(y, s, drop_intermediate=False)
        rates.append(false[(true >= 0.95 - 1e-12).argmax()])
    return roc_auc_score(labels, scores), *rates


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 60), st.sampled_from([0, 1, 6]))
def test_areas_and_rates_are_those_of_scikit_learn_ties_and_small_sets_too(seed, n, m, digits):
    rng = np.random.default_rng(seed)
    inside, outside = rng.normal(0.5, 1, n).round(digits), rng.normal(0, 1, m).round(digits)
    assert Separation(inside, outside).measured() == pytest.approx(_sklearn(inside, outside))


def test_a_resample_is_the_number_of_the_images_that_were_drawn():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(1, 1, 40).round(1), rng.normal(0, 1, 30).round(1)
    a, b = rng.integers(0, 4, 40), rng.integers(0, 4, 30)
    drawn = Separation(inside.repeat(a), outside.repeat(b)).measured()
    rates = Separation(inside, outside).rates(a[None].astype(float), b[None].astype(float))
    assert [float(rate[0]) for rate in rates] == pytest.approx(drawn)


def test_resamples_spread_as_other_images_would():
    rng, n, m = np.random.default_rng(0), 300, 200
    other = [Separation(rng.normal(1, 1, n), rng.normal(0, 1, m)).measured()[0] for _ in range(300)]
    resampled = Separation(rng.normal(1, 1, n), rng.normal(0, 1, m)).resampled(300, 0)[:, 0]
    assert resampled.std() == pytest.approx(np.std(other), rel=0.2)


def test_scores_are_their_formulas():
    logits = np.random.default_rng(0).normal(0, 3, (50, 7)).astype(np.float32)
    answered = Predictions(logits, np.zeros(50, np.int64), np.arange(50))
    p = scipy.special.softmax(logits.astype(np.float64), 1)
    expected = {
        **{"max-probability": p.max(1), "entropy": -scipy.special.entr(p).sum(1)},
        **{"energy": scipy.special.logsumexp(logits.astype(np.float64), axis=1), "max-logit": logits.max(1)},
    }
    for name, score in SCORES.items():
        assert np.allclose(score(answered), expected[name]), name


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two models, digits, and folders of images without labels."""
    folder = tmp_path_factory.mktemp("inputs")
    for seed in (0, 1):
        _model(folder / f"m{seed}", DIGITS, seed=seed)
    write_real_digits(folder / "digits", "test")
    rng = np.random.default_rng(0)
    for name, count in (("noise", 30), ("other/noise", 3)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def test_folders_of_images_are_outliers_and_are_looked_at_once(inputs, tmp_path, monkeypatch):
    flags = ["--model", str(inputs / "m0"), str(inputs / "m1"), "--data", str(inputs / "digits"), *ONE_THREAD]
    flags += ["--out", str(tmp_path / "r"), "--epsilons-255", "8"]
    main([*flags, "--outliers", str(inputs / "noise")])
    cells = [cell for cell in read_cells(tmp_path / "r") if cell.settings.get("outliers")]
    assert len(cells) == 2 * 3 and {cell.settings["outliers"] for cell in cells} == {"noise"}
    assert all(cell.ci_low <= cell.value <= cell.ci_high for cell in cells)
    # The number is that of the kept logits.
    first = next(cell for cell in cells if cell.metric == "auroc")
    test_set, others = predict.TestSet(inputs / "digits"), predict.TestSet(inputs / "noise", labelled=False)
    assert len(others) == 30 and len(first.logits) == 2
    kept = [load((tmp_path / "r" / "logits" / f"{key}.safetensors").read_bytes())["logits"] for key in first.logits]
    assert [len(x) for x in kept] == [len(test_set), 30]
    sides = [scipy.special.softmax(x.astype(np.float64), 1).max(1) for x in kept]
    assert first.value == pytest.approx(_sklearn(*sides)[0])
    # Another score is arithmetic on what is kept.
    monkeypatch.setattr(predict, "_predict_batch", None)
    main([*flags, "--outliers", str(inputs / "noise"), "--outlier-scores", "entropy", "energy"])
    assert "AUROC noise, energy" in (tmp_path / "r" / "table.md").read_text()
    parents = json.loads((tmp_path / "r" / "manifest.json").read_text())["parents"]
    assert [parent["path"] for parent in parents if parent["name"] == "outliers"] == [str(inputs / "noise")]


def test_no_attack_can_be_asked_for_and_the_command_says_so():
    config = load_config(
        EvaluateConfig, ["--model", "m", "--data", "my data", "--attacks", "none"], "synclones evaluate"
    )
    assert config.attacks == ()
    assert command_of(config) == "synclones evaluate --model m --data 'my data' --attacks none --out FOLDER"
    with pytest.raises(InputError, match="none fgsm is none and some"):
        load_config(EvaluateConfig, ["--attacks", "none", "fgsm"], "synclones evaluate")


def test_what_is_no_set_and_what_has_the_name_of_another_is_refused_before_anything_is_written(inputs, tmp_path):
    flags = ["--model", str(inputs / "m0"), "--data", str(inputs / "digits"), "--out", str(tmp_path / "r")]
    with pytest.raises(InputError, match="two sets are called 'noise'"):
        main([*flags, "--outliers", str(inputs / "noise"), str(inputs / "other" / "noise")])
    with pytest.raises(InputError, match="nothing"):
        main([*flags, "--outliers", str(inputs / "nothing")])
    with pytest.raises(InputError, match="has one twice"):
        main([*flags, "--outliers", str(inputs / "noise"), str(inputs / "noise")])
    with pytest.raises(InputError, match="is the test set itself"):
        main([*flags, "--outliers", str(inputs / "digits")])
    assert not (tmp_path / "r").exists()


def test_another_set_of_the_same_name_is_not_taken_for_the_one_that_was_measured(inputs, tmp_path):
    flags = ["--model", str(inputs / "m0"), "--data", str(inputs / "digits"), "--out", str(tmp_path / "r"), *ONE_THREAD]
    main([*flags, "--outliers", str(inputs / "noise")])
    before = (tmp_path / "r" / "table.md").read_bytes()
    with pytest.raises(InputError, match="results of another set that is called 'noise'"):
        main([*flags, "--outliers", str(inputs / "other" / "noise")])
    assert (tmp_path / "r" / "table.md").read_bytes() == before
