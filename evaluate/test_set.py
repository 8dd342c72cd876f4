"""The images of one evaluated set by position, what their labels stand for, and what else is known of each.

In: a folder of labelled images, of this project or of others. Out: `TestSet`.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from synclones.base.errors import InputError, one_line
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.evaluate.corruptions.corrupted_set import generated_settings
from synclones.shards.sources.labelled import LabelledImage, LabelledSource
from synclones.shards.sources.open import open_source

Decision = Literal["classes", "top1", "mean"]
"""How a model's answer becomes one of the set's classes: ``classes``: the largest logit among those of the set;
``top1``: the class that the largest of all logits is a member of, or none; ``mean``: the class whose members have the
largest mean probability."""


class TestSet:
    """The images of a labelled set by position: of a folder of this project, or of others, in place.

    Attributes:
        folder: where it is.
        name: what tables call it.
        class_ids: what labels number; empty where images show none of the classes.
        members: class of the set -> ids of the model's classes that stand for it; empty where ids are the model's own.
        decision: how an answer becomes one of ``class_ids``.
        facts: what is known of each image besides, by name: arrays of n.
        content_hash: what it is known by: equal for equal images, labels, choice and order.
    """

    __test__ = False  # pytest would take the name for a test

    def __init__(
        self,
        folder: Path,
        labelled: bool = True,
        *,
        name: str = "",
        class_ids: tuple[str, ...] | None = None,
        labels: np.ndarray | None = None,
        positions: np.ndarray | None = None,
        members: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
        decision: Decision = "classes",
        facts: Mapping[str, np.ndarray] = MappingProxyType({}),
        source: LabelledSource | None = None,
    ):
        """Open the folder; not ``labelled``: whatever its images show, it is none of the classes.

        Args:
            name: what tables call it; by default its folder, with the corruption above it where it was generated.
            class_ids: what ``labels`` number, where the folder's own labels are not those that are asked for.
            labels: int64[n] of the images at ``positions``.
            positions: int64[n], ascending: which images of the folder, where not all.
            facts: arrays of n.
            source: the opened folder, where the caller has it.

        Raises:
            InputError: when it has no images, or no labels where they are asked.
        """
        self.source = source or LabelledSource(open_source(folder), labelled=labelled)
        self.folder, self._labelled = self.source.folder, labelled
        self.class_ids = self.source.class_ids if class_ids is None else class_ids
        self._positions, self._labels = positions, labels
        self.members, self.decision, self.facts = members, decision, dict(facts)
        self._given_name = name
        if not len(self):
            raise InputError(f"{self.folder}: holds no image that is asked for; give another set")

    @cached_property
    def content_hash(self) -> str:
        """What it is known by: the set's own hash where nothing was chosen or relabelled."""
        own = self.source_hash
        if self._positions is None and self._labels is None:
            return own
        chosen = [None if array is None else sha256_bytes(array.astype("<i8").tobytes()) for array in self._chosen]
        return sha256_bytes(canonical_json([own, *chosen, None if self._labels is None else list(self.class_ids)]))

    @cached_property
    def source_hash(self) -> str:
        """What the whole folder is known by, whatever was chosen of it: manifests name sets so."""
        return self.source.content_hash()

    @property
    def _chosen(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        return self._positions, self._labels

    @cached_property
    def name(self) -> str:
        """What tables call it."""
        folder = self.folder.resolve()
        if self._given_name or generated_settings(folder) is None:
            return one_line(self._given_name or folder.name)
        return one_line(f"{folder.parent.name}/{folder.name} (generated)")

    def __len__(self) -> int:
        return len(self.source) if self._positions is None else len(self._positions)

    def position(self, number: int) -> int:
        """Return where in the folder an image lies."""
        return number if self._positions is None else int(self._positions[number])

    def label(self, number: int) -> int:
        """Return the label alone, from the sidecar."""
        if self._labels is not None:
            return int(self._labels[number])
        return self.source.label(self.position(number))

    @cached_property
    def labels(self) -> np.ndarray:
        """int64[n]: all labels."""
        if self._labels is not None:
            return self._labels
        if not self._labelled:
            return np.array([self.label(number) for number in range(len(self))])
        labels, _ = self.source.all_labels_and_indices()
        return labels if self._positions is None else labels[self._positions]

    def file_name(self, number: int) -> str:
        """Return what the image is called in its folder."""
        return self.source.name(self.position(number))

    def __getitem__(self, number: int) -> LabelledImage:
        image = self.source.read(self.position(number))
        return image if self._labels is None else LabelledImage(image.pixels, self.label(number), image.index)

    def choose(self, numbers: np.ndarray, name: str = "") -> "TestSet":
        """Return the same set with some of its images, int64[m] ascending, under the same name or another."""
        positions = numbers if self._positions is None else self._positions[numbers]
        return TestSet(
            self.folder,
            self._labelled,
            name=name or self._given_name,
            class_ids=self.class_ids,
            labels=None if self._labels is None else self._labels[numbers],
            positions=positions,
            members=self.members,
            decision=self.decision,
            facts={name: values[numbers] for name, values in self.facts.items()},
            source=self.source,
        )
