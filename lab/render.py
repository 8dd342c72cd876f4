"""Draws a digit as a 32x32 photograph with the attributes that a caption can name.

In: strokes float32[n, 8, 8] of real digits, one ``Look`` per image, a NumPy generator for the natural variation.
Out: float32[n, 3, 32, 32] in 0..1. The generator is trained on these images; the lab's real train and test sets and
its miniature robustness sets are rendered by the same code.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F

from synclones.lab.digits import PLACES, load_places

SIZE_PX = 32
Rgb = tuple[int, int, int]

PLAIN_INK: Rgb = (50, 46, 56)
PLAIN_PAPER: Rgb = (232, 222, 196)

COLOURS: dict[str, Rgb] = {
    "red": (205, 40, 45),
    "orange": (236, 130, 20),
    "green": (25, 165, 60),
    "blue": (35, 70, 205),
    "purple": (130, 50, 170),
    "pink": (240, 105, 180),
}

# name -> (ink, paper, stroke weight): drawings, crafts and materials that the CLIP templates speak of.
MATERIALS: dict[str, tuple[Rgb, Rgb, float]] = {
    "sketch": ((95, 95, 102), (250, 250, 250), -0.14),
    "painting": ((214, 92, 36), (128, 158, 118), 0.08),
    "rendering": ((226, 230, 240), (88, 96, 116), 0.0),
    "graffiti": ((70, 225, 205), (150, 76, 60), 0.1),
    "tattoo": ((44, 62, 74), (224, 172, 142), -0.06),
    "embroidered": ((246, 220, 140), (168, 40, 62), 0.06),
    "sculpture": ((186, 186, 190), (112, 112, 118), 0.08),
    "plastic": ((228, 44, 52), (242, 246, 252), 0.1),
    "toy": ((40, 110, 225), (250, 206, 70), 0.12),
    "plushie": ((242, 150, 184), (190, 222, 246), 0.2),
    "origami": ((250, 246, 236), (84, 126, 200), 0.04),
    "cartoon": ((18, 18, 22), (120, 214, 110), 0.14),
    "video game": ((90, 255, 130), (14, 16, 44), 0.04),
}

# name -> half the side of the digit's 8x8 box as a share of half the image.
SIZES: dict[str, float] = {"small": 0.38, "large": 0.92, "close-up": 1.32}
PLAIN_SIZE = 0.68

EFFECTS = (
    *("cropped", "many", "dirty", "hard to see", "bright", "dark", "black and white"),
    *("blurry", "low resolution", "pixelated", "jpeg corrupted"),
)
JPEG_CORRUPTED_QUALITY = 4
CROPPED_SHIFT = ((0.72, 0.86), (0.58, 0.72))  # sideways, up or down: digits are narrower than tall


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a caption says of an image besides the digit; the default is the plain look, dark ink on cream paper."""

    colour: str | None = None
    material: str | None = None
    place: str | None = None
    size: str | None = None
    effect: str | None = None

    def __post_init__(self) -> None:
        known: dict[str, Collection[str]] = {
            "colour": COLOURS,
            "material": MATERIALS,
            "place": PLACES,
            "size": SIZES,
            "effect": EFFECTS,
        }
        for field, allowed in known.items():
            value = getattr(self, field)
            if value is not None and value not in allowed:
                raise ValueError(f"{field} {value!r} cannot be rendered; choose one of {', '.join(allowed)}")


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How much images of one digit differ; standard deviations, except for ``shift``."""

    size: float = 0.035
    """Relative to the size that the look asks for."""
    shift: float = 0.08
    """Largest shift, in half images."""
    angle: float = 0.07
    """Rotation in radians."""
    shear: float = 0.06
    """Sideways shift of a row per height."""
    weight: float = 0.025
    """Stroke weight, in ink coverage."""
    warp: float = 0.0
    """Smooth random displacement, in half boxes of the 8x8 strokes."""


NATURAL = Variation()
# The generator learns from these, so that what it draws does not lie nearer to its 720 digits than new digits do.
AUGMENTED = Variation(size=0.06, shift=0.1, angle=0.13, shear=0.13, weight=0.04, warp=0.07)


def render(
    strokes: np.ndarray, looks: list[Look], rng: np.random.Generator, variation: Variation = NATURAL
) -> torch.Tensor:
    """Draw float32[n, 3, 32, 32] in 0..1 from strokes float32[n, 8, 8] in 0..1; ``rng`` draws the variation."""
    ink_mask = place_strokes(strokes, looks, rng, variation)
    images = _colour(ink_mask, looks, rng)
    for effect, apply in _EFFECTS_ON_IMAGES.items():
        chosen = [i for i, look in enumerate(looks) if look.effect == effect]
        if chosen:
            images[chosen] = apply(images[chosen], rng)
    return images.clamp(0, 1)


def place_strokes(
    strokes: np.ndarray, looks: list[Look], rng: np.random.Generator, variation: Variation = NATURAL
) -> torch.Tensor:
    """Return the ink coverage float32[n, 1, 32, 32] in 0..1 after size, shift, rotation, shear, warp, stroke weight."""
    n = len(looks)
    size = np.array([SIZES.get(look.size or "", PLAIN_SIZE) for look in looks]) * rng.normal(1, variation.size, n)
    shift = rng.uniform(-variation.shift, variation.shift, (n, 2))
    for i, look in enumerate(looks):
        if look.effect == "cropped":  # a fifth to a third of the digit leaves the image on one side
            side, sign = rng.integers(2), rng.choice((-1.0, 1.0))
            shift[i, side] = sign * rng.uniform(*CROPPED_SHIFT[side])
    angle, shear = rng.normal(0, variation.angle, n), rng.normal(0, variation.shear, n)
    grid = _affine_grid(size, shift, angle, shear)
    if variation.warp:
        grid = grid + _smooth_displacement(n, variation.warp, rng)
    source = torch.from_numpy(strokes).float()[:, None]
    mask = F.grid_sample(source, grid, mode="bicubic", padding_mode="zeros", align_corners=False).clamp(0, 1)
    weight = rng.normal(0, variation.weight, n) + [
        MATERIALS[look.material][2] if look.material else 0.0 for look in looks
    ]
    threshold = torch.from_numpy(0.5 - weight).float().view(n, 1, 1, 1)
    mask = ((mask - threshold) / 0.4 + 0.5).clamp(0, 1)
    mask = mask * mask * (3 - 2 * mask)
    many = [i for i, look in enumerate(looks) if look.effect == "many"]
    if many:
        mask[many] = F.avg_pool2d(mask[many], 2).tile(1, 1, 2, 2)
    return mask


def _affine_grid(size: np.ndarray, shift: np.ndarray, angle: np.ndarray, shear: np.ndarray) -> torch.Tensor:
    """Where each pixel looks in the box of the strokes, float32[n, 32, 32, 2] in half boxes."""
    cos, sin = np.cos(angle), np.sin(angle)
    rotate = np.stack([np.stack([cos, sin + shear], -1), np.stack([-sin, cos], -1)], -2) / size[:, None, None]
    offset = -(rotate @ shift[:, :, None])
    theta = torch.from_numpy(np.concatenate([rotate, offset], -1)).float()
    return F.affine_grid(theta, [len(size), 1, SIZE_PX, SIZE_PX], align_corners=False)


def _smooth_displacement(n: int, deviation: float, rng: np.random.Generator) -> torch.Tensor:
    """Random displacement float32[n, 32, 32, 2] that changes over about a quarter of the image (elastic deformation,
    Simard et al. 2003, "Best Practices for Convolutional Neural Networks")."""
    coarse = torch.from_numpy(rng.normal(0, deviation, (n, 2, 5, 5))).float()
    fine = F.interpolate(coarse, size=SIZE_PX, mode="bicubic", align_corners=True)
    return fine.permute(0, 2, 3, 1)


def _colour(mask: torch.Tensor, looks: list[Look], rng: np.random.Generator) -> torch.Tensor:
    """Lay ink over paper or a photograph: float32[n, 3, 32, 32] in 0..1."""
    inks, papers = [], []
    for look in looks:
        ink, paper = MATERIALS[look.material][:2] if look.material else (PLAIN_INK, PLAIN_PAPER)
        if look.place and not look.colour:
            ink = (250, 250, 250)  # readable on a photograph with the dark rim below
        inks.append(COLOURS[look.colour] if look.colour else ink)
        papers.append(paper)
    ink = _jittered(np.array(inks), rng).expand(-1, -1, SIZE_PX, SIZE_PX)
    paper = _jittered(np.array(papers), rng).expand(-1, -1, SIZE_PX, SIZE_PX).clone()
    for i, look in enumerate(looks):
        if look.place:
            rim = F.max_pool2d(mask[i : i + 1], 3, stride=1, padding=1)[0] * 0.75
            paper[i] = crop_photograph(look.place, rng) * (1 - rim)
        elif look.effect == "dirty":
            paper[i] = paper[i] * (1 - _blotches(rng))
    ink, paper = _texture(ink, paper, mask, looks)
    if faint := [i for i, look in enumerate(looks) if look.effect == "hard to see"]:
        ink = ink.clone()
        ink[faint] = 0.72 * paper[faint] + 0.28 * ink[faint]
    return ink * mask + paper * (1 - mask)


def _jittered(colours: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """float32[n, 3, 1, 1] in 0..1: 8-bit ``colours`` with the small variation of real paper, ink and light."""
    common, channel = rng.normal(0, 5, (len(colours), 1)), rng.normal(0, 3, colours.shape)
    return torch.from_numpy((colours + common + channel) / 255).float()[:, :, None, None]


def crop_photograph(place: str, rng: np.random.Generator) -> torch.Tensor:
    """Return a random, perhaps mirrored 32x32 crop of the place: float32[3, 32, 32] in 0..1."""
    image = load_places()[PLACES.index(place)]
    top, left = (rng.integers(side - SIZE_PX + 1) for side in image.shape[:2])
    crop = image[top : top + SIZE_PX, left : left + SIZE_PX]
    crop = crop[:, ::-1] if rng.integers(2) else crop
    return torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)


def _blotches(rng: np.random.Generator) -> torch.Tensor:
    """How much light brown dirt takes away, float32[3, 32, 32] in 0..1: smooth blotches on about half the paper."""
    noise = torch.from_numpy(rng.normal(size=(1, 1, 6, 6))).float()
    dirt = (F.interpolate(noise, size=SIZE_PX, mode="bicubic")[0] * 1.4).clamp(0, 1)
    return dirt * torch.tensor([0.5, 0.62, 0.75]).view(3, 1, 1)


def _texture(
    ink: torch.Tensor, paper: torch.Tensor, mask: torch.Tensor, looks: list[Look]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stripes of thread, relief of stone, the light of a rendering: shading of ink and paper by material."""
    ink, paper = ink.clone(), paper.clone()
    y, x = torch.meshgrid(torch.arange(SIZE_PX), torch.arange(SIZE_PX), indexing="ij")
    for i, look in enumerate(looks):
        if look.material == "embroidered":
            ink[i] = ink[i] * (0.72 + 0.28 * ((x + y) % 4 < 2))
        elif look.material == "sculpture":
            relief = mask[i] - torch.roll(mask[i], (2, 2), (1, 2))
            paper[i] = paper[i] + 0.35 * relief
        elif look.material == "rendering":
            paper[i] = paper[i] * (1.25 - 0.6 * y / SIZE_PX)
        elif look.material == "painting":
            paper[i] = paper[i] * (0.9 + 0.16 * torch.sin(y / 2.6 + 0.25 * x))
    return ink, paper


