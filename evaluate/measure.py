"""From predictions to numbers with intervals, and from two models to the difference between them.

In: `Predictions` of a model, clean and attacked. Out: `Cell`s; `Comparison`s of models on the same images.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from synclones.base.json_file import canonical_json
from synclones.evaluate.intervals import Interval, basic_interval, bootstrap, resampled_sums, wilson
from synclones.evaluate.metrics import (
    calibration_gaps,
    confidence,
    ece_of_sums,
    is_correct,
    relative_robustness,
)
from synclones.evaluate.predict import Predictions, Subject, TestSet, logits_key
from synclones.evaluate.results import Cell
from synclones.evaluate.settings import EvaluateConfig

SUITE = "accuracy, calibration and FGSM on one folder"


@dataclass(frozen=True)
class Judged:
    """A model's predictions on one set: clean, and under FGSM by strength in 1/255."""

    subject: Subject
    clean: Predictions
    attacked: dict[float, Predictions]


def calibration_terms(found: Predictions, bins: int) -> np.ndarray:
    """Per-image gaps float64[n, bins] whose sums make the ECE."""
    return calibration_gaps(confidence(found.logits), is_correct(found.logits, found.labels), bins)


def robustness_terms(judged: Judged, epsilon_255: float) -> np.ndarray:
    """float64[n, 2]: right when clean, right when attacked."""
    pair = (judged.clean, judged.attacked[epsilon_255])
    return np.stack([is_correct(found.logits, found.labels) for found in pair], 1).astype(np.float64)


def cells_of(judged: Judged, test_set: TestSet, config: EvaluateConfig) -> list[Cell]:
    """Every number of one model on one set."""
    clean, n = judged.clean, len(judged.clean.labels)
    make = partial(_cell, judged, test_set, config)
    right = int(is_correct(clean.logits, clean.labels).sum())
    cells = [make("accuracy", {}, wilson(right, n), "wilson", (0.0,))]
    terms = calibration_terms(clean, config.ece_bins)
    ece = bootstrap(terms, partial(ece_of_sums, n=n), config.resamples, config.seed, (0.0, 1.0))
    cells.append(make("ece", {"bins": config.ece_bins}, ece, "bootstrap", (0.0,)))
    for epsilon, found in judged.attacked.items():
        settings = {"attack": "fgsm", "epsilon_255": epsilon}
        survived = wilson(int(is_correct(found.logits, found.labels).sum()), n)
        cells.append(make("accuracy_fgsm", settings, survived, "wilson", (epsilon,)))
        r_adv, how = _r_adv(robustness_terms(judged, epsilon), config)
        cells.append(make("r_adv", settings, r_adv, how, (0.0, epsilon)))
    return cells


def _r_adv(terms: np.ndarray, config: EvaluateConfig) -> tuple[Interval | None, str]:
    """R_adv with the name of its interval: Wilson's where all or none survived, and every resample says the same."""
    found = bootstrap(terms, relative_robustness, config.resamples, config.seed, (0.0, np.inf))
    if found is None or found.low < found.high:
        return found, "bootstrap"
    clean, attacked = (int(total) for total in terms.sum(0))
    return wilson(attacked, clean), "wilson"


def _cell(
    judged: Judged,
    test_set: TestSet,
    config: EvaluateConfig,
    metric: str,
    settings: dict[str, Any],
    found: Interval | None,
    how: str,
    strengths: tuple[float, ...],
) -> Cell:
    subject = judged.subject
    resampling = {"resamples": config.resamples} if how == "bootstrap" else {}
    return Cell(
        model=subject.name,
        weights_sha256=subject.weights_sha256,
        suite=SUITE,
        dataset=test_set.folder.name,
        dataset_sha256=test_set.content_hash,
        metric=metric,
        settings=settings | resampling,
        value=found.value if found else None,
        n=len(judged.clean.labels),
        ci_low=found.low if found else None,
        ci_high=found.high if found else None,
        interval=how,
        protocol="paper",
        preprocessing=canonical_json(asdict(subject.classifier.preprocessing)).decode(),
        seed=config.seed,
        logits=tuple(logits_key(subject, test_set, strength) for strength in strengths),
    )


@dataclass(frozen=True)
class Comparison:
    """How two models differ in one metric on the same images: the first minus the second."""

    first: str
    second: str
    metric: str
    difference: Interval | None
    """None where it is undefined, or where too few images speak for resampling to say how sure it is."""


def compare(models: list[Judged], config: EvaluateConfig) -> list[Comparison]:
    """All pairs, every metric, by a paired bootstrap over the test images."""
    found = []
    for metric, of in _statistics(config).items() if len(models) > 1 else ():
        parts = [of(judged) for judged in models]
        sums = resampled_sums(np.concatenate([terms for terms, _ in parts], 1), config.resamples, config.seed)
        values = [float(statistic(terms.sum(0))) for terms, statistic in parts]
        again = [statistic(own) for (_, statistic), own in zip(parts, np.split(sums, len(parts), axis=1), strict=True)]
        for a, b in combinations(range(len(models)), 2):
            interval = basic_interval(values[a] - values[b], again[a] - again[b])
            if interval is not None and interval.value and interval.low == interval.high:
                interval = None
            found.append(Comparison(models[a].subject.name, models[b].subject.name, metric, interval))
    return found


Terms = tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]


def _statistics(config: EvaluateConfig) -> dict[str, Callable[[Judged], Terms]]:
    """Heading -> what gives a model's per-image terms, and the statistic of their sums."""

    def accuracy(judged: Judged) -> Terms:
        right = is_correct(judged.clean.logits, judged.clean.labels).astype(np.float64)
        return right[:, None], lambda sums: sums[..., 0] / len(right)

    def ece(judged: Judged) -> Terms:
        return calibration_terms(judged.clean, config.ece_bins), partial(ece_of_sums, n=len(judged.clean.labels))

    def r_adv(judged: Judged, epsilon: float) -> Terms:
        return robustness_terms(judged, epsilon), relative_robustness

    of_attacks = {f"R_adv {e:g}/255": partial(r_adv, epsilon=e) for e in config.epsilons_255}
    return {"accuracy": accuracy, "ECE": ece, **of_attacks}
