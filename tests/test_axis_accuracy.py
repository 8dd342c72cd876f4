"""Accuracy on sets with roles; every metric says what it is, where it is from and which deviations concern it."""

import pytest
from answered_sets import answered, of_model, value

from synclones.evaluate.answers.predictions import CLEAN
from synclones.evaluate.axes.accuracy import measure
from synclones.evaluate.axis import all_conditions, axes, metrics
from synclones.evaluate.explain import explain
from synclones.evaluate.layout import ROLES
from synclones.evaluate.published.deviations import deviations, of_metric
from synclones.evaluate.settings import EvaluateConfig


def test_accuracy_is_measured_on_the_reference_and_on_shifted_sets_each_among_its_classes():
    sets = [
        answered("reference", [0, 1, 2, 3], [0, 1, 2, 0], name="val"),
        answered("shifted", [0, 1], [0, 0], name="R", class_ids="ab"),
        answered("shifted", [5, 6, 7], [5, 6, 7], name="V2"),
        answered("corrupted", [0], [0], name="C", settings={"corruption": "fog", "severity": 1}),
    ]
    found = list(measure(of_model(*sets), EvaluateConfig()))
    assert [(x.on.of.name, value(x), x.settings) for x in found] == [
        ("val", 0.75, {}),
        ("R", 0.5, {"classes": 2}),
        ("V2", 1.0, {}),
    ]
    assert all(x.counts(x.terms.sum(0)) == (x.terms.sum(), len(x.terms)) for x in found)


@pytest.mark.parametrize("role", ROLES)
def test_images_of_every_role_are_shown_as_they_are_and_the_reference_alone_is_attacked(role):
    conditions = all_conditions(EvaluateConfig(attacks=("fgsm", "pgd")), role)
    assert conditions[0] == CLEAN and (len(conditions) > 1) == (role == "reference")


@pytest.mark.parametrize("name", list(metrics()))
def test_every_metric_is_explained_with_unit_sources_and_deviations(name):
    metric, text = metrics()[name], explain(name)
    assert metric.title and metric.unit and metric.explanation.endswith(".") and all(metric.sources)
    for words in (metric.unit, metric.explanation, *metric.sources, *metric.deviations):
        assert words in text
    assert all(f"{item.id}: {item.title}" in text for item in of_metric(name))
    assert ("Less is better" in metric.explanation) == (metric.better == "less")
    assert metric.better == "neither" or f"{metric.better.capitalize()} is" in metric.explanation


def test_every_deviation_of_a_formula_concerns_a_metric():
    concerned = {item.id for name in metrics() for item in of_metric(name)}
    assert concerned == set(deviations()) - {"D8"}


def test_names_of_metrics_are_unlike_and_axes_are_in_the_order_of_reading():
    names = [metric.name for axis in axes() for metric in axis.metrics]
    assert len(names) == len(set(names)) == len(metrics())
    order = "accuracy calibration adversarial outliers corrupted shape background context"
    assert [axis.name for axis in axes()] == order.split()
