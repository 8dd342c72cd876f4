"""What models answered about the images of one set, under each condition: the data that every axis measures.

In: logits float32[n, classes] and labels int64[n]. Out: `ModelPredictions`; confidences are computed once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # importing them would load torch to explain a metric
    from pathlib import Path

    from torch import Tensor

    from synclones.models.network import Classifier

    Change = Callable[[Classifier, Tensor, Tensor, np.ndarray], Tensor]


@dataclass(frozen=True)
class Condition:
    """Under which circumstances the images are shown: as they are, attacked, corrupted."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    """JSON-able; with the name it identifies the condition."""
    change: "Change | None" = field(default=None, compare=False)
    """(classifier, pixels float32[n, 3, h, w] in 0..1, labels int64[n], the images' numbers int64[n]) -> pixels; None
    leaves them as they are."""
    passes: int = field(default=1, compare=False)
    """What one image costs, in forward passes."""

    def __hash__(self) -> int:
        return hash((self.name, *sorted(self.settings.items())))

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{name} {value:g}" for name, value in self.settings.items())])


CLEAN = Condition("clean")


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax in float64, float64[n, classes]: in half precision the calibration error shifts by 5e-4."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    exponential = np.exp(shifted)
    softmax: np.ndarray = exponential / exponential.sum(1, keepdims=True)
    return softmax


@dataclass(frozen=True)
class Predictions:
    """What a classifier answered about every image of a set under one condition."""

    logits: np.ndarray
    """float32[n, classes]."""
    labels: np.ndarray
    """int64[n]."""
    index: np.ndarray
    """int64[n]: the images' indices in their folder."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def correct(self) -> np.ndarray:
        """bool[n]: the largest logit is the label's (the first of equal ones counts)."""
        correct: np.ndarray = self.logits.argmax(1) == self.labels
        return correct

    @cached_property
    def confidence(self) -> np.ndarray:
        """float64[n]: the largest probability of each image."""
        largest: np.ndarray = probabilities(self.logits).max(1)
        return largest


@dataclass(frozen=True)
class EvaluatedModel:
    """A classifier under test."""

    name: str
    classifier: "Classifier"
    weights_sha256: str
    trained_on_test: bool = False
    """Whether some file says that it was trained on the set it is tested with."""
    source: str = ""
    """Where it is from, as manifests name it."""
    format: str = ""
    """How its weights were read."""
    folder: "Path | None" = None
    """Of a model that was exported with manifest or card, which say what it was trained on."""


@dataclass(frozen=True)
class OtherPredictions:
    """What a classifier answered about the images of a further set, none of whose labels are its classes."""

    predictions: Predictions
    content_hash: str
    """Of the set."""
    logits_key: str
    """Name of the cached logits."""


@dataclass(frozen=True)
class ModelPredictions:
    """A model's predictions on one set, by condition, and on sets of outliers."""

    model: EvaluatedModel
    by_condition: dict[Condition, Predictions]
    others: dict[str, OtherPredictions] = field(default_factory=dict)
    """By the name of the set."""

    def __getitem__(self, condition: Condition) -> Predictions:
        return self.by_condition[condition]

    @property
    def clean(self) -> Predictions:
        """The predictions on the images as they are."""
        return self.by_condition[CLEAN]
