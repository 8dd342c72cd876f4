"""Images and texts as vectors of one CLIP model of open_clip, in float32.

In: a model's folder (``open_clip_config.json`` and ``open_clip_model.safetensors``), a hub id, or the name and tag of
one that open_clip knows. Out: float32 vectors of length 1. Files are checked before anything loads; safetensors only.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synclones.base.errors import InputError
from synclones.base.files import files_sha256
from synclones.base.weights import check_safetensors, find_folder, read_model_json

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
_TOKENIZER_FILES = ("tokenizer*.json", "vocab*", "merges.txt", "special_tokens_map.json", "*.model")
LOCAL = "local-dir:"
LIBRARIES = ("open_clip_torch", "torchvision", "pillow")  # whose release can change a vector


@dataclass(frozen=True)
class ClipFolder:
    """A checked CLIP model: its name for people and columns, where it lies, the hash of its files."""

    name: str
    path: Path
    sha256: str


def find_clip(model: str, flag: str) -> ClipFolder:
    """Check the folder, hub id (``owner/name``, ``owner/name@commit``) or ``architecture/tag`` of open_clip.

    Raises:
        InputError: there is none, a file is missing, cut or pickled; the message begins with ``flag``.
        MachineError: the hub does not answer and the model is not in its cache.
    """
    name, _, revision = model.removeprefix(LOCAL).partition("@")
    local = Path(model.removeprefix(LOCAL))
    if local.is_dir():
        path, name = local, local.resolve().name
    elif model.startswith(LOCAL):
        raise InputError(f"{flag}: no folder {str(local)!r}; give the folder of an open_clip model")
    else:
        path, _ = find_folder(_hub_id(name), revision, [CONFIG, WEIGHTS, *_TOKENIZER_FILES], flag)
    if not isinstance(read_model_json(path / CONFIG).get("model_cfg"), dict):
        raise InputError(f"{path / CONFIG}: names no model_cfg; give the folder of an open_clip model")
    check_safetensors(path / WEIGHTS)
    files = {path / CONFIG, path / WEIGHTS}.union(*(path.glob(pattern) for pattern in _TOKENIZER_FILES))
    return ClipFolder(name, path, files_sha256(path, sorted(files)))


def _hub_id(name: str) -> str:
    """The hub id behind ``ViT-B-32/laion2b_s34b_b79k``; anything else as it is."""
    architecture, separator, tag = name.partition("/")
    if not separator:
        return name
    import open_clip

    known: dict[str, Any] = open_clip.get_pretrained_cfg(architecture, tag) or {}
    owner_and_name = str(known.get("hf_hub") or name).split("/")[:2]
    return "/".join(owner_and_name) if known else name


class Embedder:
    """A loaded CLIP model. Safe to use from several threads.

    Vectors of a batch depend on the batch's size in their last bits, as every network's do: give batches that do not
    change, or round.
    """

    def __init__(self, clip: ClipFolder, device: str = "cpu"):
        """Load the model.

        Raises:
            InputError: open_clip cannot build or fill it.
        """
        import open_clip

        source = f"{LOCAL}{clip.path}"
        try:
            made = open_clip.create_model_and_transforms(source, device=device, weights_only=True)
            self._tokenizer = open_clip.get_tokenizer(source)
        except (RuntimeError, ValueError, TypeError, KeyError, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"{clip.path}: open_clip cannot load this model ({reason}); copy it again") from None
        self._model, self._preprocess = made[0].eval(), made[2]
        self._device, self._lock = device, threading.Lock()

    def images(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Return float32[n, d] of n times uint8[h, w, 3] of any size, prepared as the model's configuration says."""
        import torch
        from PIL import Image

        with torch.inference_mode():
            pixels = torch.stack([self._preprocess(Image.fromarray(image)) for image in images])
            return self._numbers(self._model.encode_image(pixels.to(self._device), normalize=True))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32[n, d]; a text longer than the model reads is cut."""
        import torch

        with self._lock:  # fast tokenizers keep their padding between calls
            tokens = self._tokenizer(list(texts))
        with torch.inference_mode():
            return self._numbers(self._model.encode_text(tokens.to(self._device), normalize=True))

    def _numbers(self, vectors: Any) -> np.ndarray:
        numbers: np.ndarray = vectors.float().cpu().numpy()
        return numbers
