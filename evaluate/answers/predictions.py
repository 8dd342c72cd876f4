"""What models answered about the images of one set, under each condition: the data that every axis measures.

In: logits float32[n, classes] and labels int64[n]. Out: `ModelPredictions`; confidences are computed once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from synclones.base.json_file import canonical_json
from synclones.evaluate.answers.softmax import confidences

if TYPE_CHECKING:  # importing them would load torch to explain a metric
    from pathlib import Path

    from torch import Tensor

    from synclones.evaluate.answers.prepared import Prepared
    from synclones.evaluate.bounds.stopped import Stopped
    from synclones.evaluate.layout import Role
    from synclones.evaluate.test_set import TestSet
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
    only_if: tuple[str, bool] | None = field(default=None, compare=False)
    """A deviation of the papers' code, and whether it has to be followed: under other protocols nothing asks for it."""
    prepared: "Prepared | None" = field(default=None, compare=False)
    """How images become the input, where not as the model's own preprocessing says; ``settings`` hold it, too."""

    def __hash__(self) -> int:
        return hash((self.name, canonical_json(self.settings)))

    def __str__(self) -> str:
        numbers = {name: value for name, value in self.settings.items() if isinstance(value, int | float)}
        return " ".join([self.name, *(f"{name} {value:g}" for name, value in numbers.items())])


CLEAN = Condition("clean")


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax in float64, float64[n, classes]: in half precision the calibration error shifts by 5e-4."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    exponential = np.exp(shifted)
    softmax: np.ndarray = exponential / exponential.sum(1, keepdims=True)
    return softmax


@dataclass(frozen=True)
class Predictions:
    """What a classifier answered about every image of a set under one condition: a logit for every class of the set.

    As they are computed and kept, logits are those of all classes of the model, whatever the set's are.
    """

    logits: np.ndarray
    """float32[n, classes]."""
    labels: np.ndarray
    """int64[n]."""
    index: np.ndarray
    """int64[n]: the images' indices in their folder."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def answers(self) -> np.ndarray:
        """int64[n]: the class of the largest logit, the first of equal ones."""
        answers: np.ndarray = self.logits.argmax(1)
        return answers

    @cached_property
    def correct(self) -> np.ndarray:
        """bool[n]: the answer is the label."""
        correct: np.ndarray = self.answers == self.labels
        return correct

    @cached_property
    def confidence(self) -> np.ndarray:
        """float64[n]: the largest probability of each image."""
        return confidences(self.logits)


@dataclass(frozen=True)
class Answers:
    """What a classifier answered about every image of a set, where not all logits are kept."""

    answers: np.ndarray
    """int64[n], among the classes of the set; -1: none of them."""
    confidence: np.ndarray
    """float64[n]: the probability of what was answered."""
    labels: np.ndarray
    """int64[n]."""
    index: np.ndarray
    """int64[n]: the images' indices in their folder."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def correct(self) -> np.ndarray:
        """bool[n]: the answer is the label."""
        correct: np.ndarray = self.answers == self.labels
        return correct


@dataclass(frozen=True)
class EvaluatedModel:
    """A classifier under test."""

    name: str
    classifier: "Classifier"
    weights_sha256: str
    source: str = ""
    """Where it is from, as manifests name it."""
    format: str = ""
    """How its weights were read."""
    folder: "Path | None" = None
    """Of a model that was exported with manifest or card, which say what it was trained on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SuiteSet:
    """One set of images of a suite, or one part of it."""

    role: "Role"
    """Which axes measure on it."""
    name: str
    """Of the set in the suite, such as ImageNet-C."""
    part: str = ""
    """Which part of it, such as fog/3."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What the part is, such as corruption and severity."""
    test_set: "TestSet"
    stopped: "Stopped | None" = None
    """Where the number of images was chosen by looking at the accuracy on them."""
    note: str = ""
    """What a reader should know about every number of it, a sentence."""

    @property
    def title(self) -> str:
        """Name and part."""
        return f"{self.name}/{self.part}" if self.part else self.name


@dataclass(frozen=True, kw_only=True, eq=False)
class SetPredictions:
    """A model's predictions on one set, by condition, read as answers among the classes of the set."""

    of: SuiteSet
    by_condition: dict[Condition, Predictions | Answers]
    logits_keys: dict[Condition, str]
    """Names of the cached logits."""
    deviations: tuple[str, ...] = ()
    """Which deviations of the papers' code changed what was predicted."""
    trained_on: bool = False
    """Whether some file says that the model was trained on the set."""

    @property
    def clean(self) -> Predictions:
        """The predictions on the images as they are."""
        clean = self.by_condition[CLEAN]
        assert isinstance(clean, Predictions), f"{self.of.title}: only answers are kept"
        return clean

    @property
    def answers(self) -> Predictions | Answers:
        """What was answered about the images as they are."""
        return self.by_condition[CLEAN]


@dataclass(frozen=True, eq=False)
class ModelPredictions:
    """A model's predictions on all sets of a suite, under one protocol."""

    model: EvaluatedModel
    sets: tuple[SetPredictions, ...]
    deviations: frozenset[str] = frozenset()
    """Which deviations of the papers' code are followed, D1 to D12; none: the corrected protocol."""

    def having(self, *roles: "Role") -> list[SetPredictions]:
        """Return the sets of some roles, in the order of the suite."""
        return [item for item in self.sets if item.of.role in roles]

    @property
    def reference(self) -> SetPredictions:
        """The clean test set, which others are compared with."""
        return next(item for item in self.sets if item.of.role == "reference")

    @property
    def clean(self) -> Predictions:
        """The predictions on the reference as it is."""
        return self.reference.clean

    def __getitem__(self, condition: Condition) -> Predictions:
        predictions = self.reference.by_condition[condition]
        assert isinstance(predictions, Predictions)
        return predictions
