"""Shares of right answers on several sets at once, resampled so that sets of the same images are drawn together.

In: `SetPredictions`. Out: their accuracies, float64[..., sets], as they are and on resamples. What is made of them
(means over severities, ratios to clean accuracy, gaps) is then arithmetic.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.evaluate.answers.predictions import SetPredictions
from synclones.evaluate.bounds.intervals import resampled_sums

if TYPE_CHECKING:  # importing it would load Arrow to explain a metric
    from synclones.evaluate.test_set import TestSet


@dataclass(frozen=True, eq=False)
class Shares:
    """Sets whose accuracies are measured together."""

    sets: tuple[SetPredictions, ...]
    _kept: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    @cached_property
    def measured(self) -> np.ndarray:
        """Accuracies of the images as they are, float64[sets]."""
        return np.array([item.answers.correct.mean() for item in self.sets])

    @cached_property
    def images(self) -> int:
        """How many there are in all sets together."""
        return sum(len(item.answers) for item in self.sets)

    def resampled(self, resamples: int, seed: int) -> np.ndarray:
        """Return the accuracies on resamples, float64[resamples, sets].

        Sets of the same images (`same_images`) are drawn together, others each by itself. The first set's images are
        drawn as those of any other number on as many images are, so that differences between models are paired.
        """
        if (resamples, seed) not in self._kept:
            shares = np.empty((resamples, len(self.sets)))
            for number, group in enumerate(self._groups):
                terms = np.stack([self.sets[i].answers.correct for i in group], 1).astype(np.float64)
                # Sets of other images, but of as many, would be drawn alike by the same seed.
                first = self.sets[group[0]].of.test_set.content_hash
                own = seed if number == 0 else int(sha256_bytes(f"{seed} {first}".encode())[:15], 16)
                shares[:, group] = resampled_sums(terms, resamples, own) / len(terms)
            self._kept[resamples, seed] = shares
        return self._kept[resamples, seed]

    @cached_property
    def _groups(self) -> list[list[int]]:
        groups: dict[str, list[int]] = {}
        for number, item in enumerate(self.sets):
            groups.setdefault(same_images(item), []).append(number)
        return list(groups.values())


def same_images(item: SetPredictions) -> str:
    """Return what sets of the same images share: number, labels, and names without their endings, in order.

    ImageNet-C keeps the names of the validation images; a set whose names differ counts as other images.
    """
    return sha256_bytes(canonical_json([_names(item.of.test_set), item.answers.labels.tolist()]))


@lru_cache(maxsize=4096)
def _names(test_set: "TestSet") -> str:
    """Return the hash of the images' names; once for all models, since sets of a suite are millions of images."""
    names = [os.path.splitext(test_set.file_name(number))[0] for number in range(len(test_set))]
    return sha256_bytes(canonical_json(names))


@dataclass(frozen=True, eq=False)
class Number:
    """A number that follows from the accuracies on several sets, as a `Measurement` asks for it.

    Attributes:
        shares: of the sets.
        formula: accuracies float64[..., sets] -> value float64[...].
    """

    shares: Shares
    formula: Callable[[np.ndarray], np.ndarray]

    def of_sums(self, sums: np.ndarray) -> np.ndarray:
        """Return the value of the images as they are; it is no function of sums over one set's images."""
        return np.full(sums.shape[:-1], float(self.formula(self.shares.measured)))

    def resampled(self, resamples: int, seed: int) -> np.ndarray:
        """Return the value on resamples, float64[resamples]."""
        return self.formula(self.shares.resampled(resamples, seed))


def ratio(above: np.ndarray, below: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return the formula of a weighted sum over the accuracy of one set, by its number; NaN where that is 0."""

    def formula(accuracies: np.ndarray) -> np.ndarray:
        clean = accuracies[..., below]
        with np.errstate(divide="ignore", invalid="ignore"):
            value: np.ndarray = np.where(clean > 0, accuracies @ above / clean, np.nan)
        return value

    return formula


def identity(sets: Sequence[SetPredictions]) -> str:
    """Return the hash of several sets together: of one its own."""
    hashes = [item.of.test_set.content_hash for item in sets]
    return hashes[0] if len(hashes) == 1 else sha256_bytes(canonical_json(hashes))
