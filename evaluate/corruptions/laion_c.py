"""The procedural distortions of LAION-C: vertical lines, geometric shapes, luminance checkerboard.

In: ``uint8[h, w, 3]``, a severity's constants, a generator where chance has a part. Out: ``uint8[h, w, 3]``.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

from synclones.evaluate.corruptions.constants import CHECKERBOARD_TILE_PX
from synclones.evaluate.corruptions.pixels import as_rows, cut, for_channels

_SHIFT_PX = -40  # of a line's points, from white (none) to black (all)
_SIZES_PX = (6, 16)


def vertical_lines(image: np.ndarray, constants: tuple[int, int]) -> np.ndarray:
    """Draw the image in lines that bend to the left where it is dark: constants (lines, px between their points)."""
    count, step = constants
    height, width = image.shape[:2]
    grey = np.asarray(Image.fromarray(image).convert("L"))
    canvas = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(canvas)
    rows = np.arange(0, height, step)
    for number in range(count):
        x = number / count * width
        columns = slice(int(x), min(int(x + width / count), width))
        colours, shades = (_means(part, rows, step) for part in (image[:, columns], grey[:, columns, None]))
        points = x + _SHIFT_PX * (1 - shades[:, 0] / 255)
        before = (x, 0.0)
        for y, end, colour in zip(rows.tolist(), points.tolist(), colours.tolist(), strict=True):
            # Each piece goes to this row's point from the one above, whose height it keeps.
            draw.line((*before, end, y), fill=tuple(colour))
            before = (end, float(y))
    return np.asarray(canvas)


def _means(part: np.ndarray, rows: np.ndarray, step: int) -> np.ndarray:
    """Return whole means of [h, n, c] over ``step`` rows each: int64[len(rows), c]; 0 where there are no columns."""
    sums = np.add.reduceat(part.sum(1, dtype=np.int64), rows)
    counts = np.minimum(step, len(part) - rows) * part.shape[1]
    return np.asarray(sums // np.maximum(counts, 1)[:, None])


def geometric_shapes(image: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw triangles, squares, stars and circles of random colours over the image."""
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    kinds = rng.integers(0, 4, count).tolist()
    lefts, tops = rng.integers(0, canvas.width, count).tolist(), rng.integers(0, canvas.height, count).tolist()
    sizes, turns = rng.integers(*_SIZES_PX, count).tolist(), rng.integers(0, 360, count).tolist()
    colours = [tuple(colour) for colour in rng.integers(0, 256, (count, 3)).tolist()]
    for kind, x, y, size, turn, colour in zip(kinds, lefts, tops, sizes, turns, colours, strict=True):
        box = (x, y, x + size, y + size)
        if kind == 0:
            draw.polygon([(x, y), (x + size, y), (x + size / 2, y + size)], fill=colour)
        elif kind == 1:
            draw.rectangle(box, fill=colour)
        elif kind == 2:
            draw.polygon(_star(x, y, size / 1.2, turn), fill=colour)
        else:
            draw.ellipse(box, fill=colour)
    return np.asarray(canvas)


def _star(x: float, y: float, radius: float, turn: int) -> list[tuple[float, float]]:
    """Return the points of a star of five rays around (x, y)."""
    angles = [math.radians(36 * point + turn) for point in range(10)]
    lengths = [radius, radius / 2] * 5
    return [(x + r * math.sin(a), y + r * math.cos(a)) for a, r in zip(angles, lengths, strict=True)]


def luminance_checkerboard(image: np.ndarray, constants: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Make the fields of a checkerboard brighter and darker in turn, by random amounts: constants (least, most)."""
    height, width = image.shape[:2]
    size = CHECKERBOARD_TILE_PX
    rows, columns = -(-height // size), -(-width // size)
    signs = np.where((np.arange(rows)[:, None] + np.arange(columns)) % 2, -1, 1)
    amounts = (rng.uniform(*constants, (rows, columns)) * signs).astype(np.float32)
    fields = amounts.repeat(size, axis=0).repeat(size, axis=1)[:height, :width]
    return cut(as_rows(image) + for_channels(fields))
