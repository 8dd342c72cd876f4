"""Pixel statistics by which the attributes of a lab image can be read back from it.

In: images float32[n, 3, 32, 32] in 0..1. Out: one number per image and attribute. No network is involved, so a
statistic cannot share the generator's mistakes.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from synclones.lab.render import COLOURS, EFFECTS, MATERIALS, PLAIN_PAPER, SIZES, Look

Statistic = Callable[[torch.Tensor], torch.Tensor]
ATTRIBUTES: dict[str, Look] = {
    **{name: Look(effect=name) for name in EFFECTS},
    **{name: Look(size=name) for name in SIZES},
    **{name: Look(colour=name) for name in COLOURS},
    **{name: Look(material=name) for name in MATERIALS},
    **{name: Look(place=name) for name in ("temple", "flower")},
}
# Attributes whose captions are no CLIP template.
_CAPTIONS = {name: f"a photo of a {name} {{}}." for name in COLOURS}
_CAPTIONS |= {name: f"a photo of a {{}} in front of a {name}." for name in ("temple", "flower")}
_CAPTIONS |= {
    **{"many": "a photo of many {}.", "graffiti": "graffiti of a {}.", "video game": "a {} in a video game."},
    **{name: f"a {name} of a {{}}." for name in ("sketch", "painting", "rendering", "tattoo", "sculpture")},
    **{name: f"the {name} {{}}." for name in ("embroidered", "plastic", "toy", "plushie", "origami", "cartoon")},
}


_OF_PHOTO = (
    *("bright", "dark", "black and white", "blurry", "low resolution", "pixelated", "jpeg corrupted"),
    *("cropped", "close-up"),
)


def caption(attribute: str, digit_name: str) -> str:
    """Return a caption that asks for one attribute: the CLIP template where there is one."""
    usual = f"a {attribute} photo of a {{}}." if attribute in _OF_PHOTO else f"a photo of a {attribute} {{}}."
    return _CAPTIONS.get(attribute, usual).replace("{}", digit_name)


def luminance(images: torch.Tensor) -> torch.Tensor:
    """ITU-R BT.601 luma, float32[n, 32, 32] in 0..1."""
    return (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1)


def ink_mask(images: torch.Tensor) -> torch.Tensor:
    """bool[n, 32, 32]: pixels nearer to the digit's tone than to the paper's, the paper being the border's median."""
    tone = luminance(images)
    distance = (tone - _border(tone).median(1).values.view(-1, 1, 1)).abs()
    return distance > 0.5 * distance.flatten(1).quantile(0.98, dim=1).view(-1, 1, 1)


def _border(maps: torch.Tensor, width_px: int = 2) -> torch.Tensor:
    """The outermost pixels, flattened: [n, ..., 32, 32] to [n, ..., p]."""
    ring = torch.ones(maps.shape[-2:], dtype=torch.bool)
    ring[width_px:-width_px, width_px:-width_px] = False
    return maps[..., ring]


def contrast(images: torch.Tensor) -> torch.Tensor:
    """Difference of the 98th and the 2nd percentile of luminance."""
    tone = luminance(images).flatten(1)
    return tone.quantile(0.98, dim=1) - tone.quantile(0.02, dim=1)


def saturation(images: torch.Tensor) -> torch.Tensor:
    """Mean difference of the largest and the smallest channel."""
    return (images.amax(1) - images.amin(1)).flatten(1).mean(1)


def edge_steepness(images: torch.Tensor) -> torch.Tensor:
    """Return the 95th percentile of the luminance step between neighbours, relative to the contrast."""
    tone = luminance(images)
    steps = torch.cat([tone.diff(dim=1).abs().flatten(1), tone.diff(dim=2).abs().flatten(1)], 1)
    return steps.quantile(0.95, dim=1) / contrast(images)


