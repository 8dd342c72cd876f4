"""Finds pictures that nearly are one of a given test set: a clone must not train on what it is tested with.

In: uint8[n, h, w, 3] as they were drawn, and the perceptual hashes of the test set. Out: for each row the distance in
bits to the nearest test picture, and its key; of several equally near ones the first.
"""

from collections.abc import Sequence

import numpy as np

from synclones.generate.gates import NEAR_DUPLICATE, Look
from synclones.shards.phash import PictureHashes, distances, picture_hashes

DISTANCE, NEAREST = "test_set_distance", "test_set_nearest"


class NearDuplicates:
    """Finds pictures whose hash differs from a test picture's in at most ``max_distance`` of 64 bits."""

    reason = NEAR_DUPLICATE

    def __init__(self, test_set: PictureHashes, max_distance: int):
        self._test_set, self._max_distance = test_set, max_distance

    def look(self, images: np.ndarray, prompts: Sequence[str]) -> list[Look]:
        """Whether a test picture is as near as that, its distance and its key."""
        return [self._look(one) for one in picture_hashes(images)]

    def _look(self, one: np.uint64) -> Look:
        found = distances(self._test_set.hashes, one)
        nearest = int(found.argmin())
        distance = int(found[nearest])
        return Look(distance <= self._max_distance, {DISTANCE: distance, NEAREST: self._test_set.keys[nearest]})
