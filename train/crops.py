"""The random crop of training, by one published definition, and the filter that resizes each image's own part of it.

In: uniform numbers per image, and the size of the images. Out: boxes in whole pixels, and what the images show in them.
The definition is torchvision's ``RandomResizedCrop`` (its ``get_params``, and its antialiased bilinear filter), after
Inception's crop (Szegedy et al. 2015); every image has a box of its own, and all are resampled in two matrix products.
"""

import numpy as np
import torch
from torch import Tensor

TRIES = 10
RATIO_MAX = 4 / 3


def random_boxes(
    scale: np.ndarray, ratio: np.ndarray, left: np.ndarray, top: np.ndarray, size: tuple[int, int], scale_min: float
) -> np.ndarray:
    """Return a box of each image as (left, top, width, height), int64[n, 4], in px of images of ``size`` (h, w).

    ``scale``, ``ratio``: uniform numbers [TRIES, n], of which the first pair whose box fits into the image counts: area
    share uniform in ``scale_min``..1, aspect ratio logarithmically uniform in 3/4..4/3. ``left``, ``top``: uniform [n].
    When none fits, the largest box at the centre with an aspect ratio in these limits.
    """
    height, width = size
    # Every try at once, rounded as torchvision rounds; a box counts when it is not empty and not larger than the image.
    areas = height * width * (scale_min + (1 - scale_min) * scale)
    ratios = np.exp(np.log(RATIO_MAX) * (2 * ratio - 1))
    widths, heights = np.rint(np.sqrt(areas * ratios)), np.rint(np.sqrt(areas / ratios))
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first, images = fits.argmax(0), np.arange(scale.shape[1])
    w, h = widths[first, images], heights[first, images]
    # Placed uniformly among all whole pixels; the box of last resort lies at the centre.
    x, y = np.floor(left * (width - w + 1)), np.floor(top * (height - h + 1))
    limited = np.clip(width / height, 1 / RATIO_MAX, RATIO_MAX)
    last_w, last_h = min(width, np.rint(height * limited)), min(height, np.rint(width / limited))
    last = [(width - last_w) // 2, (height - last_h) // 2, last_w, last_h]
    boxes: np.ndarray = np.where(fits.any(0)[:, None], np.stack([x, y, w, h], 1), last).astype(np.int64)
    return boxes


def whole_boxes(n: int, size: tuple[int, int]) -> np.ndarray:
    """Return boxes that are whole images of ``size`` (h, w): int64[n, 4]."""
    return np.tile(np.array([0, 0, size[1], size[0]], dtype=np.int64), (n, 1))


def resample(images: Tensor, boxes: np.ndarray, mirrored: np.ndarray, size_px: int) -> Tensor:
    """Resize each image's box to float[n, 3, size_px, size_px], antialiased, and mirror where bool[n] ``mirrored``."""
    _, _, height, width = images.shape
    x, y, w, h = torch.from_numpy(boxes).to(images.device, images.dtype).unbind(1)
    flips = torch.from_numpy(mirrored).to(images.device)
    columns = filter_weights(x, w, flips, width, size_px)
    rows = filter_weights(y, h, torch.zeros_like(flips), height, size_px)
    narrowed = torch.einsum("nchw,nxw->nchx", images, columns)
    return torch.einsum("nyh,nchx->ncyx", rows, narrowed)


def filter_weights(start: Tensor, extent: Tensor, reverse: Tensor, length: int, size_px: int) -> Tensor:
    """Return how much of each input pixel each output pixel is made of: float[n, size_px, length], rows sum to 1.

    The triangle filter of Pillow and of torchvision's ``antialias=True``: as wide as an output pixel where the box
    (``start`` and ``extent`` float[n] in px) shrinks, bilinear where it grows; nothing outside the box is looked at.
    """
    device, dtype = start.device, start.dtype
    outputs = (torch.arange(size_px, device=device, dtype=dtype) + 0.5) / size_px
    places = torch.where(reverse[:, None], 1 - outputs, outputs)
    centres = (start[:, None] + places * extent[:, None])[:, :, None]
    pixels = torch.arange(length, device=device, dtype=dtype) + 0.5
    reach = (extent / size_px).clamp(min=1)[:, None, None]
    inside = (pixels > start[:, None, None]) & (pixels < (start + extent)[:, None, None])
    weights = (1 - (pixels - centres).abs() / reach).clamp(min=0) * inside
    return weights / weights.sum(2, keepdim=True)
