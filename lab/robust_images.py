"""The lab's ImageNet: its validation set, -C, -R and -A, and outliers: corrupted, drawn, hard and no digits.

In: strokes float32[n, 8, 8] and labels int64[n] of the test split, a seed. Out: pairs of a path in the layout of the
real set and the file's bytes.
"""

import string
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images

from synclones.evaluate.corruptions.corrupt import SEVERITIES, corrupt
from synclones.lab.digits import load_split
from synclones.lab.real_digits import draw_real_digits, encode
from synclones.lab.render import COLOURS, PLAIN_INK, PLAIN_PAPER, SIZE_PX, Look, crop_photograph, place_strokes, render
from synclones.lab.scenes import pixels, png

Files = Iterator[tuple[str, bytes]]

CORRUPTIONS = ("shot_noise", "motion_blur", "snow", "pixelate", "jpeg_compression")
CORRUPTED_PER_CLASS = 10
# Digits bear what hurts photographs: by the constants of 32 px, made for CIFAR-10, even severity 5 costs a network of
# real digits no more than the noise of a hundred images. Those of 224 px are ImageNet-C's own.
CORRUPTION_TABLE = 224

RENDERED_CLASSES = (0, 2, 3, 5, 6, 9)

HARD_CLASSES = (1, 3, 4, 5, 8, 9)
DRAWS_PER_DIGIT = 8

OUTLIERS_PER_KIND = 300
_LIKE_DIGITS = "ABDGIJLOQSTZbgijloqstyz"
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono-Oblique")
PATCH_PX = 40


# ------------------------------------------------------------------ as they are, and corrupted


def as_they_are(strokes: np.ndarray, labels: np.ndarray, seed: int) -> Files:
    """Give the images of the lab's test set, the bytes that its shards hold."""
    images, _ = draw_real_digits("test")
    for position, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield f"{label}/{position:010d}.jpg", encode(image)


def corrupted(strokes: np.ndarray, labels: np.ndarray, seed: int) -> Files:
    """Corrupt the first ten digits of every class, as the lab's test set stores them.

    ``synclones evaluate corrupt --data lab-val --table 224 --image-format png`` makes the same bytes of these.
    """
    images, _ = draw_real_digits("test")
    for position in np.concatenate([np.flatnonzero(labels == digit)[:CORRUPTED_PER_CLASS] for digit in range(10)]):
        image = simplejpeg.decode_jpeg(encode(images[position]))
        key = f"{labels[position]}/{position:010d}"
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                made = corrupt(image, name, severity, seed=seed, key=key, table=CORRUPTION_TABLE)
                yield f"{name}/{severity}/{key}.png", png(made)


# ------------------------------------------------------------------ renditions


def renditions(strokes: np.ndarray, labels: np.ndarray, seed: int) -> Files:
    """Draw every digit of six classes once, in one of seven styles that no caption of the lab asks for."""
    rng = np.random.default_rng([seed, 4])
    chosen = np.flatnonzero(np.isin(labels, RENDERED_CLASSES))
    ink = place_strokes(strokes[chosen], [Look()] * len(chosen), rng)
    names = list(STYLES)
    # The number within the class decides, so that each style has each class as often as any other.
    numbers = np.zeros(10, dtype=np.int64)
    for mask, position in zip(ink, chosen, strict=True):
        label = int(labels[position])
        style = names[numbers[label] % len(names)]
        numbers[label] += 1
        yield f"{label}/{style}_{position:04d}.png", png(pixels(STYLES[style](mask, rng)))


def _rgb(colour: tuple[int, int, int]) -> torch.Tensor:
    return torch.tensor(colour).view(3, 1, 1) / 255


def _lay(mask: torch.Tensor, ink: torch.Tensor, paper: torch.Tensor) -> torch.Tensor:
    return ink * mask + paper * (1 - mask)


def _colour(rng: np.random.Generator) -> torch.Tensor:
    return _rgb(list(COLOURS.values())[rng.integers(len(COLOURS))])


