"""What reports are made of, by hand: the paper's numbers of its thirteen models as cells, and answers to six images."""

import json
from pathlib import Path

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
from synclones.evaluate.published.beside import column_of
from synclones.evaluate.published.corrected import TEN
from synclones.evaluate.published.figures import figures
from synclones.evaluate.published.tables import FIGURES, tables
from synclones.evaluate.published.tables import Cell as Printed
from synclones.evaluate.stored.results import Cell
from synclones.shards.sources.labelled import LabelledImage

MODELS = tuple(tables()[1].rows)
SHAPES = ("airplane", "bear", "bicycle")
ALL_TEN = "ImageNet-C and ImageNet-3DCC"


def cell(model, metric, value, dataset="ImageNet", protocol="corrected", width=0.01, **settings):
    """Return a cell with an interval of ``width`` to both sides."""
    has = value is not None
    return Cell(
        **{"model": model, "weights_sha256": f"{model}-weights".ljust(64, "0"), "suite": "made by hand"},
        **{"dataset": dataset, "dataset_sha256": f"{dataset}-hash".ljust(64, "0"), "metric": metric},
        **{"settings": settings, "value": value, "n": 50000},
        **{"ci_low": value - width if has else None, "ci_high": value + width if has else None},
        **{"interval": "bootstrap", "protocol": protocol, "preprocessing": json.dumps({"size": 224}), "seed": 0},
        logits=("clean",),
    )


def of_paper(model: str) -> list[Cell]:
    """Return what a folder of results would hold of one of the paper's models, its printed values as the values."""
    printed = {n: {key: item.value for key, item in tables()[n].rows[model].items()} for n in range(1, 6)}
    rank, logged = MODELS.index(model), figures()[model]
    cells = [cell(model, "accuracy", printed[2]["accuracy"])]
    for name in ("ImageNet-R", "ImageNet-A"):
        key = name.lower().replace("-", "")
        cells.append(cell(model, "accuracy", logged[f"accuracy_{key}"].value, name))
        cells.append(cell(model, "ece", logged[f"ece_{key}"].value, name, bins=20))
    cells += [
        cell(model, "ece", logged["ece_imagenet"].value, bins=20),
        cell(model, "nll", 0.5 + rank / 10, width=0.05),
    ]
    for name, key in (("SUN", "sun"), ("iNaturalist", "inaturalist"), ("Places", "places")):
        known = {"outliers": name, "score": "max-probability"}
        cells.append(cell(model, "auroc", printed[1][f"auroc_{key}"], **known))
        cells.append(cell(model, "fpr95_id_positive", printed[1][f"fpr95_{key}"], **known))
    for metric, key in (("accuracy_fgsm", "accuracy_fgsm"), ("r_adv", "r_adv_fgsm")):
        cells.append(cell(model, metric, printed[2][key], epsilon_255=1.0))
    for metric in ("accuracy_pgd", "r_adv_pgd"):
        cells.append(cell(model, metric, printed[2][metric], epsilon_255=1.0, steps=20, step_255=0.25))
    for number, corruption in enumerate(TEN):
        known = {"set": "ImageNet-C" if number < 5 else "ImageNet-3DCC", "corruption": corruption}
        mean = printed[3][corruption]
        cells.append(cell(model, "accuracy_corruption", mean, severities=[1, 2, 3, 4, 5], **known))
        for severity in range(1, 6):
            on, value = f"{known['set']}/{corruption}/{severity}", mean * (1.3 - severity / 10)
            cells.append(cell(model, "accuracy_corruption_severity", value, on, severity=severity, **known))
    for metric in ("accuracy_corrupted", "r_cc"):
        cells.append(cell(model, metric, printed[3][metric], set=ALL_TEN, corruptions=10))
    cells += [cell(model, f"cb{k}", printed[4][f"cb{k}"], "FOCUS") for k in (1, 2)]
    for variant in ("original", "mixed_same", "mixed_rand"):
        known = {"set": "IN-9", "variant": variant}
        cells.append(cell(model, f"accuracy_{variant}", printed[5][f"accuracy_{variant}"], f"IN-9/{variant}", **known))
    cells.append(cell(model, "bg_gap", printed[5]["bg_gap"], "IN-9/mixed_same", set="IN-9"))
    cells.append(cell(model, "shape_bias", logged["shape_bias"].value, "cue-conflict"))
    for number, shape in enumerate(SHAPES):
        known = {"class": shape}
        cells.append(cell(model, "shape_bias_of_class", 0.1 + number / 10 + rank / 40, "cue-conflict", **known))
        answered = 0.15 + number / 10 + rank / 40
        cells.append(cell(model, "shape_bias_per_class_answered", answered, "cue-conflict", "paper", **known))
    return cells


def stands_beside(result: Cell) -> Printed | None:
    """Return the printed number that a result of the paper's model was made of."""
    place = column_of(result)
    if place is None:
        return None
    rows = {result.model: figures()[result.model]} if place[0] == FIGURES else tables()[place[0]].rows
    return rows[result.model][place[1]]


class Images:
    """A set of six images of two classes, each of one colour."""

    name, class_ids, content_hash, folder = "six", ("cat", "<dog>"), "0" * 64, Path("six")
    labels = np.array([0, 0, 0, 1, 1, 1])

    def __init__(self, side: int = 8):
        self.side = side

    def __len__(self) -> int:
        return 6

    def __getitem__(self, number: int) -> LabelledImage:
        return LabelledImage(np.full((self.side, 2 * self.side, 3), 40 * number, np.uint8), self.labels[number], number)


def predicted(name, answers, images, corrupted=()):
    """A model that gives each answer; the later the image, the surer."""
    logits = np.zeros((6, 2), np.float32)
    logits[np.arange(6), answers] = 1 + np.arange(6)
    clean = Predictions(logits, images.labels, np.arange(6))
    sets = [SetPredictions(of=SuiteSet(role="reference", name="six", test_set=images), **kept(clean))]
    for severity in corrupted:
        settings = {"corruption": "fog", "severity": severity}
        of = SuiteSet(role="corrupted", name="C", part=f"fog/{severity}", settings=settings, test_set=images)
        none = Answers(np.full(6, -1), np.zeros(6), images.labels, np.arange(6))
        sets.append(SetPredictions(of=of, **kept(none)))
    return ModelPredictions(EvaluatedModel(name, None, name * 64), tuple(sets))


def kept(predictions):
    return {"by_condition": {CLEAN: predictions}, "logits_keys": {CLEAN: "x"}}
