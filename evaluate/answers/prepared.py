"""How images become a model's input where not as its own preprocessing says, as in the papers' code.

In: stored images, and a classifier. Out: images of the input's size; a block in which the classifier normalises so.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from synclones.base.errors import InputError

if TYPE_CHECKING:  # importing it would load torch for --help
    from synclones.models.network import Classifier


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """How an image becomes the input where not as the model's own preprocessing says; JSON-able by `asdict`."""

    shorter_px: int
    """Shorter side of the resized image, whatever size it had; 0: images as they are."""
    size_px: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    logit_scale: float | None = None
    """Of a zero-shot model, where not the checkpoint's own."""

    @contextlib.contextmanager
    def applied(self, classifier: "Classifier") -> Iterator[None]:
        """Let the classifier normalise and scale in this way while the block runs."""
        import torch

        own = classifier.mean, classifier.std
        classifier.mean, classifier.std = (
            torch.tensor(values, device=mean.device, dtype=mean.dtype).view(1, 3, 1, 1)
            for values, mean in zip((self.mean, self.std), own, strict=True)
        )
        scale = None
        if self.logit_scale is not None:
            scale = classifier.network.logit_scale.detach().clone()
            classifier.network.logit_scale.data.fill_(float(np.log(self.logit_scale)))
        try:
            yield
        finally:
            classifier.mean, classifier.std = own
            if scale is not None:
                classifier.network.logit_scale.data.copy_(scale)

    def fit(self, image: np.ndarray) -> np.ndarray:
        """Resize and crop: uint8[h, w, 3] to uint8[size, size, 3].

        Raises:
            InputError: an image that is not resized has another size than the input.
        """
        from synclones.models.network import resize_and_crop

        if self.shorter_px:
            return resize_and_crop(image, self.size_px, self.shorter_px, self.interpolation)
        if image.shape[:2] != (self.size_px, self.size_px):
            height, width = image.shape[:2]
            raise InputError(
                f"--protocol paper: an image of the backgrounds is {width}x{height} px, the papers' code takes them as "
                f"they are and the model {self.size_px}x{self.size_px}; leave D6 out, or take another model"
            )
        return image
