"""Background bias: accuracies by variant, the gap of two of them with its sign and unit, and what it rests on."""

import numpy as np
import pytest
from answered_sets import answered, by_metric, of_model, value

from synclones.evaluate.axes.background import measure
from synclones.evaluate.settings import EvaluateConfig


def _variant(variant, right, n=100, names=None):
    answers = np.where(np.arange(n) < right, 0, -1)
    return answered(
        "background", np.zeros(n), answers, name="IN-9", part=variant, settings={"variant": variant}, names=names
    )


def _measured(*sets):
    return by_metric(measure(of_model(*sets), EvaluateConfig()))


def test_accuracies_are_by_variant_and_the_gap_is_a_fraction_printed_in_points():
    found = _measured(*(_variant(v, n) for v, n in (("original", 95), ("mixed_same", 87), ("mixed_rand", 81))))
    assert [value(found[f"accuracy_{v}"][0]) for v in ("original", "mixed_same", "mixed_rand")] == [0.95, 0.87, 0.81]
    (gap,) = found["bg_gap"]
    assert value(gap) == pytest.approx(0.06) and gap.metric.printed(value(gap)) == "6.0"
    assert gap.metric.unit_short == "points" and gap.on.of.part == "mixed_same"
    assert gap.settings["mixed_rand_sha256"] == "hash of IN-9/mixed_rand"
    assert gap.more_logits == ("logits of IN-9/mixed_rand",)


def test_other_variants_are_measured_and_a_gap_needs_both_of_its_own():
    found = _measured(_variant("only_fg", 70), _variant("mixed_same", 80))
    assert [x.settings["variant"] for x in found["accuracy_background"]] == ["only_fg"] and "bg_gap" not in found


def test_the_gap_of_equal_answers_on_the_same_objects_is_certain_and_of_others_is_not():
    names = [f"fg_{i}" for i in range(100)]
    same = _variant("mixed_same", 60, names=names)
    paired = _measured(same, _variant("mixed_rand", 60, names=names))["bg_gap"][0].resample(200, 0)
    other = _measured(same, _variant("mixed_rand", 60, names=[f"x{i}" for i in range(100)]))
    apart = other["bg_gap"][0].resample(500, 0)
    assert not paired.any()
    # Two shares of 0.6 of 100 images each, drawn by themselves: a deviation of the root of 2 x 0.24 / 100.
    assert apart.std() == pytest.approx(np.sqrt(2 * 0.24 / 100), rel=0.15)
