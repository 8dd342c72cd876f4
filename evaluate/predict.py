"""Logits of a classifier on a dataset folder, computed once and kept: every metric is arithmetic on them.

In: a classifier, a labelled folder, an attack or none. Out: `Predictions`, kept as ``logits/KEY.safetensors``.
Batches are fixed by position and dealt to processes, so any number of processes computes the same bits.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.json_file import canonical_json
from synclones.evaluate.attacks import fgsm
from synclones.models.network import Classifier
from synclones.shards.schema import sample_key
from synclones.shards.sources.labelled import LabelledImage, LabelledSource


class TestSet:
    """The images of a labelled folder by position."""

    __test__ = False  # pytest would take the name for a test

    def __init__(self, folder: Path):
        """Raises InputError for a folder without labels or images."""
        self.source = LabelledSource(folder)
        self.folder, self.class_ids = self.source.folder, self.source.class_ids
        self.content_hash = self.source.content_hash()

    def __len__(self) -> int:
        return len(self.source)

    def label(self, position: int) -> int:
        """The label alone, from the sidecar."""
        return self.source.label(position)

    def __getitem__(self, position: int) -> LabelledImage:
        return self.source.read(position)


@dataclass(frozen=True)
class Predictions:
    """What a classifier said about every image of a set."""

    logits: np.ndarray
    """float32[n, classes]."""
    labels: np.ndarray
    """int64[n]."""
    index: np.ndarray
    """int64[n]: the images' indices in their folder."""


@dataclass(frozen=True)
class Subject:
    """A classifier under test."""

    name: str
    classifier: Classifier
    weights_sha256: str


def logits_key(subject: Subject, test_set: TestSet, epsilon_255: float) -> str:
    """The name of cached logits: weights, images, preprocessing and attack decide them."""
    parts = [subject.weights_sha256, test_set.content_hash, repr(subject.classifier.preprocessing), epsilon_255]
    return sha256_bytes(canonical_json(parts))[:16]


def check_classes(subject: Subject, test_set: TestSet) -> None:
    """Raises InputError, naming the first difference, when the outputs do not stand for the folder's classes."""
    ours, theirs = subject.classifier.class_ids, test_set.class_ids
    if ours != theirs:
        at = next(
            (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
        )
        a, b = (ids[at] if at < len(ids) else "no class" for ids in (ours, theirs))
        raise InputError(
            f"{subject.name}: has {len(ours)} classes, {test_set.folder} has {len(theirs)}; number {at} is {a!r} and "
            f"{b!r}; evaluate on a folder of the classes it was trained for"
        )


def predict(
    subject: Subject, test_set: TestSet, epsilon_255: float, batch_size: int, out: Path, rank: int, world_size: int
) -> Predictions:
    """Cached or fresh predictions, clean (``epsilon_255`` 0) or under FGSM.

    Raises:
        VerificationError: a logit that is not finite, naming the sample; a damaged cache.
    """
    path = out / "logits" / f"{logits_key(subject, test_set, epsilon_255)}.safetensors"
    if path.exists():
        return _read(path)
    count = -(-len(test_set) // batch_size)
    mine: list[Any] = []
    for number in range(rank, count, world_size):
        places = range(number * batch_size, min((number + 1) * batch_size, len(test_set)))
        mine.append((number, *_predict_batch(subject, test_set, places, epsilon_255)))
    parts = sorted(gather_object(mine) if world_size > 1 else mine, key=lambda part: part[0])
    logits, labels, index = (np.concatenate([part[k] for part in parts]) for k in (1, 2, 3))
    _refuse_not_finite(subject, test_set, logits, index)
    found = Predictions(logits, labels, index)
    if rank == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {"logits": logits, "labels": labels, "index": index}
        how = {"device": subject.classifier.mean.device.type, "torch": torch.__version__, "batch_size": batch_size}
        computed = {"computed": canonical_json(how).decode()}  # one key: safetensors does not keep the order of two
        write_atomic(path, save(tensors | {"sha256": _digest(tensors)}, metadata=computed))
    return found


def _predict_batch(
    subject: Subject, test_set: TestSet, places: range, epsilon_255: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    classifier = subject.classifier
    pictures = [test_set[place] for place in places]
    device = classifier.mean.device
    images = np.stack([classifier.preprocessing.fit(picture.pixels) for picture in pictures])
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    labels = np.array([picture.label for picture in pictures])
    if epsilon_255:
        pixels = fgsm(classifier, pixels, torch.from_numpy(labels).to(device), epsilon_255 / 255)
    with torch.inference_mode():
        logits = classifier(pixels).float().cpu().numpy()
    return logits, labels, np.array([picture.index for picture in pictures])


def _refuse_not_finite(subject: Subject, test_set: TestSet, logits: np.ndarray, index: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(logits).all(1))
    if len(bad):
        raise VerificationError(
            f"{subject.name}: logits of {len(bad)} of {len(index)} images are not finite, first at sample "
            f"{sample_key(int(index[bad[0]]))} of {test_set.folder}; train it again with a lower learning rate"
        )


def _digest(tensors: dict[str, np.ndarray]) -> np.ndarray:
    """SHA-256 of the tensors' bytes, uint8[64]: safetensors itself does not notice a flipped bit."""
    joined = b"".join(np.ascontiguousarray(tensors[name]).tobytes() for name in sorted(tensors))
    return np.frombuffer(sha256_bytes(joined).encode(), dtype=np.uint8)


def _read(path: Path) -> Predictions:
    try:
        tensors = load_file(path)
        stated = tensors.pop("sha256")
        sound = np.array_equal(stated, _digest(tensors))
    except (SafetensorError, KeyError, OSError):
        sound = False
    if not sound:
        raise VerificationError(f"{path}: damaged; delete it, and run the same command to compute it again")
    return Predictions(tensors["logits"], tensors["labels"], tensors["index"])
