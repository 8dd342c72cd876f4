"""Classification by an image-text model: the class whose texts lie nearest to the image (Radford et al. 2021).

In: a CLIP model of open_clip, names of classes, templates. Out: a head float32[classes, d], and a `Classifier` of it;
``zero_shot.json`` keeps names and templates beside a model.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import open_clip
import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from synclones.base.class_texts import SLOT, class_names, template_lines
from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.json_file import canonical_json, parse_json, pretty_json, read_json, read_regular
from synclones.models.export_config import MAX_CLASSES, Strict, validated
from synclones.models.network import Classifier, Preprocessing
from synclones.models.tokenizer import Tokenizer

ZERO_SHOT = "zero_shot.json"
HEAD, HEAD_TENSOR = "zero_shot_head.safetensors", "weight"
TEXTS_PER_PASS = 256
MAX_TEMPLATES = 10_000
Text = Annotated[str, Field(min_length=1, max_length=2000)]


@dataclass(frozen=True)
class ZeroShotTexts:
    """What an image-text model chooses among: classes by id and by name, and the sentences that say a name."""

    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    templates: tuple[str, ...]
    """Each with one ``{}`` for the name."""

    def __post_init__(self) -> None:
        """Refuse texts that make no head.

        Raises:
            InputError: none at all, ids that repeat or are not as many as names, a template without exactly one slot.
        """
        if len(self.class_ids) != len(self.class_names):
            raise InputError(
                f"zero-shot classes: {len(self.class_ids)} ids and {len(self.class_names)} names; pair them"
            )
        if not self.class_ids or not self.templates:
            raise InputError("zero-shot classes: give at least one class and one template")
        if len(set(self.class_ids)) < len(self.class_ids):
            raise InputError("zero-shot classes: an id appears twice; give each once")
        for template in self.templates:
            if template.count(SLOT) != 1:
                raise InputError(
                    f"zero-shot templates: {template!r} has {template.count(SLOT)} slots; write {SLOT} once, for "
                    "the name"
                )

    @property
    def sha256(self) -> str:
        """The hash of all texts, in order."""
        return sha256_bytes(canonical_json(asdict(self)))


class _ZeroShotFile(Strict):
    """What the file holds; the checksum is left out by people who write one."""

    class_ids: Annotated[list[Text], Field(max_length=MAX_CLASSES)]
    class_names: Annotated[list[Text], Field(max_length=MAX_CLASSES)]
    templates: Annotated[list[Text], Field(max_length=MAX_TEMPLATES)]
    sha256: str | None = None
    head_sha256: str | None = None


def texts_in(classes: str, templates: str) -> ZeroShotTexts:
    """Read a CSV of class names, and a file of sentences or ``imagenet``.

    Raises:
        InputError: one that is missing, or is no list.
    """
    ids, names = class_names(Path(classes))
    sentences = imagenet_templates() if templates == "imagenet" else template_lines(Path(templates))
    return ZeroShotTexts(ids, names, sentences)


def imagenet_templates() -> tuple[str, ...]:
    """Return the 80 templates of Radford et al. 2021 for ImageNet, as the installed open_clip has them."""
    return tuple(template(SLOT) for template in open_clip.OPENAI_IMAGENET_TEMPLATES)


def write_zero_shot(folder: Path, texts: ZeroShotTexts, head: Tensor | None = None) -> None:
    """Write the texts into a model's folder, whole or not at all, in the place of earlier ones.

    ``head``: float32[classes, d], trained from the texts' vectors; their products with image features of length 1 are
    the logits.
    """
    # Tuples become lists by way of JSON.
    value = parse_json(canonical_json(asdict(texts))) | {"sha256": texts.sha256}
    if head is not None:
        data = save({HEAD_TENSOR: head.detach().float().cpu().contiguous()})
        write_atomic(folder / HEAD, data)
        value |= {"head_sha256": sha256_bytes(data)}
    write_atomic(folder / ZERO_SHOT, pretty_json(value))


def read_trained_head(folder: Path, num_classes: int) -> tuple[Tensor, str] | None:
    """Return the trained head of a model's folder and its sha256; None where the texts are the head.

    Raises:
        InputError: it is no head of so many classes.
        VerificationError: it is missing, or not the one that the texts name.
    """
    stated = _read_file(folder / ZERO_SHOT).head_sha256
    if stated is None:
        return None
    path = folder / HEAD
    try:
        data = read_regular(path, path.stat().st_size)
    except (FileNotFoundError, ValueError) as error:
        raise VerificationError(f"{path}: cannot be read ({error}), {ZERO_SHOT} names it; restore it") from None
    if sha256_bytes(data) != stated:
        raise VerificationError(f"{path}: differs from the hash in {ZERO_SHOT}; restore it")
    try:
        head: Tensor = load(data)[HEAD_TENSOR]
        if head.dim() != 2 or len(head) != num_classes or head.dtype != torch.float32:
            raise ValueError(f"{HEAD_TENSOR} is {head.dtype}{list(head.shape)}, for {num_classes} classes")
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path}: no head ({error}); export the model again") from None
    return head, stated


def read_zero_shot(folder: Path) -> ZeroShotTexts:
    """Return the texts in a model's folder.

    Raises:
        InputError: when there are none, or they make no head.
        VerificationError: when they differ from their own checksum.
    """
    return read_texts(folder / ZERO_SHOT)


def read_texts(path: Path) -> ZeroShotTexts:
    """Return the texts of a file of the form of ``zero_shot.json``.

    Raises:
        InputError: when there are none, or they make no head.
        VerificationError: when they differ from their own checksum.
    """
    given = _read_file(path)
    try:
        texts = ZeroShotTexts(tuple(given.class_ids), tuple(given.class_names), tuple(given.templates))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if given.sha256 not in (None, texts.sha256):
        raise VerificationError(
            f"{path}: differs from its own checksum; restore it, or take out the entry sha256 if the texts are meant"
        )
    return texts


def _read_file(path: Path) -> _ZeroShotFile:
    remedy = "give class_ids, class_names and templates (docs/clip.md)"
    if not path.is_file():
        raise InputError(f"{path.parent}: an image-text model without {path.name}, which names classes; {remedy}")
    try:
        value = read_json(path)
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); {remedy}") from None
    return validated(_ZeroShotFile, value, f"{path}: names no classes", remedy)


def zero_shot_head(
    clip_model: nn.Module, tokenizer: Tokenizer, class_names: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """Return float32[classes, d] of length 1: the normalised mean of a class's normalised texts, one per template.

    On the model's device. Passes are fixed by position, so that the same device and threads give the same bits.
    """
    device = clip_model.logit_scale.device
    per_pass = max(1, TEXTS_PER_PASS // len(templates))
    rows = []
    # The head is no tensor of inference: attacks take gradients through it.
    with torch.inference_mode(False), torch.no_grad():
        for start in range(0, len(class_names), per_pass):
            names = class_names[start : start + per_pass]
            tokens = tokenizer([template.replace(SLOT, name) for name in names for template in templates])
            vectors = [clip_model.encode_text(part.to(device), normalize=True) for part in tokens.split(TEXTS_PER_PASS)]
            mean = torch.cat(vectors).float().unflatten(0, (len(names), len(templates))).mean(1)
            rows.append(F.normalize(mean, dim=-1))
        return torch.cat(rows)


class ZeroShotClassifier(Classifier):
    """An image-text model as a classifier of pixels: logits are the model's scale times the cosines with the texts.

    The head is made at the first images, on the device and with the threads that these have, and kept: after a step of
    training, make another classifier. A bias of the logits (SigLIP's) is the same for all classes and left out.
    """

    def __init__(self, clip_model: nn.Module, preprocessing: Preprocessing, texts: ZeroShotTexts, tokenizer: Tokenizer):
        super().__init__(clip_model, preprocessing, texts.class_ids)
        self.texts, self.tokenizer = texts, tokenizer
        self.made_head: Tensor | None
        self.register_buffer("made_head", None, persistent=False)

    @property
    def head(self) -> Tensor:
        """The vectors of the classes, float32[classes, d]."""
        if self.made_head is None:
            self.made_head = zero_shot_head(self.network, self.tokenizer, self.texts.class_names, self.texts.templates)
        head: Tensor = self.made_head
        return head

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits float[n, classes] of pixels float[n, 3, size, size] in 0..1."""
        features = self.network.encode_image((pixels - self.mean) / self.std, normalize=True)
        logits: Tensor = self.network.logit_scale.exp() * features @ self.head.T
        return logits


class TowerClassifier(Classifier):
    """An image tower under a head of its own: logits are products of the head's rows and image features of length 1."""

    head: Tensor

    def __init__(self, clip_model: nn.Module, preprocessing: Preprocessing, class_ids: tuple[str, ...], head: Tensor):
        """``head``: float32[classes, d]."""
        super().__init__(clip_model, preprocessing, class_ids)
        self.register_buffer("head", head, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits float[n, classes] of pixels float[n, 3, size, size] in 0..1."""
        logits: Tensor = self.network.encode_image((pixels - self.mean) / self.std, normalize=True) @ self.head.T
        return logits
