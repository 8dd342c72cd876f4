"""Logits as files: ``logits/KEY.safetensors`` each, with their digest, written whole and read with distrust.

In: `Predictions` as they are computed. Out: files of them, and back.
"""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from synclones.base.errors import VerificationError
from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.json_file import canonical_json, read_regular
from synclones.evaluate.answers.predictions import Predictions
from synclones.evaluate.stored.output import LOGITS
from synclones.evaluate.stored.tensors import tensor_bytes

MOST_BYTES = 2**33
"""Of one file of logits: fifty thousand images of twenty thousand classes have half as many."""


def logits_path(out: Path, key: str) -> Path:
    """Return where logits of this name are kept."""
    return out / LOGITS / f"{key}.safetensors"


def most_bytes(images: int, classes: int) -> int:
    """Return more bytes than so many logits and a header need."""
    return images * (4 * classes + 64) + 2**20


def digest(tensors: dict[str, np.ndarray], key: str) -> np.ndarray:
    """Return the SHA-256 of key and tensors, uint8[64]: a flipped bit shows, and a file under another's name.

    With no key it is the digest of earlier versions.
    """
    joined = b"".join(np.ascontiguousarray(tensors[name]).tobytes() for name in sorted(tensors))
    return np.frombuffer(sha256_bytes(key.encode() + joined).encode(), dtype=np.uint8)


def write_logits(out: Path, key: str, predictions: Predictions, how: dict[str, Any]) -> None:
    """Write logits under their name; ``how`` they were computed goes in as well."""
    path = logits_path(out, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"logits": predictions.logits, "labels": predictions.labels, "index": predictions.index}
    computed = {"computed": canonical_json(how).decode()}  # one key: safetensors does not keep the order of two
    write_atomic(path, tensor_bytes(tensors | {"sha256": digest(tensors, key)}, computed))


def read_logits(out: Path, key: str, labels: np.ndarray, columns: int, classes: int) -> Predictions:
    """Return what is kept under ``key``.

    Args:
        labels: int64[n] that it has to have.
        columns: how many numbers an image has.
        classes: of the model; no file is larger than its logits.

    Raises:
        VerificationError: when it is damaged, of another name, or of other images.
    """
    path, images = logits_path(out, key), len(labels)
    expected = {
        "logits": (np.float32, (images, columns)),
        "labels": (np.int64, (images,)),
        "index": (np.int64, (images,)),
    }
    try:
        tensors = load(read_regular(path, most_bytes(images, classes)))
        stated = tensors.pop("sha256")
        sound = {name: (tensor.dtype.type, tensor.shape) for name, tensor in tensors.items()} == expected
        sound &= any(np.array_equal(stated, digest(tensors, name)) for name in (key, ""))
        sound &= bool(np.isfinite(tensors["logits"]).all())
    except (SafetensorError, KeyError, ValueError):
        sound = False
    if not sound or not np.array_equal(labels, tensors["labels"]):
        raise VerificationError(f"{path}: damaged; delete it, and run the same command to compute it again")
    return Predictions(tensors["logits"], tensors["labels"], tensors["index"])


def read_kept(out: Path, key: str) -> Predictions:
    """Return what is kept under ``key``, whatever the images and classes are: the numbers of the folder rest on it.

    Raises:
        VerificationError: when it is absent, damaged, or of another name.
    """
    path = logits_path(out, key)
    try:
        tensors = load(read_regular(path, MOST_BYTES))
        stated = tensors.pop("sha256")
        logits, labels, index = (tensors[name] for name in ("logits", "labels", "index"))
        sound = logits.ndim == 2 and logits.shape[1] > 0 and bool(np.isfinite(logits).all())
        sound &= labels.shape == index.shape == logits.shape[:1]
        sound &= any(np.array_equal(stated, digest(tensors, name)) for name in (key, ""))
    except (SafetensorError, KeyError, ValueError, OSError):
        sound = False
    if not sound:
        raise VerificationError(f"{path}: absent or damaged; run the evaluation again")
    return Predictions(logits, labels, index)
