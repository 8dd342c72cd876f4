"""A made grid with results as an evaluation leaves them: numbers with logits behind them, some of it missing."""

import json
from fractions import Fraction

import numpy as np

from synclones.ablate.cells import Cell, GridResults
from synclones.ablate.columns import EIGHT
from synclones.evaluate.answers.predictions import Predictions
from synclones.evaluate.axes.calibration import calibration_gaps, ece_of_sums
from synclones.evaluate.bounds.intervals import wilson
from synclones.evaluate.methods.separation import Separation
from synclones.evaluate.stored.logits_file import write_logits
from synclones.evaluate.stored.results import Cell as Result
from synclones.evaluate.stored.results import write_cells

IMAGES, CLASSES = 120, 10
ACCURACIES = {
    "class name": (0.70, 0.80, 0.83, 0.85),
    "captions": (0.72, 0.86, 0.90, 0.92),
    "CLIP templates": (0.60, 0.78, 0.84, 0.88),
}
PAPERS_SIZES = ("1M", "4M", "8M", "16M")
SIZES = ("1M", "16M")


def answers(rng, accuracy, labels, sharpness=3.0):
    """Return logits float32[n, classes] that are right about so often; the same images are hard for all models."""
    hard = np.random.default_rng(0).random(len(labels))
    right = hard + rng.normal(0, 0.08, len(labels)) < accuracy
    logits = rng.normal(0, 0.5, (len(labels), CLASSES))
    wrong = (labels + 1 + rng.integers(0, CLASSES - 1, len(labels))) % CLASSES
    logits[np.arange(len(labels)), np.where(right, labels, wrong)] += sharpness
    return logits.astype(np.float32)


def write_results(folder, accuracy, seed, columns=EIGHT, name="clone"):
    """Write what an evaluation of one model leaves: accuracy, ECE, FGSM, outliers and corruptions rest on logits."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, int(1e4 * accuracy)])
    labels = np.arange(IMAGES) % CLASSES
    kept = {
        "0" * 16: Predictions(answers(rng, accuracy, labels), labels, np.arange(IMAGES)),
        "1" * 16: Predictions(answers(rng, 0.5 * accuracy, labels), labels, np.arange(IMAGES)),
        "2" * 16: Predictions(answers(rng, 0.1, labels, 1.5), labels, np.arange(IMAGES)),
        "3" * 16: Predictions(answers(rng, 0.7 * accuracy, labels), labels, np.arange(IMAGES)),
        "4" * 16: Predictions(answers(rng, 0.6 * accuracy, labels), labels, np.arange(IMAGES)),
    }
    for key, predictions in kept.items():
        # Of corrupted sets evaluations keep answer and confidence alone.
        only = np.stack([predictions.answers, predictions.confidence], 1).astype(np.float32)
        written = Predictions(only, labels, predictions.index) if key[0] in "34" else predictions
        write_logits(folder, key, written, {})
    clean, attacked, outside, *corrupted = kept.values()

    def put(metric, value, keys, dataset="val", low=None, high=None, **settings):
        cell = Result(
            **{"model": name, "weights_sha256": f"{name}{seed}{accuracy}".ljust(64, "0"), "suite": "made"},
            **{"dataset": dataset, "dataset_sha256": dataset.ljust(64, "0"), "metric": metric},
            **{"settings": settings, "value": value, "n": IMAGES, "interval": "bootstrap", "protocol": "corrected"},
            **{"ci_low": value - 0.03 if low is None else low, "ci_high": value + 0.03 if high is None else high},
            **{"preprocessing": json.dumps({"size": 32}), "seed": 0},
            logits=tuple(keys),
        )
        write_cells(folder, [cell])

    right = float(clean.correct.mean())
    interval = wilson(int(clean.correct.sum()), IMAGES)
    put("accuracy", right, ["0" * 16], low=interval.low, high=interval.high)
    put("r_adv", float(attacked.correct.mean()) / right, ["0" * 16, "1" * 16], attack="fgsm", epsilon_255=1.0)
    if "ece" in columns:
        gaps = calibration_gaps(clean.confidence, clean.correct, 20)
        put("ece", float(ece_of_sums(gaps.sum(0), IMAGES)), ["0" * 16], bins=20)
    if "fpr95" in columns:
        rate = Separation(clean.confidence, outside.confidence).measured()[1]
        put("fpr95_id_positive", rate, ["0" * 16, "2" * 16], outliers="letters", score="max-probability")
    if "corruption" in columns:
        mean = float(np.mean([item.correct.mean() for item in corrupted]))
        put("r_cc", mean / right, ["0" * 16, "3" * 16, "4" * 16], set="lab-C", corruptions=2)
    if "shape" in columns:
        put("shape_bias", 0.3 + 0.4 * right, [], "cue-conflict")
    if "background" in columns:
        put("bg_gap", 0.2 - 0.15 * right, [], "IN9/mixed_same", set="IN9")
    if "context" in columns:
        put("cb2", 0.9 * right, [], "FOCUS")
    return folder


def example(root, seeds=3, prompts=None, sizes=SIZES, columns=EIGHT, name="table6", missing=True):
    """Return a grid of the paper's Table 6 with trainings that are absent, damaged, or lack columns."""
    prompts = prompts or {kind: kind for kind in ACCURACIES}
    cells = []
    for kind, curve in ACCURACIES.items():
        for size in sizes:
            for seed in range(seeds):
                folder = root / plain(kind) / size / str(seed)
                values = {"prompts": prompts[kind], "images": size}
                made = {"commands": (f"synclones train --seed {seed} --out runs/{size}",), "cost": {"clone": 61.0}}
                if missing and (kind, size) == ("CLIP templates", "16M"):
                    cells.append(Cell(values, seed, None, "step clone: data/real.tar is not there", made["commands"]))
                    continue
                lacks = missing and (kind, size, seed) == ("captions", "1M", 2)
                own = [c for c in columns if not (lacks and c in ("shape", "context"))]
                jitter = 0.01 * (seed - (seeds - 1) / 2)
                write_results(folder, curve[PAPERS_SIZES.index(size)] + jitter, seed, own)
                if missing and (kind, size, seed) == ("class name", "1M", 1):
                    next(folder.glob("*.json")).write_text("{}")
                cells.append(Cell(values, seed, folder, **made))
    axes = {"prompts": tuple(prompts.values()), "images": tuple(sizes)}
    return GridResults(
        **{"name": name, "title": "Kind of prompts and number of images", "question": "Which prompts teach best?"},
        **{"source": "Singh et al. 2024, Table 6", "world": "lab", "scale": Fraction(1, 4000), "axes": axes},
        **{"seeds": seeds, "columns": tuple(columns), "published": "table6", "cells": tuple(cells)},
    )


def plain(kind):
    return kind.replace(" ", "-")
