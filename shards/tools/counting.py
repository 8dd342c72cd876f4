"""Counts what is in a set: classes, statuses and their reasons, image sizes, scores, captions that repeat.

In: complete shards; every stored sample is read and checked once. Out: `Stats`.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from synclones.base.errors import SynclonesError
from synclones.base.json_file import parse_json
from synclones.base.manifest import read_manifest
from synclones.shards.read import ShardFolder
from synclones.shards.schema import Sample, SampleRow

BINS, MOST_REPEATED = 20, 20


@dataclass
class Stats:
    """What a set holds."""

    name: str = ""
    unfinished: str = ""
    """How far an unfinished set is, in words."""
    num_shards: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (status, reason); ``ok`` with a reason is an image that a gate has marked."""
    classes: dict[int, str] = field(default_factory=dict)
    """Name of each label; -1 for unlabelled."""
    per_class: dict[int, Counter[str]] = field(default_factory=dict)
    """Label -> status -> count, of planned samples."""
    sides: Counter[tuple[int, int]] = field(default_factory=Counter)
    """By (width, height) in px."""
    image_bytes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64[n]: of each stored image."""
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    """Name of a score -> float64[m]: of the rows that have it, stored or not."""
    repeated: dict[str, int] = field(default_factory=dict)
    """The captions that most images have, with their number, the most frequent first; none of a single image."""
    images_repeating: int = 0
    """Images that share their caption with another one."""
    num_captions: int = 0
    """Different captions."""

    @property
    def num_images(self) -> int:
        return self.statuses["ok"]

    @property
    def num_planned(self) -> int:
        return sum(self.statuses.values())


def count(shards: ShardFolder) -> Stats:
    """Read all rows and samples of a set.

    Raises:
        VerificationError: one is damaged.
    """
    made = Stats(num_shards=len(shards.shards))
    # Numbers in place of texts and objects: a set may have millions of images.
    captions, indices, sizes = array("Q"), array("q"), array("q")
    scores: dict[str, array[float]] = {}
    for name in shards.shards:
        for row in shards.rows(name):
            _count_row(made, row, scores)
        for sample in shards.sequential([name]):
            made.sides[image_size(sample)] += 1
            sizes.append(len(sample.jpg))
            indices.append(sample.index)
            captions.append(int.from_bytes(hashlib.sha256(sample.txt.encode()).digest()[:8], "big"))
    made.image_bytes = np.array(sizes, np.int64)
    made.scores = {name: np.array(values, np.float64) for name, values in sorted(scores.items())}
    _count_captions(made, shards, np.array(captions, np.uint64), indices)
    made.classes = _class_names(shards.folder, made.per_class)
    return made


def _count_captions(made: Stats, shards: ShardFolder, hashes: np.ndarray, indices: Sequence[int]) -> None:
    """Count equal captions, and read those that most images have again.

    Args:
        hashes: uint64[n], of the caption of each stored sample.
        indices: the samples' own numbers.
    """
    _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    made.num_captions, made.images_repeating = len(counts), int(counts[counts > 1].sum())
    order = np.lexsort((first, -counts))[:MOST_REPEATED]
    made.repeated = {
        shards.get(indices[first[number]]).txt: int(counts[number]) for number in order if counts[number] > 1
    }


def _count_row(made: Stats, row: SampleRow, scores: "dict[str, array[float]]") -> None:
    made.statuses[row.status] += 1
    made.per_class.setdefault(row.label, Counter())[row.status] += 1
    if row.reason:
        made.reasons[row.status, row.reason] += 1
    for name, value in _scores(row.scores).items():
        if type(value) in (int, float) and np.isfinite(value):
            scores.setdefault(name, array("d")).append(float(value))


def _scores(text: str) -> dict[str, Any]:
    """The scores of a row; none where they are no JSON object."""
    try:
        scores = parse_json(text or "{}")
    except ValueError:
        return {}
    return scores if isinstance(scores, dict) else {}


def image_size(sample: Sample) -> tuple[int, int]:
    """Return (width, height) in px as the image's header states them; (0, 0) when it states none."""
    import simplejpeg

    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(sample.jpg)
    except ValueError:
        return 0, 0
    return int(width), int(height)


def _class_names(folder: Path, labels: dict[int, Counter[str]]) -> dict[int, str]:
    """Label -> class id of all labels in the rows and all classes of the manifest, in order."""
    try:
        listed = read_manifest(folder).get("classes")
    except SynclonesError:  # unfinished: no manifest yet
        listed = []
    names = {number: str(name) for number, name in enumerate(listed if isinstance(listed, list) else [])}
    return {label: names.get(label, "" if label < 0 else "?") for label in sorted({*names, *labels})}


def histogram(values: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, np.ndarray]:
    """Return (counts, edges) of at most ``bins`` bins over the range of the values: int64[b], float64[b + 1].

    Whole numbers, such as distances in bits, get bins with equally many of them: else some would stand out.
    """
    low, high = float(values.min()), float(values.max())
    if (values == np.floor(values)).all():
        step = -(-(high - low + 1) // bins)
        edges = np.arange(low, high + step + 1, step) - 0.5
    else:
        edges = np.histogram_bin_edges(values, bins=1 if low == high else bins)
    return np.histogram(values, bins=edges)[0].astype(np.int64), edges.astype(np.float64)
