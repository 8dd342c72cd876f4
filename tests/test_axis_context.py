"""Context bias: strata by hand, the last two images of the papers' code, and groups without images."""

import numpy as np
import pytest
from answered_sets import answered, by_metric, of_model, value

from synclones.evaluate.axes.context import context_bias, measure, strata
from synclones.evaluate.published.tables import read_csv
from synclones.evaluate.settings import EvaluateConfig

# Uncommon attributes of each image, and whether it is answered rightly: 3 of 4, 1 of 2, 1 of 1, 0 of 1.
UNCOMMON = np.array([0, 0, 0, 0, 1, 1, 2, 3])
RIGHT = np.array([1, 1, 1, 0, 1, 0, 1, 0], bool)


def _measured(deviations=()):
    item = answered("context", np.zeros(8), np.where(RIGHT, 0, -1), facts={"uncommon": UNCOMMON}, decision="top1")
    return by_metric(measure(of_model(item, deviations=deviations), EvaluateConfig()))


def test_groups_and_ratios_are_those_of_a_count_by_hand():
    assert strata(RIGHT, UNCOMMON).sum(0).tolist() == [3, 4, 1, 2, 1, 1, 0, 1]
    found = _measured()
    assert [value(x) for x in found["accuracy_context"]] == [0.75, 0.5, 1.0, 0.0]
    assert [x.settings["images"] for x in found["accuracy_context"]] == [4, 2, 1, 1]
    assert value(found["cb1"][0]) == pytest.approx(0.5 / 0.75) and value(found["cb2"][0]) == pytest.approx(1 / 0.75)
    (third,) = found["cb3"]
    assert value(third) == 0 and third.n == 1 and third.settings == {"images": 1, "images_of_p0": 4}
    assert not third.metric.compared, "of few images models are not ranked"


def test_under_d11_the_last_two_images_are_left_out():
    found = _measured({"D11"})
    assert [x.n for x in found["accuracy_context"]] == [4, 2] and np.isnan(value(found["cb2"][0]))
    assert value(found["cb1"][0]) == pytest.approx(0.5 / 0.75)
    assert all(x.deviations == ("D11",) for items in found.values() for x in items)
    assert not any(x.deviations for items in _measured().values() for x in items)


def test_published_counts_give_the_published_ratio():
    """ResNet50 on FOCUS: 10,248 of 14,146 in common settings, 2,652 of 5,974 and 189 of 674 in others."""
    row = next(row for row in read_csv("context.csv") if row["model"] == "ResNet50")
    printed = next(row for row in read_csv("table4.csv") if row["model"] == "ResNet50")
    p0 = [int(row["right_p0"]), 14146]
    for k, n in ((1, 5974), (2, 674)):
        ratio = context_bias(np.array([int(row[f"right_p{k}"]), n, *p0], float))
        assert 100 * ratio == pytest.approx(float(printed[f"cb{k}"]), abs=0.02)


def test_without_a_right_answer_in_common_settings_the_ratio_is_undefined():
    assert np.isnan(context_bias(np.array([1.0, 2, 0, 3]))) and np.isnan(context_bias(np.array([0.0, 0, 3, 3])))
