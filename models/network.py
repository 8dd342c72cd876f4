"""A classifier that takes pixels: any timm network behind the normalisation it was trained with.

In: pixels float[n, 3, size, size] in 0..1. Out: logits float[n, classes]. Normalisation is inside the network, so that
attacks work on pixels and nobody can forget it, and the resizing of stored images has one owner.
"""

import math
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from synclones.base.errors import InputError, MachineError, as_synclones_error
from synclones.base.units import format_count

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PLAIN_MEAN, PLAIN_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
# Name -> mean and standard deviation by which pixels in 0..1 are normalised; half: -1..1, clip: OpenAI's, plain: not.
PIXELS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "plain": (PLAIN_MEAN, PLAIN_STD),
}
# By timm's names.
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}

BLOCKS_LOOKED_AT = 8

# What timm and torch raise about a network that cannot be.
_REFUSALS = (
    *(TypeError, ValueError, AssertionError, AttributeError, IndexError, KeyError, RuntimeError),
    ZeroDivisionError,
)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a stored image becomes the network's input; part of what a checkpoint is."""

    size_px: int | tuple[int, int]
    """Side of the input; height and width where they differ."""
    crop_fraction: float = 1.0
    """Side of the centre crop over the shorter side of the resized image."""
    interpolation: str = "bilinear"
    """PIL filter of the resizing, one of `FILTERS`."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Per channel, of pixels in 0..1."""
    std: tuple[float, ...] = IMAGENET_STD
    """Per channel, of pixels in 0..1."""

    @property
    def input_px(self) -> tuple[int, int]:
        """Height and width of the input."""
        return (self.size_px, self.size_px) if isinstance(self.size_px, int) else self.size_px

    def fit(self, image: np.ndarray) -> np.ndarray:
        """Resize and crop the centre: uint8[h, w, 3] to uint8[height, width, 3] of the input.

        An image of the right size is returned as it is: resizing benchmark images again would blur them.
        """
        if image.shape[:2] == self.input_px:
            return image
        if isinstance(self.size_px, int):
            return resize_and_crop(image, self.size_px, round(self.size_px / self.crop_fraction), self.interpolation)
        return cover_and_crop(image, self.size_px, self.crop_fraction, self.interpolation)


def described(preprocessing: Preprocessing) -> str:
    """Return in words how an image becomes the input."""
    height, width = preprocessing.input_px
    pixels = next((name for name, stats in PIXELS.items() if stats == (preprocessing.mean, preprocessing.std)), "")
    stats = pixels or f"mean {preprocessing.mean} std {preprocessing.std}"
    resized = round(height / preprocessing.crop_fraction)
    return f"{preprocessing.interpolation} {resized}, crop {height} x {width}, pixels {stats}"


