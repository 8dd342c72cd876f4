"""Attacks on pixels: the smallest change that hurts most.

In: a classifier that normalises inside, pixels float32[n, 3, h, w] in 0..1, labels. Out: attacked pixels in 0..1.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

START = 0x504744  # tells the numbers of random starts from others that are drawn from the same seed


def fgsm(classifier: nn.Module, pixels: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Take one step of size ``epsilon`` (in 0..1) along the sign of the loss' gradient, clipped to 0..1.

    Source: Goodfellow et al. 2015, arXiv 1412.6572, section 4. The summed loss keeps each image's gradient its own.

    Raises:
        ValueError: when pixels are outside 0..1, as after a normalisation that belongs inside the classifier.
    """
    _check_pixels(pixels)
    _, gradient = _logits_and_gradient(classifier, pixels, labels)
    return (pixels.detach() + epsilon * gradient.sign()).clamp(0, 1)


def pgd(
    classifier: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    index: np.ndarray,
    *,
    epsilon: float,
    steps: int,
    step: float,
    seed: int,
    to_the_end: bool = False,
    bf16: bool = False,
) -> Tensor:
    """Search the box of half side ``epsilon`` around each image for one that is answered wrongly, step by step.

    Source: Madry et al. 2018, arXiv 1706.06083, section 2.1, L-infinity: steps of size ``step`` along the sign of the
    gradient, each clipped to the box and to 0..1, from a random point of the box. An image is left as soon as the
    answer is wrong: the accuracy is that over all iterates, which is at most that of the last one, and what is answered
    wrongly from the beginning costs nothing. Starts are drawn for each image by itself, from seed and index, so that
    they depend neither on its batch nor on processes.

    Args:
        classifier: normalises inside.
        pixels: float[n, 3, h, w] in 0..1.
        labels: int64[n].
        index: int64[n], the images' numbers in their set.
        epsilon: largest change of a pixel, in 0..1.
        steps: how many.
        step: size of each, at most ``epsilon``, unless that is 0.
        seed: of the random starts.
        to_the_end: do all steps for all images, however they are answered, as torchattacks does: the accuracy is then
            that of the last iterate alone, and ``step`` may be larger.
        bf16: follow gradients in 16 bits; an image is left only when its answer is wrong in the model's own precision.

    Returns:
        float[n, 3, h, w] in 0..1, at most ``epsilon`` from ``pixels``.

    Raises:
        ValueError: pixels outside 0..1.
    """
    _check_pixels(pixels)
    clean, attacked = pixels.detach(), pixels.detach().clone()
    active = torch.arange(len(clean), device=clean.device)
    if not to_the_end:
        active = active[_answered_rightly(classifier, clean, labels, active)]
    if not epsilon or not len(active):
        return attacked
    attacked[active] = _starts(clean[active], index[active.cpu().numpy()], epsilon, seed)
    for _ in range(steps):
        logits, gradient = _logits_and_gradient(classifier, attacked[active], labels[active], bf16)
        if not to_the_end:  # losses are summed, so that the gradient of those that stay is their own
            right = logits.argmax(1) == labels[active]
            if bf16:
                right[~right] = _answered_rightly(classifier, attacked, labels, active[~right])
            active, gradient = active[right], gradient[right]
        if not len(active):
            break
        moved = attacked[active] + step * gradient.sign()
        attacked[active] = torch.clamp(moved, clean[active] - epsilon, clean[active] + epsilon).clamp(0, 1)
    return attacked


def _starts(clean: Tensor, index: np.ndarray, epsilon: float, seed: int) -> Tensor:
    """Return a point of each image's box, uniform in it before it is clipped to 0..1."""
    shape = tuple(clean.shape[1:])
    drawn = [np.random.default_rng([seed, START, int(i)]).random(shape, dtype=np.float32) for i in index]
    offsets = (2 * torch.from_numpy(np.stack(drawn)) - 1).to(clean.device, clean.dtype)
    return (clean + epsilon * offsets).clamp(0, 1)


def _answered_rightly(classifier: nn.Module, pixels: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
    """Return whether the chosen images, int64[k], are answered rightly: bool[k]."""
    if not len(chosen):
        return torch.zeros(0, dtype=torch.bool, device=pixels.device)
    with torch.no_grad():
        right: Tensor = classifier(pixels[chosen]).argmax(1) == labels[chosen]
    return right


def _check_pixels(pixels: Tensor) -> None:
    if pixels.min() < 0 or pixels.max() > 1:
        raise ValueError(f"pixels from {pixels.min():.3g} to {pixels.max():.3g} were given, expected 0..1")


def _logits_and_gradient(
    classifier: nn.Module, pixels: Tensor, labels: Tensor, bf16: bool = False
) -> tuple[Tensor, Tensor]:
    """Return logits float32[n, classes], and the gradient of the summed cross-entropy at the pixels."""
    pixels = pixels.detach().requires_grad_(True)
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=bf16):
        logits = classifier(pixels).float()
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), pixels)
    return logits.detach(), gradient
