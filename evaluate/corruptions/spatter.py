"""Spatter: drops of water or mud on the lens.

In: ``uint8[h, w, 3]``, a severity's constants, a generator. Out: ``uint8[h, w, 3]``. Upstream shades water with
OpenCV's Canny edges, distance transform and equalised histogram; here they are written out for the layer of drops.
"""

import numpy as np
from scipy import ndimage

from synclones.evaluate.corruptions.filters import gaussian
from synclones.evaluate.corruptions.pixels import as_rows, cut, for_channels

_WATER, _MUD = (175, 238, 238), (63, 42, 20)
_EDGE_LOW, _EDGE_HIGH, _FAR = 50, 150, 20
_SHADING = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])


def spatter(image: np.ndarray, constants: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """Let drops fall on the image: constants (mean, deviation, blur, threshold, strength or blur, 0 water or 1 mud)."""
    mean, deviation, blur, threshold, strength, kind = constants
    layer = rng.standard_normal(image.shape[:2], dtype=np.float32) * np.float32(deviation) + np.float32(mean)
    layer = gaussian(layer, blur, channels=1)
    layer[layer < threshold] = 0
    rows = as_rows(image)
    width = image.shape[1]
    if kind == 0:
        drops = shaded(np.floor(layer * 255).astype(np.uint8)) * np.float32(strength)
        rows += for_channels(drops) * np.tile(np.asarray(_WATER, dtype=np.float32), width)
        return cut(rows)
    mud = gaussian((layer > threshold).astype(np.float32), strength, channels=1)
    mud[mud < 0.8] = 0
    cover = for_channels(mud)
    rows *= 1 - cover
    rows += cover * np.tile(np.asarray(_MUD, dtype=np.float32), width)
    return cut(rows)


def shaded(layer: np.ndarray) -> np.ndarray:
    """Return how bright water of the thickness uint8[h, w] shines: float32[h, w], at most 1."""
    distance = np.full(layer.shape, float(_FAR))
    if (edge := edges(layer)).any():
        distance = np.minimum(ndimage.distance_transform_edt(~edge), _FAR)
    # Light from one corner, by the slope of the equalised distance from the drop's edge.
    equal = equalised(_box(distance).astype(np.uint8))
    light = np.clip(ndimage.correlate(equal.astype(np.int64), _SHADING, mode="mirror"), 0, 255)
    light = np.rint(_box(light.astype(np.float64)))
    shine = layer * light
    return np.asarray(shine / max(shine.max(), 1), dtype=np.float32)


def _box(values: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.uniform_filter(values, 3, mode="mirror"))


def equalised(image: np.ndarray) -> np.ndarray:
    """Equalise the histogram of uint8[h, w] as OpenCV's ``equalizeHist`` does."""
    counts = np.bincount(image.ravel(), minlength=256)
    darkest = int(np.flatnonzero(counts)[0])
    others = image.size - counts[darkest]
    if not others:
        return image
    counts[darkest] = 0
    return np.asarray(np.rint(np.cumsum(counts) * (255 / others)).astype(np.uint8)[image])


def edges(image: np.ndarray) -> np.ndarray:
    """Return the edges of uint8[h, w] by Canny's method, with OpenCV's thresholds on |gx| + |gy|: bool[h, w]."""
    grey = image.astype(np.int64)
    down, right = (ndimage.sobel(grey, axis, mode="nearest") for axis in (0, 1))
    strength = np.abs(down) + np.abs(right)
    # A maximum across the edge, whose direction is one of four, with the angles' bounds at 22.5 and 67.5 degrees.
    wide = np.pad(strength, 1)

    def at(y: int, x: int) -> np.ndarray:
        """Return each pixel's neighbour."""
        return wide[1 + y : 1 + y + len(grey), 1 + x : 1 + x + grey.shape[1]]

    flat, steep = (
        np.abs(down) <= np.tan(np.pi / 8) * np.abs(right),
        np.abs(down) > np.tan(3 * np.pi / 8) * np.abs(right),
    )
    falling = (down >= 0) == (right >= 0)
    horizontal = (strength > at(0, -1)) & (strength >= at(0, 1))
    vertical = (strength > at(-1, 0)) & (strength >= at(1, 0))
    diagonal = np.where(
        falling, (strength > at(-1, -1)) & (strength > at(1, 1)), (strength > at(-1, 1)) & (strength > at(1, -1))
    )
    thin = np.where(flat, horizontal, np.where(steep, vertical, diagonal)) & (strength > _EDGE_LOW)
    # Weak edges count where they hang together with a strong one.
    labels, _ = ndimage.label(thin, np.ones((3, 3)))
    strong = np.unique(labels[thin & (strength > _EDGE_HIGH)])
    return np.isin(labels, strong[strong > 0])
