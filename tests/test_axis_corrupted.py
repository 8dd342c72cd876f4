"""Corrupted accuracy: means and ratios by hand, running means as published, pairing with the clean images, rises."""

import numpy as np
import pytest
from answered_sets import answered, by_metric, of_model, value

from synclones.evaluate.audit.running_mean import running_means, undone
from synclones.evaluate.axes.corrupted import PAPERS_ORDER, measure
from synclones.evaluate.corruptions.constants import ALEXNET_ERRORS, IMAGENET_C, TEST, VALIDATION
from synclones.evaluate.methods.shares import Shares, same_images
from synclones.evaluate.published.tables import read_csv
from synclones.evaluate.settings import EvaluateConfig

N = 100


def _right(count, n=N):
    return np.where(np.arange(n) < count, 0, 1)


def _part(corruption, severity, right, *, name="C", n=N, **more):
    settings = {"corruption": corruption, "severity": severity}
    part = f"{corruption}/{severity}"
    return answered("corrupted", np.zeros(n), _right(right, n), name=name, part=part, settings=settings, **more)


def _clean(right=80, n=N, **more):
    return answered("reference", np.zeros(n), _right(right, n), name="val", **more)


def _measured(*sets, deviations=()):
    return by_metric(measure(of_model(*sets, deviations=deviations), EvaluateConfig()))


def _of(items, **wanted):
    return next(x for x in items if all(x.settings.get(key) == value for key, value in wanted.items()))


def test_accuracies_are_means_over_severities_then_corruptions_and_the_ratio_is_to_clean_accuracy():
    parts = [_part("fog", 1, 60), _part("fog", 2, 40), _part("snow", 1, 20)]
    found = _measured(_clean(), *parts)
    assert value(_of(found["accuracy_corruption"], corruption="fog")) == pytest.approx(0.5)
    (mean,) = found["accuracy_corrupted"]
    assert value(mean) == pytest.approx((0.5 + 0.2) / 2), "of corruptions, not of sets"
    assert mean.n == 300 and mean.settings["corruptions"] == 2 and mean.on.of.role == "reference"
    assert value(found["mce_unnormalised"][0]) == pytest.approx(0.65)
    assert value(found["r_cc"][0]) == pytest.approx(0.35 / 0.8)
    cells = found["accuracy_corruption_severity"]
    assert [value(x) for x in cells] == [0.2, 0.6, 0.4] and not cells[0].metric.tabled
    assert [x.on.of.part for x in cells] == ["snow/1", "fog/1", "fog/2"], "the papers' corruptions first"


def test_two_sets_are_measured_each_and_together_over_all_their_corruptions():
    one = [_part("fog", 1, 60), _part("snow", 1, 20)]
    two = [_part("flash", 1, 40, name="3DCC"), _part("fog", 1, 0, name="3DCC"), _part("iso", 1, 30, name="3DCC")]
    found = _measured(_clean(), *one, *two)
    by_set = {x.settings["set"]: value(x) for x in found["r_cc"]}
    assert by_set == pytest.approx({"C": 0.4 / 0.8, "3DCC": 0.7 / 3 / 0.8, "C and 3DCC": 0.3 / 0.8})
    assert len({x.settings["set_sha256"] for x in found["r_cc"]}) == 3


def test_a_set_of_other_classes_has_accuracies_and_no_ratio():
    """LAION-C's sixteen classes are groups of the model's: their accuracy is no share of that of a thousand."""
    found = _measured(_clean(), _part("stickers", 1, 50, class_ids="ab", decision="mean", name="LAION-C"))
    assert "r_cc" not in found and value(found["accuracy_corrupted"][0]) == 0.5
    both = _measured(_clean(), _part("fog", 1, 40), _part("mosaic", 1, 50, class_ids="ab", name="LAION-C"))
    assert [x.settings["set"] for x in both["r_cc"]] == ["C"]


def _imagenet_c(right_of, corruptions=TEST, severities=range(1, 6), classes=1000, n=10_000):
    """The parts of ImageNet-C with this share of right answers, and clean images."""
    ids = [str(i) for i in range(classes)]
    parts = [
        _part(corruption, severity, round(n * right_of(corruption, severity)), n=n, class_ids=ids)
        for corruption in corruptions
        for severity in severities
    ]
    return [_clean(9000, n, class_ids=ids), *parts]


def test_mce_divides_every_error_by_alexnet_s_and_alexnet_has_one():
    found = _measured(*_imagenet_c(lambda corruption, _: 1 - ALEXNET_ERRORS[corruption]))
    assert value(found["mce"][0]) == pytest.approx(1, abs=1e-4) and found["mce"][0].settings["corruptions"] == 15
    # Severities are averaged before the division, the validation corruptions have no part, and less is better.
    easy = {"fog": (0.9, 0.8, 0.7, 0.6, 0.5)}
    right = lambda c, s: easy[c][s - 1] if c in easy else (0.0 if c in VALIDATION else 1.0)  # noqa: E731
    found = _measured(*_imagenet_c(right, corruptions=IMAGENET_C))
    assert value(found["mce"][0]) == pytest.approx(0.3 / 0.819324 / 15) and found["mce"][0].metric.better == "less"