def _thicker(mask: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(mask[None], 3, stride=1, padding=1)[0]


def _outline(mask: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    thinner = 1 - _thicker(1 - mask)
    return _lay((_thicker(mask) - thinner).clamp(0, 1), _rgb(PLAIN_INK), _rgb(PLAIN_PAPER))


def _inverted(mask: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    return _lay(mask, _rgb(PLAIN_PAPER), _rgb(PLAIN_INK))


def _neon(mask: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    glow = F.avg_pool2d(_thicker(mask)[None], 5, stride=1, padding=2)[0]
    core = 1 - _thicker(1 - mask)
    return _lay(core, _rgb((250, 250, 250)), _lay(glow, _colour(rng), _rgb((12, 10, 24))))


def _halftone(mask: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    y, x = _grid()
    wave = (torch.sin((x + y) * 1.3) * torch.sin((x - y) * 1.3))[None]
    soft = F.avg_pool2d(mask[None], 3, stride=1, padding=1)[0]
    return _lay((wave < soft * 1.7 - 0.75).float(), _colour(rng), _rgb((246, 240, 228)))


def _collage(mask: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A digit cut out of one photograph, glued on the other."""
    behind, cut = crop_photograph("temple", rng), crop_photograph("flower", rng)
    return _lay(_thicker(mask), cut * 0.75, 0.45 + 0.55 * behind)


def _mosaic(mask: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    tiles = [torch.from_numpy(rng.normal(0, 0.12, (1, 3, 16, 16))).float() for _ in range(2)]
    ink, paper = (F.interpolate(tile, size=SIZE_PX, mode="nearest")[0] for tile in tiles)
    coarse = F.interpolate(F.avg_pool2d(mask[None], 2), size=SIZE_PX, mode="nearest")[0]
    return _lay(coarse, _colour(rng) + ink, _rgb((205, 200, 190)) + paper)


def _hatched(mask: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    y, x = _grid()
    lines = ((x + y) % 4 < 2).float()[None]
    return _lay(_thicker(mask) * lines, _rgb(PLAIN_INK), _rgb((250, 250, 250)))


def _grid() -> tuple[torch.Tensor, torch.Tensor]:
    y, x = torch.meshgrid(torch.arange(SIZE_PX), torch.arange(SIZE_PX), indexing="ij")
    return y.float(), x.float()


STYLES: dict[str, Callable[[torch.Tensor, np.random.Generator], torch.Tensor]] = {
    "outline": _outline,
    "inverted": _inverted,
    "neon": _neon,
    "halftone": _halftone,
    "collage": _collage,
    "mosaic": _mosaic,
    "hatched": _hatched,
}


# ------------------------------------------------------------------ hard ones


def hard_digits(strokes: np.ndarray, labels: np.ndarray, seed: int) -> Files:
    """Keep what a classifier of class means, made of the lab's real training digits, gets wrong.

    Of several draws of a digit in the plain look the worst is kept, where that one is wrong: each digit is there once
    at most. No network has a say, and nothing but the natural variation of position and stroke is applied.
    """
    rng = np.random.default_rng([seed, 5])
    train_strokes, train_labels = load_split("classifier-train")
    train = _ink_of(render(train_strokes, [Look()] * len(train_labels), np.random.default_rng([seed, 6])))
    means = np.stack([train[train_labels == digit].mean(0) for digit in range(10)])
    chosen = np.flatnonzero(np.isin(labels, HARD_CLASSES))
    repeated = np.repeat(chosen, DRAWS_PER_DIGIT)
    images = render(strokes[repeated], [Look()] * len(repeated), rng)
    distances = ((_ink_of(images)[:, None] - means) ** 2).sum((2, 3))
    own = distances[np.arange(len(repeated)), labels[repeated]]
    distances[np.arange(len(repeated)), labels[repeated]] = np.inf
    margins = (own - distances.min(1)).reshape(len(chosen), DRAWS_PER_DIGIT)
    for row, position in enumerate(chosen):
        worst = int(margins[row].argmax())
        if margins[row, worst] > 0:
            yield f"{labels[position]}/{position:04d}.png", png(pixels(images[row * DRAWS_PER_DIGIT + worst]))


def _ink_of(images: torch.Tensor) -> np.ndarray:
    """Return darkness float64[n, 32, 32]."""
    darkness: np.ndarray = 1 - images.mean(1).double().numpy()
    return darkness


# ------------------------------------------------------------------ outliers


def outliers(strokes: np.ndarray, labels: np.ndarray, seed: int) -> Files:
    """Draw what is no digit: letters that look like none, patterns, and pieces of photographs."""
    rng = np.random.default_rng([seed, 7])
    for number in range(OUTLIERS_PER_KIND):
        yield f"letters/images/{number:04d}.png", png(_letter(rng))
    for number in range(OUTLIERS_PER_KIND):
        yield f"textures/images/{number:04d}.png", png(pixels(_texture(number, rng)))
    for number, patch in enumerate(_patches()):
        yield f"photographs/images/{number:04d}.png", png(patch)


@cache
def _font(name: str, size_px: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu, which matplotlib brings."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.BASIC)


def _letter(rng: np.random.Generator) -> np.ndarray:
    """A letter in the lab's ink on its paper, as large as its digits: uint8[32, 32, 3]."""
    letters = [letter for letter in string.ascii_letters if letter not in _LIKE_DIGITS]
    letter, font = letters[rng.integers(len(letters))], _font(FONTS[rng.integers(len(FONTS))], 88)
    # Drawn four times as large and shrunk: position and weight are then free of the grid of pixels.
    mask = Image.new("L", (4 * SIZE_PX, 4 * SIZE_PX))
    shift = rng.uniform(-5, 5, 2)
    ImageDraw.Draw(mask).text((64 + shift[0], 64 + shift[1]), letter, fill=255, font=font, anchor="mm")
    mask = mask.rotate(float(rng.normal(0, 4)), Image.Resampling.BILINEAR)
    small = np.asarray(mask.resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX), dtype=np.float64)[:, :, None] / 255
    ink, paper = (np.array(colour) + rng.normal(0, 5) for colour in (PLAIN_INK, PLAIN_PAPER))
    image: np.ndarray = (ink * small + paper * (1 - small)).round().clip(0, 255).astype(np.uint8)
    return image


def _texture(number: int, rng: np.random.Generator) -> torch.Tensor:
    """A pattern of two colours, of five kinds in turn: float32[3, 32, 32]."""
    y, x = _grid()
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 6.3)
    frequency = 2 * np.pi / rng.uniform(4, 12)
    along = float(np.cos(angle)) * x + float(np.sin(angle)) * y
    across = float(np.cos(angle)) * y - float(np.sin(angle)) * x
    stripes, other = torch.sin(frequency * along + phase), torch.sin(frequency * across + phase)
    cells = torch.from_numpy(rng.normal(0, 1, (1, 1, *rng.integers(3, 17, 2)))).float()
    wave = (
        stripes,
        stripes * other * 2,
        (stripes + other - 0.8) * 3,
        F.interpolate(cells, size=SIZE_PX, mode="nearest")[0, 0],
        F.interpolate(cells, size=SIZE_PX, mode="bicubic")[0, 0],
    )[number % 5]
    first, second = (torch.from_numpy(rng.uniform(0, 1, (3, 1, 1))).float() for _ in range(2))
    return _lay((0.5 + 0.5 * wave).clamp(0, 1)[None], first, second)


def _patches() -> Iterator[np.ndarray]:
    """Cut the two photographs into squares that do not overlap: uint8[32, 32, 3], 150 of each."""
    for photograph in load_sample_images().images:
        rows, columns = (side // PATCH_PX for side in photograph.shape[:2])
        for number in range(OUTLIERS_PER_KIND // 2):
            top, left = (PATCH_PX * index for index in divmod(number * rows * columns // 150, columns))
            patch = Image.fromarray(photograph[top : top + PATCH_PX, left : left + PATCH_PX])
            yield np.asarray(patch.resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX))
