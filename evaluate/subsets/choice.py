"""Replaces sets by some of their images: a fixed subset of each, the same images in every copy of a set.

In: `SuiteSet`s. Out: `SuiteSet`s of fewer images, whose names say of how many: "ImageNet (5,000 of 50,000)".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.evaluate.answers.predictions import SuiteSet
from synclones.evaluate.opening.relabel import listing_of
from synclones.evaluate.subsets.subset import hashed_order
from synclones.evaluate.test_set import TestSet


@dataclass(frozen=True, eq=False)
class Order:
    """The images of a set in the fixed order of their hashed names."""

    positions: np.ndarray
    """int64[n]."""
    hashes: np.ndarray
    """S64[n], ascending: of each of these."""

    def first(self, images: int) -> np.ndarray:
        """Return the positions of so many images whose hashes are smallest, ascending."""
        return np.sort(self.positions[:images])

    def up_to(self, last: bytes) -> int:
        """Return how many images have a hash of at most ``last``; at least 1.

        Of a set with the same names these are the same images, whatever either of them lacks.
        """
        return max(1, int(np.searchsorted(self.hashes, last, side="right")))


class Orders:
    """The fixed orders of several sets: names that several have, as the parts of ImageNet-C do, are hashed once."""

    def __init__(self) -> None:
        self._known: dict[str, Order] = {}

    def of(self, test_set: TestSet) -> Order:
        """Return the order of a set; the names of a whole folder are not even read where another had the same."""
        listing = listing_of(test_set)
        if listing in self._known:
            return self._known[listing]
        names = [test_set.file_name(number) for number in range(len(test_set))]
        own = sha256_bytes(canonical_json(names))
        order = self._known[own] if own in self._known else Order(*hashed_order(names))
        self._known |= {key: order for key in (listing, own) if key}
        return order


def subsets(sets: Sequence[SuiteSet], images: int) -> list[SuiteSet]:
    """Return every set with at most so many of its images, those whose hashed names are smallest; 0: all."""
    orders, chosen = Orders(), []
    for of in sets:
        # Parts share one name, since numbers are means over the parts of a name: also one that has few images.
        sizes = {len(other.test_set) for other in sets if other.name == of.name}
        if not images or max(sizes) <= images:
            chosen.append(of)
            continue
        name = (
            f"{of.name} ({images:,} of {max(sizes):,})" if len(sizes) == 1 else f"{of.name} (at most {images:,} each)"
        )
        chosen.append(reduced(of, orders.of(of.test_set).first(images), name))
    return chosen


def reduced(of: SuiteSet, positions: np.ndarray, name: str, **changes: Any) -> SuiteSet:
    """Return a set with the images at some positions, int64[m] ascending, under a name that says so."""
    of = replace(of, name=name, **changes)
    return replace(of, test_set=of.test_set.choose(positions, of.title))