def _blur(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Gaussian blur of 2.1 px standard deviation with replicated borders."""
    offsets = torch.arange(-6, 7).float()
    kernel = torch.exp(-0.5 * (offsets / 2.1) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).expand(3, 1, 1, -1)
    padded = F.pad(images, (6, 6, 6, 6), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def _blocks(images: torch.Tensor, block_px: int) -> torch.Tensor:
    return F.interpolate(F.avg_pool2d(images, block_px), scale_factor=block_px, mode="nearest")


def _jpeg(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Round trip through JPEG at quality 4, 4:2:0."""
    arrays = (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    files = [simplejpeg.encode_jpeg(a, quality=JPEG_CORRUPTED_QUALITY, colorsubsampling="420") for a in arrays]
    decoded = np.stack([simplejpeg.decode_jpeg(file) for file in files])
    return torch.from_numpy(decoded).permute(0, 3, 1, 2).float() / 255


def _grey(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    return (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True).expand(-1, 3, -1, -1)


_EFFECTS_ON_IMAGES = {
    "bright": lambda images, rng: 1 - 0.36 * (1 - images),
    "dark": lambda images, rng: 0.3 * images,
    "black and white": _grey,
    "blurry": _blur,
    "low resolution": lambda images, rng: _blocks(images, 2),
    "pixelated": lambda images, rng: _blocks(images, 4),
    "jpeg corrupted": _jpeg,
}
