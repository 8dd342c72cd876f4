"""Logits of a classifier on a dataset folder, computed once and kept: every metric is arithmetic on them.

In: a classifier, a labelled folder, a condition. Out: `Predictions`, kept as ``logits/KEY.safetensors``.
Batches are fixed by position and dealt to processes, so any number of processes computes the same bits.
"""

import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError
from safetensors.numpy import load, save

from synclones.base.errors import InputError, VerificationError, one_line
from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.json_file import canonical_json, read_regular
from synclones.evaluate.corrupted_set import generated_settings
from synclones.evaluate.output import LOGITS
from synclones.evaluate.pieces import Pieces
from synclones.evaluate.predictions import (
    CLEAN,
    Condition,
    EvaluatedModel,
    ModelPredictions,
    OtherPredictions,
    Predictions,
)
from synclones.shards.schema import sample_key
from synclones.shards.sources.labelled import LabelledImage, LabelledSource
from synclones.shards.sources.open import open_source


class TestSet:
    """The images of a labelled set by position: of a folder of this project, or of others, in place."""

    __test__ = False  # pytest would take the name for a test

    def __init__(self, folder: Path, labelled: bool = True):
        """Open the folder; not ``labelled``: whatever its images show, it is none of the classes.

        Raises:
            InputError: when it has no images, or no labels where they are asked.
        """
        self.source = LabelledSource(open_source(folder), labelled=labelled)
        self.folder, self.class_ids = self.source.folder, self.source.class_ids
        self.content_hash = self.source.content_hash()

    @cached_property
    def name(self) -> str:
        """What tables call it: its folder, with the corruption above it where it was generated."""
        folder = self.folder.resolve()
        if generated_settings(folder) is None:
            return one_line(folder.name)
        return one_line(f"{folder.parent.name}/{folder.name} (generated)")

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


