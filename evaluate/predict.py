"""Logits of a classifier on a dataset folder, computed once and kept: every metric is arithmetic on them.

In: a classifier, a labelled folder, a condition. Out: `Predictions`, kept as ``logits/KEY.safetensors``.
Batches are fixed by position and dealt to processes, so any number of processes computes the same bits.
"""

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
from synclones.evaluate.predictions import CLEAN, Condition, EvaluatedModel, Predictions
from synclones.shards.schema import sample_key
from synclones.shards.sources.labelled import LabelledImage, LabelledSource


class TestSet:
    """The images of a labelled folder by position."""

    __test__ = False  # pytest would take the name for a test

    def __init__(self, folder: Path):
        """Open the folder.

        Raises:
            InputError: when it has no labels or no images.
        """
        self.source = LabelledSource(folder)
        self.folder, self.class_ids = self.source.folder, self.source.class_ids
        self.content_hash = self.source.content_hash()

    def __len__(self) -> int:
        return len(self.source)

    def label(self, position: int) -> int:
        """Return the label alone, from the sidecar."""
        return self.source.label(position)

    def __getitem__(self, position: int) -> LabelledImage:
        return self.source.read(position)


def logits_key(model: EvaluatedModel, test_set: TestSet, condition: Condition) -> str:
    """Return the name of cached logits: weights, images, preprocessing and condition decide them."""
    parts = [model.weights_sha256, test_set.content_hash, repr(model.classifier.preprocessing), _key_part(condition)]
    return sha256_bytes(canonical_json(parts))[:16]


def _key_part(condition: Condition) -> Any:
    """Return what stands for a condition; for the first two what it was before conditions had names."""
    if condition == CLEAN:
        return 0.0
    return condition.settings["epsilon_255"] if condition.name == "fgsm" else [condition.name, condition.settings]


def check_classes(model: EvaluatedModel, test_set: TestSet) -> None:
    """Refuse a model whose outputs do not stand for the folder's classes.

    Raises:
        InputError: naming the first class in which they differ.
    """
    ours, theirs = model.classifier.class_ids, test_set.class_ids
    if ours != theirs:
        at = next(
            (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
        )
        a, b = (ids[at] if at < len(ids) else "no class" for ids in (ours, theirs))
        raise InputError(
            f"{model.name}: has {len(ours)} classes, {test_set.folder} has {len(theirs)}; number {at} is {a!r} and "
            f"{b!r}; evaluate on a folder of the classes it was trained for"
        )


def predict(
    model: EvaluatedModel,
    test_set: TestSet,
    condition: Condition,
    batch_size: int,
    out: Path,
    rank: int,
    world_size: int,
) -> Predictions:
    """Return the predictions under a condition: the ones kept in ``out``, or fresh ones, which are kept there.

    Raises:
        VerificationError: when a logit is not finite, naming the sample; when what is kept is damaged.
    """
    path = out / "logits" / f"{logits_key(model, test_set, condition)}.safetensors"
    if path.exists():
        return _read(path)
    # Batches are fixed by position, whoever computes them: a logit's last bits may depend on its batch.
    mine: list[Any] = []
    for number in range(rank, -(-len(test_set) // batch_size), world_size):
        positions = range(number * batch_size, min((number + 1) * batch_size, len(test_set)))
        mine.append((number, *_predict_batch(model, test_set, positions, condition)))
    parts = sorted(gather_object(mine) if world_size > 1 else mine, key=lambda part: part[0])
    logits, labels, index = (np.concatenate([part[k] for part in parts]) for k in (1, 2, 3))
    _refuse_not_finite(model, test_set, logits, index)
    # One process keeps them; the others have them in memory and need no file.
    predictions = Predictions(logits, labels, index)
    if rank == 0:
        how = {"device": model.classifier.mean.device.type, "torch": torch.__version__, "batch_size": batch_size}
        _write(path, predictions, how)
    return predictions


def _predict_batch(
    model: EvaluatedModel, test_set: TestSet, positions: range, condition: Condition
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    classifier = model.classifier
    stored = [test_set[position] for position in positions]
    device = classifier.mean.device
    images = np.stack([classifier.preprocessing.fit(image.pixels) for image in stored])
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    labels = np.array([image.label for image in stored])
    if condition.change is not None:
        pixels = condition.change(classifier, pixels, torch.from_numpy(labels).to(device))
    with torch.inference_mode():
        logits = classifier(pixels).float().cpu().numpy()
    return logits, labels, np.array([image.index for image in stored])


def _refuse_not_finite(model: EvaluatedModel, test_set: TestSet, logits: np.ndarray, index: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(logits).all(1))
    if len(bad):
        raise VerificationError(
            f"{model.name}: logits of {len(bad)} of {len(index)} images are not finite, first at sample "
            f"{sample_key(int(index[bad[0]]))} of {test_set.folder}; train it again with a lower learning rate"
        )


def _digest(tensors: dict[str, np.ndarray]) -> np.ndarray:
    """Return the SHA-256 of the tensors' bytes, uint8[64]: safetensors itself does not notice a flipped bit."""
    joined = b"".join(np.ascontiguousarray(tensors[name]).tobytes() for name in sorted(tensors))
    return np.frombuffer(sha256_bytes(joined).encode(), dtype=np.uint8)


def _write(path: Path, predictions: Predictions, how: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"logits": predictions.logits, "labels": predictions.labels, "index": predictions.index}
    computed = {"computed": canonical_json(how).decode()}  # one key: safetensors does not keep the order of two
    write_atomic(path, save(tensors | {"sha256": _digest(tensors)}, metadata=computed))


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