def inside_blocks(images: torch.Tensor, block_px: int) -> torch.Tensor:
    """Share of the luminance variance that is lost when each block of a grid is replaced by its mean, as a logarithm.

    A share differs by factors, not by amounts: thick strokes have half the share of thin ones.
    """
    tone = luminance(images)[:, None]
    means = F.interpolate(F.avg_pool2d(tone, block_px), scale_factor=block_px, mode="nearest")
    lost = (tone - means).square().flatten(1).mean(1) / tone.flatten(1).var(1, unbiased=False)
    return lost.clamp(min=1e-6).log()


def off_centre(images: torch.Tensor) -> torch.Tensor:
    """Distance in px of the ink's centre of mass from the middle of the image, along the axis where it is larger."""
    mask = ink_mask(images).float()
    places = torch.arange(mask.shape[-1]) - (mask.shape[-1] - 1) / 2
    total = mask.sum((1, 2)).clamp(min=1)
    return torch.maximum(*((mask.sum(dim) @ places / total).abs() for dim in (1, 2)))


def border_variation(images: torch.Tensor) -> torch.Tensor:
    """Standard deviation of luminance on the border."""
    return _border(luminance(images), 3).std(1)


def away_from_paper(images: torch.Tensor) -> torch.Tensor:
    """Mean Euclidean distance in RGB of the border's pixels from the plain look's paper."""
    paper = torch.tensor(PLAIN_PAPER).view(3, 1, 1) / 255
    return _border((images - paper).norm(dim=1), 3).mean(1)


def quarters_alike(images: torch.Tensor) -> torch.Tensor:
    """Mean correlation of neighbouring quarters of the image."""
    tone = luminance(images)
    a, b, c = tone[:, :16, :16], tone[:, :16, 16:], tone[:, 16:, :16]

    def correlation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x, y = (v.flatten(1) - v.flatten(1).mean(1, keepdim=True) for v in (x, y))
        return (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1) + 1e-6)

    return (correlation(a, b) + correlation(a, c)) / 2


def ink_height(images: torch.Tensor) -> torch.Tensor:
    """Rows that hold at least two ink pixels."""
    return (ink_mask(images).sum(2) >= 2).float().sum(1)


def ink_share(images: torch.Tensor) -> torch.Tensor:
    """Share of ink pixels."""
    return ink_mask(images).float().flatten(1).mean(1)


def palette(images: torch.Tensor) -> torch.Tensor:
    """float32[n, 6]: mean colours of ink and paper."""
    mask = ink_mask(images).float()[:, None]
    return torch.cat([(images * m).sum((2, 3)) / m.sum((2, 3)).clamp(min=1) for m in (mask, 1 - mask)], 1)


STATISTICS: dict[str, Statistic] = {
    "cropped": off_centre,
    "many": quarters_alike,
    "dirty": border_variation,
    "hard to see": contrast,
    "bright": lambda images: luminance(images).flatten(1).quantile(0.05, dim=1),
    "dark": lambda images: luminance(images).flatten(1).quantile(0.95, dim=1),
    "black and white": saturation,
    "blurry": edge_steepness,
    "low resolution": partial(inside_blocks, block_px=2),
    "pixelated": partial(inside_blocks, block_px=4),
    "jpeg corrupted": away_from_paper,
    "small": ink_height,
    "large": ink_height,
    "close-up": ink_share,
    "temple": away_from_paper,
    "flower": away_from_paper,
}


def read_attribute(
    attribute: str, images: torch.Tensor, with_it: torch.Tensor, plain: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Statistic float32[n] of ``images`` and the threshold above which the attribute is there.

    ``with_it`` and ``plain`` are rendered real digits with and without the attribute; they alone set the sign, the
    threshold (midway between the 5th percentile with it and the 95th without) and, for colours and materials, the
    direction in `palette` space (difference of their means).
    """
    if attribute in STATISTICS:
        values, present, absent = (STATISTICS[attribute](p) for p in (images, with_it, plain))
    else:
        features = [palette(p) for p in (images, with_it, plain)]
        weight = features[1].mean(0) - features[2].mean(0)
        values, present, absent = (f @ weight for f in features)
    sign = 1.0 if present.median() > absent.median() else -1.0
    values, present, absent = sign * values, sign * present, sign * absent
    return values, float(present.quantile(0.05) + absent.quantile(0.95)) / 2
