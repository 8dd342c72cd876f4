"""Attacks on pixels: the smallest change that hurts most.

In: a classifier that normalises inside, pixels float32[n, 3, h, w] in 0..1, labels. Out: attacked pixels in 0..1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def fgsm(classifier: nn.Module, pixels: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Take one step of size ``epsilon`` (in 0..1) along the sign of the loss' gradient, clipped to 0..1.

    Source: Goodfellow et al. 2015, arXiv 1412.6572, section 4. The summed loss keeps each image's gradient its own.

    Raises:
        ValueError: when pixels are outside 0..1, as after a normalisation that belongs inside the classifier.
    """
    if pixels.min() < 0 or pixels.max() > 1:
        raise ValueError(f"pixels from {pixels.min():.3g} to {pixels.max():.3g} were given, expected 0..1")
    pixels = pixels.detach().requires_grad_(True)
    loss = F.cross_entropy(classifier(pixels).float(), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, pixels)
    return (pixels.detach() + epsilon * gradient.sign()).clamp(0, 1)
