"""Takes what others wrote as a model under test: any module or function of torch from pixels in 0..1 to logits.

In: the module or function, how images become its input, and the classes of its outputs. Out: an `EvaluatedModel`, known
by what decides its answers. Attacks change pixels of 0..1, so that normalisation belongs into the model (`normalised`).
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from synclones.base.errors import InputError, one_line
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.evaluate.answers.predictions import EvaluatedModel
from synclones.models.network import PLAIN_MEAN, PLAIN_STD, Classifier, Preprocessing

Model: TypeAlias = "nn.Module | Callable[[Tensor], Tensor]"
SAME = 1e-3
"""How far two computations of one image's logits may be apart, relative to the largest: kernels depend on the batch."""


def pixels(
    size_px: int | tuple[int, int], crop_fraction: float = 1.0, interpolation: str = "bilinear"
) -> Preprocessing:
    """Return how images become pixels of 0..1 for a model that normalises by itself.

    Args:
        size_px: side of the input; height and width where they differ.
        crop_fraction: side of the centre crop over the shorter side of the resized image, in 0..1.
        interpolation: PIL filter of the resizing, such as bilinear or bicubic.
    """
    return Preprocessing(
        size_px=size_px, crop_fraction=crop_fraction, interpolation=interpolation, mean=PLAIN_MEAN, std=PLAIN_STD
    )


class Normalised(nn.Module):  # type: ignore[misc]  # torch's own types are left out
    """A module that takes normalised input, behind that normalisation; mean and deviation are part of its identity."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.network = network
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.train(network.training)

    def forward(self, images: Tensor) -> Tensor:
        """Return the network's logits float[n, classes] of pixels float[n, 3, h, w] in 0..1."""
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def normalised(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Return a module of pixels in 0..1 that normalises them for ``network``, per channel."""
    return Normalised(network, mean, std)


class _Called(nn.Module):  # type: ignore[misc]  # torch's own types are left out
    """A function as a module; pixels are brought to its device, logits back."""

    def __init__(self, function: Callable[[Tensor], Tensor], device: str):
        super().__init__()
        self.function, self.device = function, device
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits = self.function(images.to(self.device))
        return logits.to(images.device) if isinstance(logits, Tensor) else logits


def from_callable(
    model: Model,
    preprocessing: Preprocessing,
    class_ids: Sequence[str],
    name: str,
    identity: str | None = None,
    device: str = "cpu",
) -> EvaluatedModel:
    """Return a module or function as a model under test; it is run on two made images to see that it is one.

    Args:
        model: pixels float32[n, 3, h, w] in 0..1 -> logits float[n, classes], each image by itself. A module is in
            evaluation mode; it is not copied, and the evaluation moves it to its device.
        preprocessing: of images to pixels, see `pixels`; its mean and deviation are 0 and 1.
        class_ids: class of each output, in order.
        name: what tables call it.
        identity: of a function, what changes whenever its answers do, such as a version or a hash of its weights: kept
            logits are found again by it. Of a module, something that its tensors and text do not show.
        device: where a function wants its pixels; a module goes where the evaluation computes.

    Raises:
        InputError: training mode; a function without identity; other shapes or types; logits that differ from one call
            to the next, or with what else is in the batch; a preprocessing that normalises.
    """
    name = one_line(name)
    class_ids = tuple(class_ids)
    if (preprocessing.mean, preprocessing.std) != (PLAIN_MEAN, PLAIN_STD):
        raise InputError(
            f"{name}: preprocessing has mean {preprocessing.mean} and std {preprocessing.std}, but models take pixels "
            "of 0..1: put yours into normalised(model, mean, std), and give pixels(size_px)"
        )
    if isinstance(model, nn.Module):
        _refuse_training(model, name)
        network, digest = model, module_sha256(model)
        known = digest if identity is None else sha256_bytes(canonical_json([digest, identity]))
    elif not identity:
        raise InputError(
            f"{name}: a function without identity; give identity=, a text that changes whenever its answers do, or "
            "kept logits of an older one would be taken for its own"
        )
    else:
        network, known = _Called(model, device), sha256_bytes(canonical_json(["function", identity]))
    classifier = Classifier(network, preprocessing, class_ids).eval()
    _try(classifier, name)
    kind = "torch module" if isinstance(model, nn.Module) else "function"
    return EvaluatedModel(name, classifier, known, source=name, format=kind)


def module_sha256(module: nn.Module) -> str:
    """Return a hash of what decides a module's answers: its text, and names, types, shapes and bytes of its tensors.

    The text holds the type and the settings of every layer, such as strides and activations, which tensors do not show;
    addresses in it are left out.
    """
    text = re.sub(r" at 0x[0-9a-f]+", "", f"{type(module).__module__}.{type(module).__qualname__}\n{module}")
    digest = hashlib.sha256(text.encode())
    # Buffers that are not stored decide answers, too; state that is no tensor is taken as text.
    state = dict(module.named_buffers()) | module.state_dict()
    for name in sorted(state):
        value = state[name]
        if not isinstance(value, Tensor):
            digest.update(f"\n{name} {re.sub(r' at 0x[0-9a-f]+', '', repr(value))}".encode())
            continue
        digest.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def gives_gradient(model: EvaluatedModel) -> bool:
    """Return whether attacks can follow the model's gradient at its pixels."""
    images = _made_images(model.classifier)[:1].requires_grad_(True)
    logits: Tensor = model.classifier(images)
    return bool(logits.requires_grad)


def _refuse_training(module: nn.Module, name: str) -> None:
    trained = next((where or type(part).__name__ for where, part in module.named_modules() if part.training), None)
    if trained is not None:
        raise InputError(
            f"{name}: {trained} is in training mode, where an answer depends on chance and on the batch; call .eval()"
        )


def _made_images(classifier: Classifier) -> Tensor:
    """Return two images of noise, where the network's tensors are."""
    generator = torch.Generator().manual_seed(0)
    where = next((tensor.device for tensor in classifier.network.state_dict().values()), torch.device("cpu"))
    return torch.rand(2, 3, *classifier.preprocessing.input_px, generator=generator).to(where)


def _try(classifier: Classifier, name: str) -> None:
    """Refuse what is no classifier of these classes, or none whose answers can be kept."""
    images = _made_images(classifier)
    classifier.to(images.device)
    with torch.no_grad():
        logits, again, alone = classifier(images), classifier(images), classifier(images[1:])
    expected = (2, len(classifier.class_ids))
    if not isinstance(logits, Tensor) or not logits.is_floating_point() or tuple(logits.shape) != expected:
        given = f"{logits.dtype} {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"{name}: gives {given} for two images, expected floats {list(expected)}: a row of logits for each image, "
            "a column for each class"
        )
    if not torch.isfinite(logits).all():
        return  # the evaluation names the image
    tolerance = SAME * float(logits.abs().max())
    for other, own, when in (
        (again, logits, "when it is asked again"),
        (alone, logits[1:], "without others beside it"),
    ):
        if float((other - own).abs().max()) > tolerance:
            raise InputError(
                f"{name}: answers otherwise {when}; switch off dropout and statistics of the batch (.eval())"
            )