def check_classes(model: EvaluatedModel, class_ids: tuple[str, ...], folder: Path) -> None:
    """Refuse a model whose outputs do not stand for the classes of a folder.

    Raises:
        InputError: naming the first class in which they differ.
    """
    ours, theirs = model.classifier.class_ids, class_ids
    if ours != theirs:
        at = next(
            (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
        )
        a, b = (ids[at] if at < len(ids) else "no class" for ids in (ours, theirs))
        if sorted(ours) == sorted(theirs):
            raise InputError(
                f"{model.name}: has the classes of {folder} in another order; number {at} is {a!r} and {b!r}; list "
                "them in one order: that of the model's class list, or of the set's"
            )
        raise InputError(
            f"{model.name}: has {len(ours)} classes, {folder} has {len(theirs)}; number {at} is {a!r} and "
            f"{b!r}; evaluate on a folder of the classes it was trained for"
        )


def predict_all(
    models: list[EvaluatedModel],
    test_set: TestSet,
    conditions: list[Condition],
    batch_size: int,
    out: Path,
    rank: int,
    world_size: int,
    outliers: Mapping[str, TestSet] = MappingProxyType({}),
) -> list[ModelPredictions]:
    """Return all predictions: those kept in ``out``, and fresh ones, which are kept there; none but on rank 0.

    ``outliers``: further sets by name, which are looked at as they are.

    Raises:
        VerificationError: when a logit is not finite, naming the sample; when what is kept is damaged.
    """
    asked = [(test_set, condition) for condition in conditions] + [(others, CLEAN) for others in outliers.values()]
    # Rank 0 alone decides what is missing: another evaluation may write a file while two ranks look for it, and on a
    # shared file system they may see different folders.
    questions = {logits_key(model, *what): (model, *what) for model in models for what in asked}
    paths = {key: _logits_path(out, key) for key in questions}
    kept = {key: _read(path, key, *questions[key][:2]) for key, path in paths.items() if rank == 0 and path.exists()}
    missing = _from_rank_0([key for key in paths if key not in kept], world_size)
    for key in missing:
        kept[key] = predict(*questions[key], batch_size, out, rank, world_size)
    if rank:
        return []
    return [_of_model(model, test_set, conditions, outliers, kept) for model in models]


def _of_model(
    model: EvaluatedModel,
    test_set: TestSet,
    conditions: list[Condition],
    outliers: Mapping[str, TestSet],
    by_key: dict[str, Predictions],
) -> ModelPredictions:
    """Gather the predictions of one model."""
    further = f", {len(outliers)} sets of outliers" if outliers else ""
    print(f"{model.name}: {len(test_set)} images, {len(conditions)} times{further}", file=sys.stderr, flush=True)
    keys = {name: logits_key(model, others, CLEAN) for name, others in outliers.items()}
    return ModelPredictions(
        model,
        {condition: by_key[logits_key(model, test_set, condition)] for condition in conditions},
        {name: OtherPredictions(by_key[key], outliers[name].content_hash, key) for name, key in keys.items()},
    )


def _from_rank_0(value: Any, world_size: int) -> Any:
    """Return rank 0's value on every rank."""
    return broadcast_object_list([value])[0] if world_size > 1 else value


def predict(
    model: EvaluatedModel,
    test_set: TestSet,
    condition: Condition,
    batch_size: int,
    out: Path,
    rank: int,
    world_size: int,
) -> Predictions:
    """Return fresh predictions under a condition, together with the other ranks; rank 0 keeps them in ``out``.

    Raises:
        VerificationError: when a logit is not finite, naming the sample; when the ranks are not at the same work.
    """
    key = logits_key(model, test_set, condition)
    # What an earlier start has kept is taken; rank 0 says what that is, as it decides what is missing.
    pieces = Pieces(out / LOGITS, key, batch_size)
    kept = pieces.read(_most_bytes(model, test_set)) if rank == 0 else {}
    done = set(_from_rank_0(sorted(kept), world_size))
    # Batches are fixed by position, whoever computes them: a logit's last bits may depend on its batch.
    wanted = [number for number in range(-(-len(test_set) // batch_size)) if number not in done]
    mine: list[Any] = []
    for number in wanted[rank::world_size]:
        positions = range(number * batch_size, min((number + 1) * batch_size, len(test_set)))
        batch = _predict_batch(model, test_set, positions, condition)
        pieces.add(number, batch)
        mine.append((number, *batch, key))
    pieces.flush()
    parts = [*(gather_object(mine) if world_size > 1 else mine), *((n, *batch, key) for n, batch in kept.items())]
    if {part[4] for part in parts} != {key}:
        raise VerificationError(f"{out}: the processes computed different logits at once; run the same command again")
    parts.sort(key=lambda part: part[0])
    logits, labels, index = (np.concatenate([part[k] for part in parts]) for k in (1, 2, 3))
    _refuse_not_finite(model, test_set, logits, index)
    # One process keeps them; the others have them in memory and need no file.
    predictions = Predictions(logits, labels, index)
    if rank == 0:
        how = {"device": model.classifier.mean.device.type, "torch": torch.__version__, "batch_size": batch_size}
        _write(_logits_path(out, key), key, predictions, how)
        pieces.remove()
    return predictions


def _most_bytes(model: EvaluatedModel, test_set: TestSet) -> int:
    """Return more bytes than the logits of a set and a header need."""
    return len(test_set) * (4 * len(model.classifier.class_ids) + 64) + 2**20


def _logits_path(out: Path, key: str) -> Path:
    return out / LOGITS / f"{key}.safetensors"


def _predict_batch(
    model: EvaluatedModel, test_set: TestSet, positions: range, condition: Condition
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    classifier = model.classifier
    stored = [test_set[position] for position in positions]
    device = classifier.mean.device
    images = np.stack([classifier.preprocessing.fit(image.pixels) for image in stored])
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
    labels, index = (np.array([getattr(image, name) for image in stored]) for name in ("label", "index"))
    if condition.change is not None:
        pixels = condition.change(classifier, pixels, torch.from_numpy(labels).to(device), index)
    with torch.inference_mode():
        logits = classifier(pixels).float().cpu().numpy()
    return logits, labels, index


def _refuse_not_finite(model: EvaluatedModel, test_set: TestSet, logits: np.ndarray, index: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(logits).all(1))
    if len(bad):
        raise VerificationError(
            f"{model.name}: logits of {len(bad)} of {len(index)} images are not finite, first at sample "
            f"{sample_key(int(index[bad[0]]))} of {test_set.folder}; train it again with a lower learning rate"
        )


def _digest(tensors: dict[str, np.ndarray], key: str) -> np.ndarray:
    """Return the SHA-256 of key and tensors, uint8[64]: a flipped bit shows, and a file under another's name.

    With no key it is the digest of earlier versions.
    """
    joined = b"".join(np.ascontiguousarray(tensors[name]).tobytes() for name in sorted(tensors))
    return np.frombuffer(sha256_bytes(key.encode() + joined).encode(), dtype=np.uint8)


def _write(path: Path, key: str, predictions: Predictions, how: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"logits": predictions.logits, "labels": predictions.labels, "index": predictions.index}
    computed = {"computed": canonical_json(how).decode()}  # one key: safetensors does not keep the order of two
    write_atomic(path, save(tensors | {"sha256": _digest(tensors, key)}, metadata=computed))


def _read(path: Path, key: str, model: EvaluatedModel, test_set: TestSet) -> Predictions:
    """Return what is kept under ``key``.

    Raises:
        VerificationError: when it is damaged, of another name, or of other images.
    """
    images, classes = len(test_set), len(model.classifier.class_ids)
    expected = {
        "logits": (np.float32, (images, classes)),
        "labels": (np.int64, (images,)),
        "index": (np.int64, (images,)),
    }
    try:
        tensors = load(read_regular(path, _most_bytes(model, test_set)))
        stated = tensors.pop("sha256")
        sound = {name: (tensor.dtype.type, tensor.shape) for name, tensor in tensors.items()} == expected
        sound &= any(np.array_equal(stated, _digest(tensors, name)) for name in (key, ""))
        sound &= bool(np.isfinite(tensors["logits"]).all())
    except (SafetensorError, KeyError, ValueError):
        sound = False
    if not sound or [test_set.label(position) for position in range(images)] != tensors["labels"].tolist():
        raise VerificationError(f"{path}: damaged; delete it, and run the same command to compute it again")
    return Predictions(tensors["logits"], tensors["labels"], tensors["index"])