def test_there_is_no_mce_of_some_corruptions_other_classes_or_running_means():
    half = lambda *_: 0.5  # noqa: E731
    assert "mce" in _measured(*_imagenet_c(half, n=100))
    assert "mce" not in _measured(*_imagenet_c(half, corruptions=TEST[1:], n=100))
    assert "mce" not in _measured(*_imagenet_c(half, severities=(1, 3, 5), n=100))
    assert "mce" not in _measured(*_imagenet_c(half, classes=200, n=100))
    assert "mce" not in _measured(*_imagenet_c(half, n=100), deviations=["D1"])


# ------------------------------------------------------------------ D1


def _logs_of(model):
    """Return the true accuracies of each corruption and severity of a model whose cells were published, in percent."""
    rows = [row for row in read_csv("severities.csv") if row["model"] == model]
    return {row["corruption"]: [float(row[str(s)]) for s in range(1, 6)] for row in rows}


def test_the_running_mean_of_true_accuracies_is_the_published_row_and_without_it_the_corrected_one():
    """ResNet50: five corruptions whose 25 accuracies are known; 50,000 images stand for the percentages exactly."""
    known = _logs_of("ResNet50")
    n = 10_000
    parts = [
        _part(corruption, s, round(100 * percent), name="ImageNet-C", n=n)
        for corruption, percents in reversed(known.items())  # whatever order the suite has
        for s, percent in enumerate(percents, 1)
    ]
    published = next(row for row in read_csv("table3.csv") if row["model"] == "ResNet50")
    recovered = next(row for row in read_csv("corruptions.csv") if row["model"] == "ResNet50")
    clean = _clean(8012, n)
    paper, corrected = _measured(clean, *parts, deviations={"D1"}), _measured(clean, *parts)
    for corruption in known:
        stored, true = (_of(m["accuracy_corruption"], corruption=corruption) for m in (paper, corrected))
        assert 100 * value(stored) == pytest.approx(float(published[corruption]), abs=0.011), corruption
        assert 100 * value(true) == pytest.approx(float(recovered[corruption]), abs=0.011), corruption
        assert stored.deviations == ("D1",) and true.deviations == ()
    # Both directions once more, by the audit's formula.
    accuracies = [value(x) for x in corrected["accuracy_corruption_severity"]]
    means = running_means(accuracies)
    stored = [value(_of(paper["accuracy_corruption"], corruption=c)) for c in PAPERS_ORDER[:5]]
    assert stored == pytest.approx([np.mean(means[5 * i : 5 * i + 5]) for i in range(5)])
    assert undone(means) == pytest.approx(accuracies)


def test_each_set_s_running_mean_begins_anew():
    parts = [_part("fog", 1, 100), _part("fog", 1, 0, name="3DCC"), _part("iso", 1, 50, name="3DCC")]
    found = _measured(_clean(), *parts, deviations={"D1"})
    assert value(_of(found["accuracy_corruption"], set="3DCC", corruption="fog")) == 0
    assert value(_of(found["accuracy_corruption"], set="3DCC", corruption="iso")) == pytest.approx(0.25)


# ------------------------------------------------------------------ intervals


def test_sets_of_the_clean_images_are_drawn_with_them_and_others_by_themselves():
    names = [f"n01/ILSVRC2012_val_{i}.JPEG" for i in range(N)]
    clean, png = _clean(60, names=names), [name.replace("JPEG", "png") for name in names]
    same, other = _part("fog", 1, 60, names=png), _part("fog", 1, 60, names=[f"x{i}" for i in range(N)])
    assert same_images(clean) == same_images(same) != same_images(other)
    paired, apart = (_measured(clean, part)["r_cc"][0].resample(300, 0) for part in (same, other))
    assert np.all(paired == 1), "the same images are right in both, whatever is drawn"
    assert apart.std() > 0.05
    drawn = Shares((clean, same, other)).resampled(300, 0)
    assert np.array_equal(drawn[:, 0], drawn[:, 1]) and abs(np.corrcoef(drawn[:, 0], drawn[:, 2])[0, 1]) < 0.2


def test_an_interval_that_no_resample_varies_is_that_of_the_images_of_one_part():
    found = _measured(_clean(), _part("fog", 1, 0), _part("fog", 2, 0))
    (mean,) = found["accuracy_corrupted"]
    assert mean.counts(mean.terms.sum(0)) == (0, N)


def test_another_model_is_drawn_alike():
    first, second = (
        _measured(_clean(right), _part("fog", 1, 30, names=[f"x{i}" for i in range(N)]))["accuracy_corrupted"][0]
        for right in (80, 20)
    )
    assert np.array_equal(first.resample(50, 3), second.resample(50, 3))


# ------------------------------------------------------------------ rises


def test_accuracy_that_rises_with_severity_beyond_chance_is_said():
    parts = [_part("snow", 1, 600, n=1000), _part("snow", 2, 400, n=1000), _part("snow", 3, 500, n=1000)]
    (snow,) = _measured(_clean(800, 1000), *parts)["accuracy_corruption"]
    assert snow.notes == ("snow: accuracy rises from severity 2 (40.0 %) to 3 (50.0 %)",)
    assert "notes" not in snow.settings
    small = [_part("snow", 1, 50), _part("snow", 2, 52)]
    assert _measured(_clean(), *small)["accuracy_corruption"][0].notes == ()
