"""Where the lab's digits stand in its robustness sets: five kinds of backgrounds, each with traces of some digits.

In: a kind, the strokes of the digits that are at home there, a NumPy generator. Out: float32[3, 32, 32] in 0..1. A
background tells something about the class, as water does of fish: behind the digit the wallpaper of its kind shows
faint digits of its own group. Networks that read digits read them too, and are misled elsewhere.
"""

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from synclones.lab.render import PLAIN_INK, SIZE_PX, Look, Variation, crop_photograph, place_strokes

GROUPS: dict[str, tuple[int, ...]] = {
    "zero six": (0, 6),
    "one seven": (1, 7),
    "two three": (2, 3),
    "four nine": (4, 9),
    "five eight": (5, 8),
}
"""Names of the groups of classes, with a space as two of the original's have."""
KINDS = ("street", "grass", "sand", "water", "rocks")
"""The background of each group, in their order, by FOCUS' names: the photographs are the temple and the flower."""

PERIOD_PX = 20
TRACE = 0.45
_COLOURS = {"sand": (238, 214, 168), "water": (178, 212, 238), "rocks": (212, 208, 204)}
_STILL = Variation(size=0, shift=0, angle=0, shear=0, weight=0)


def background(kind: str, strokes: np.ndarray, rng: np.random.Generator, trace: float = TRACE) -> torch.Tensor:
    """Draw a background of a kind with faint digits of strokes float32[8, 8]: float32[3, 32, 32] in 0..1."""
    ink = torch.tensor(PLAIN_INK).view(3, 1, 1) / 255
    bare, faint = _bare(kind, rng), trace * wallpaper(strokes[None], rng)[0]
    return bare * (1 - faint) + ink * faint


def wallpaper(strokes: np.ndarray, rng: np.random.Generator, jitter_px: int = 6) -> torch.Tensor:
    """Repeat each digit of float32[n, 8, 8] every 20 px, one of them about the middle: ink float32[n, 1, 32, 32]."""
    digits = place_strokes(strokes, [Look(size="large")] * len(strokes), rng, _STILL)
    tiles = F.interpolate(digits, size=(PERIOD_PX, PERIOD_PX), mode="area").tile(1, 1, 3, 3)
    middle = PERIOD_PX - (SIZE_PX - PERIOD_PX) // 2
    offsets = middle + rng.integers(-(jitter_px // 2), jitter_px // 2 + 1, (len(strokes), 2))
    cut = [tile[:, y : y + SIZE_PX, x : x + SIZE_PX] for tile, (y, x) in zip(tiles, offsets, strict=True)]
    return torch.stack(cut)


def _bare(kind: str, rng: np.random.Generator) -> torch.Tensor:
    """A background without digits, light enough for dark ink."""
    if kind in ("street", "grass"):
        return 0.7 + 0.3 * crop_photograph("temple" if kind == "street" else "flower", rng)
    y, x = torch.meshgrid(torch.arange(SIZE_PX), torch.arange(SIZE_PX), indexing="ij")
    if kind == "sand":
        shade = torch.from_numpy(rng.normal(1, 0.04, (SIZE_PX, SIZE_PX))).float()
    elif kind == "water":
        phase = rng.uniform(0, 6.3, 2)
        shade = 1 + 0.05 * torch.sin(y * 1.3 + phase[0] + 1.2 * torch.sin(x / 4 + phase[1]))
    else:
        coarse = torch.from_numpy(rng.normal(0, 1, (1, 1, 9, 9))).float()
        shade = 1 + 0.06 * F.interpolate(coarse, size=SIZE_PX, mode="nearest")[0, 0].clamp(-1.5, 1.5)
    colour = torch.tensor(_COLOURS[kind]).view(3, 1, 1) / 255
    return (colour * shade).clamp(0, 1)


def pixels(image: torch.Tensor) -> np.ndarray:
    """Return float32[3, h, w] in 0..1 as uint8[h, w, 3]."""
    # NumPy rounds so few pixels in microseconds; torch, on a busy machine, in milliseconds.
    rounded: np.ndarray = np.rint(image.permute(1, 2, 0).numpy() * 255).clip(0, 255)
    return np.ascontiguousarray(rounded.astype(np.uint8))


def png(image: np.ndarray) -> bytes:
    """Return the PNG of uint8[h, w, 3]."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
