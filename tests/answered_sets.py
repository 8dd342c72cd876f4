"""Predictions made by hand: sets with names, labels and answers, as an evaluation gathers them, without a network."""

from types import SimpleNamespace

import numpy as np

from synclones.evaluate.answers.predictions import (
    CLEAN,
    Answers,
    EvaluatedModel,
    ModelPredictions,
    Predictions,
    SetPredictions,
    SuiteSet,
)

CLASSES = tuple("abcdefghij")


class Named:
    """Stands for a `TestSet`: names of images, classes and facts, no pixels."""

    def __init__(self, names, class_ids=CLASSES, decision="classes", facts=None, content_hash=""):
        self.names, self.class_ids, self.decision, self.facts = list(names), tuple(class_ids), decision, facts or {}
        self.content_hash = content_hash or f"hash of {self.names[0]} and {len(self.names)}"

    def __len__(self):
        return len(self.names)

    def file_name(self, number):
        return self.names[number]


def answered(role, labels, answers, *, name="set", part="", settings=None, names=None, **more):
    """Return a set whose images were answered so, -1 for none of the classes."""
    labels, answers = np.asarray(labels, np.int64), np.asarray(answers, np.int64)
    names = [f"{i}.png" for i in range(len(labels))] if names is None else names
    test_set = Named(names, content_hash=f"hash of {name}/{part}", **more)
    of = SuiteSet(role=role, name=name, part=part, settings=settings or {}, test_set=test_set)
    given = Answers(answers, np.full(len(labels), 0.5), labels, np.arange(len(labels)))
    return SetPredictions(of=of, by_condition={CLEAN: given}, logits_keys={CLEAN: f"logits of {of.title}"})


def with_logits(role, logits, labels, *, name="set", class_ids=None, more=None, names=None):
    """Return a set whose images have these logits; ``more``: condition -> logits."""
    logits, labels = np.asarray(logits, np.float32), np.asarray(labels, np.int64)
    names = [f"{i}.png" for i in range(len(labels))] if names is None else names
    test_set = Named(names, class_ids or CLASSES[: logits.shape[1]], content_hash=f"hash of {name}")
    of = SuiteSet(role=role, name=name, test_set=test_set)
    shown = {CLEAN: logits, **(more or {})}
    given = {c: Predictions(np.asarray(x, np.float32), labels, np.arange(len(labels))) for c, x in shown.items()}
    return SetPredictions(of=of, by_condition=given, logits_keys={c: f"logits of {name}, {c.name}" for c in shown})


def of_model(*sets, deviations=(), classes=CLASSES):
    """Return the predictions of one model on these sets."""
    model = EvaluatedModel("model", SimpleNamespace(class_ids=tuple(classes)), "weights")
    return ModelPredictions(model, sets, frozenset(deviations))


def value(measurement):
    """Return what a measurement says of the images as they are."""
    return float(measurement.statistic(measurement.terms.sum(0)))


def by_metric(measurements):
    """Return metric -> its measurements."""
    found = {}
    for item in measurements:
        found.setdefault(item.metric.name, []).append(item)
    return found
