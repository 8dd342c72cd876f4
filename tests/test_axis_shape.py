"""Shape bias on a design of every shape with every texture: right values by hand, both ways of counting per class."""

import numpy as np
import pytest
from answered_sets import answered, by_metric, of_model, value

from synclones.evaluate.axes.shape import bias, decisions, measure
from synclones.evaluate.settings import EvaluateConfig

SIXTEEN = tuple("abcdefghijklmnop")


def _design(answer):
    """Five images of each of 16 shapes with each of 16 textures, as published; answers are a function of both."""
    shape, texture = (grid.ravel().repeat(5) for grid in np.mgrid[:16, :16])
    answers = answer(shape, texture, np.tile(np.arange(5), 256))
    return answered("shape", shape, answers, facts={"texture": texture}, class_ids=SIXTEEN, decision="mean")


def _measured(item, deviations=()):
    return by_metric(measure(of_model(item, deviations=deviations), EvaluateConfig()))


def test_of_1280_images_1200_count_and_two_fifths_by_shape_are_a_bias_of_two_thirds():
    # Of every five images of a pair two are answered by shape, one by texture, two by neither.
    def answer(shape, texture, number):
        neither = np.array([next(k for k in range(16) if k not in pair) for pair in zip(shape, texture, strict=True)])
        return np.select([number < 2, number == 2], [shape, texture], neither)

    item = _design(answer)
    found = _measured(item)
    (of_all,) = found["shape_bias"]
    assert len(of_all.terms) == 1280 and of_all.n == 1200
    assert value(of_all) == pytest.approx(2 / 3) and of_all.terms.sum(0).tolist() == [480, 240]
    # The shares are among all 1,280, as the authors' code has them.
    assert value(found["shape_decisions"][0]) == 480 / 1280 and value(found["texture_decisions"][0]) == 240 / 1280
    assert [item.n for item in found["shape_bias_of_class"]] == [75] * 16
    assert all(value(item) == pytest.approx(2 / 3) for item in found["shape_bias_of_class"])


def test_images_without_a_contradiction_say_nothing():
    # Always the shape but where shape and texture agree: right there, and it does not count.
    found = _measured(_design(lambda shape, texture, _: np.where(shape == texture, shape, texture)))
    assert value(found["shape_bias"][0]) == 0 and value(found["texture_decisions"][0]) == 1200 / 1280


def test_a_class_is_the_shape_s_and_under_d10_the_answered_one():
    # Class 0 is answered whatever the shape, where the texture is 0; else the shape is.
    item = _design(lambda shape, texture, _: np.where(texture == 0, 0, shape))
    corrected, paper = _measured(item), _measured(item, {"D10"})
    assert "shape_bias_per_class_answered" not in corrected and "shape_bias_of_class" not in paper
    # Images of shape 0: all 75 by shape. Of shape 1: 70 by shape, 5 (texture 0) by texture.
    assert [value(x) for x in corrected["shape_bias_of_class"][:2]] == [1.0, pytest.approx(70 / 75)]
    # Answered 0: 75 by shape, 75 by texture. Answered 1: 70, all by shape.
    assert [value(x) for x in paper["shape_bias_per_class_answered"][:2]] == [0.5, 1.0]
    assert all(x.deviations == ("D10",) for x in paper["shape_bias_per_class_answered"])
    # The average is the same number, and its cells say so.
    assert value(corrected["shape_bias"][0]) == value(paper["shape_bias"][0]) == 1125 / 1200
    assert not corrected["shape_bias"][0].deviations and not paper["shape_bias"][0].deviations


def test_where_nothing_is_answered_by_either_the_bias_is_undefined():
    item = answered("shape", [0, 1], [2, -1], facts={"texture": np.array([1, 0])}, class_ids="abc")
    assert not decisions(item).any() and np.isnan(bias(np.zeros(2)))
    (of_all,) = _measured(item)["shape_bias"]
    assert np.isnan(value(of_all))