def resize_and_crop(image: np.ndarray, size_px: int, shorter_px: int, interpolation: str = "bilinear") -> np.ndarray:
    """Resize the shorter side to ``shorter_px``, crop the centre: uint8[h, w, 3] to [size, size, 3] (PIL, antialiased).

    Sizes and offsets round as torchvision's Resize and CenterCrop do.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    width, height = (int(shorter_px * side / short) for side in (width, height))
    return _resized_centre(image, (height, width), (size_px, size_px), interpolation)


def cover_and_crop(
    image: np.ndarray, input_px: tuple[int, int], crop_fraction: float, interpolation: str
) -> np.ndarray:
    """Resize until both sides reach those of the input over ``crop_fraction``, crop the centre: uint8[h, w, 3].

    Sizes round as timm's ResizeKeepRatio does, which its evaluation takes for inputs that are not square.
    """
    wanted = [math.floor(side / crop_fraction) for side in input_px]
    ratio = min(side / target for side, target in zip(image.shape[:2], wanted, strict=True))
    height, width = (round(side / ratio) for side in image.shape[:2])
    return _resized_centre(image, (height, width), input_px, interpolation)


def _resized_centre(image: np.ndarray, size: tuple[int, int], crop: tuple[int, int], interpolation: str) -> np.ndarray:
    """Resize to ``size``, both (height, width), and keep the centre of ``crop``."""
    (height, width), (rows, columns) = size, crop
    resized = np.asarray(Image.fromarray(image).resize((width, height), FILTERS[interpolation]))
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    return np.ascontiguousarray(resized[top : top + rows, left : left + columns])


class Classifier(nn.Module):  # type: ignore[misc]  # torch's own types are left out
    """A network, its preprocessing, and the classes its outputs stand for.

    Attributes:
        network: the timm module, which takes normalised input.
        class_ids: class of each output, in order.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, class_ids: tuple[str, ...]):
        super().__init__()
        self.network, self.preprocessing, self.class_ids = network, preprocessing, class_ids
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits float[n, classes] of pixels float[n, 3, size, size] in 0..1."""
        logits: Tensor = self.network((pixels - self.mean) / self.std)
        return logits


def create_network(architecture: str, num_classes: int, size_px: int, model_args: dict[str, Any]) -> nn.Module:
    """Return a timm network with fresh weights; ``model_args`` are the architecture's own, such as ``embed_dim``.

    Raises:
        InputError: when timm does not have the architecture, or it does not take the arguments.
    """
    if architecture not in timm.list_models():
        near = get_close_matches(architecture, timm.list_models(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "; see `timm.list_models()`"
        raise InputError(f"--architecture: timm has no {architecture!r}{hint}")
    sized = {"img_size": size_px} if takes_image_size(architecture) else {}
    try:
        return timm.create_model(architecture, pretrained=False, num_classes=num_classes, **sized, **model_args)
    except _REFUSALS as error:
        raise refusal(architecture, f"cannot be built with {model_args or 'its defaults'}", error) from None


def check_network(
    architecture: str, num_classes: int, size_px: int, model_args: dict[str, Any], smallest_batch: int
) -> None:
    """Build a network and run it on images, all without numbers (on PyTorch's meta device): in a moment, in no memory.

    Raises:
        InputError: when it cannot be built, run on images of ``size_px``, trained with ``smallest_batch`` of them, or
            stored.
    """
    # The blocks of a transformer are alike: a few of them show what a thousand would show in a minute.
    few = {name: min(value, BLOCKS_LOOKED_AT) if name == "depth" else value for name, value in model_args.items()}
    with torch.device("meta"):
        network = create_network(architecture, num_classes, size_px, few).train()
        images = torch.empty(smallest_batch, 3, size_px, size_px)
    refuse_shared(architecture, network)
    try:
        shape = tuple(network(images).shape)
    except NotImplementedError:
        return  # an operation that needs numbers: the first step will show
    except _REFUSALS as error:
        shown = format_count(smallest_batch, "image")
        raise refusal(architecture, f"cannot be trained on {shown} of {size_px} px", error) from None
    if shape != (smallest_batch, num_classes):
        raise InputError(
            f"--architecture {architecture}: gives {list(shape)} for {smallest_batch} images, expected one row of "
            f"{num_classes} outputs each; choose another"
        )


def refuse_shared(architecture: str, network: nn.Module) -> None:
    """Refuse a network of which two names are one tensor.

    Raises:
        InputError: naming both.
    """
    names: dict[int, str] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if names.setdefault(id(tensor), name) != name:
            shared = f"{names[id(tensor)]} and {name} are one tensor"
            raise InputError(f"--architecture {architecture}: cannot be stored, {shared}; choose another")


def refusal(architecture: str, what: str, error: Exception) -> Exception:
    """Return the one line for what timm and torch refuse in many ways; a full memory is the machine's failure."""
    known = as_synclones_error(error)
    if isinstance(known, MachineError):
        return known
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return InputError(f"--architecture {architecture}: {what} ({reason})")


def takes_image_size(architecture: str) -> bool:
    """Return whether the architecture is built for one input size (vision transformers), so that it must be given."""
    fixed: bool = timm.get_pretrained_cfg(architecture).fixed_input_size
    return fixed
