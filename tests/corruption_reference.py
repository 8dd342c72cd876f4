"""The formulas of ImageNet-C written out plainly, in float64 and without haste: what the fast ones are compared with.

Results are 0 to 255 before fractions are cut off. Written from the formulas, with scipy's filters and loops.
"""

import colorsys
import io
import math
from functools import cache

import numpy as np
from PIL import Image
from scipy import ndimage


@cache
def photo(seed: int, size: int) -> np.ndarray:
    """An image with the spectrum of a photograph: smooth parts, edges, dark and bright, uint8[size, size, 3]."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)) + 1 / size
    grey, *tints = (np.fft.irfft2(np.fft.rfft2(rng.normal(size=(size, size))) / frequency, (size, size)) for _ in "gab")
    grey = np.where(grey > np.quantile(grey, 0.6), grey + grey.std(), grey)
    channels = [grey + 0.3 * tints[0], grey - 0.2 * tints[0] + 0.2 * tints[1], grey - 0.3 * tints[1]]
    image = np.stack(channels, 2)
    return np.clip(115 + 60 * (image - image.mean()) / image.std(), 0, 255).astype(np.uint8)


def gaussian(x: np.ndarray, deviation: float) -> np.ndarray:
    """skimage's: edges repeated, truncated at four deviations."""
    return ndimage.gaussian_filter(x.astype(float), (deviation, deviation, 0)[: x.ndim], mode="nearest", truncate=4)


def gaussian_blur(x, deviation):
    return gaussian(x, deviation)


def defocus_blur(x, constants):
    radius, deviation = constants
    reach, size = (8, 3) if radius <= 8 else (radius, 5)
    axis = range(-reach, reach + 1)
    disk = np.array([[float(i * i + j * j <= radius * radius) for j in axis] for i in axis])
    disk /= disk.sum()
    bell = np.array([math.exp(-(k**2) / (2 * deviation**2)) for k in range(-(size // 2), size // 2 + 1)])
    bell /= bell.sum()
    for direction in (0, 1):
        disk = ndimage.correlate1d(disk, bell, axis=direction, mode="mirror")
    return np.stack([ndimage.correlate(x[..., c].astype(float), disk, mode="mirror") for c in range(3)], 2)


def motion(x: np.ndarray, radius: int, deviation: float, angle: float) -> np.ndarray:
    """One-sided half Gaussian of 2 radius + 1 steps along the angle, in whole pixels, edges repeated."""
    height, width = x.shape[:2]
    weights = [math.exp(-(i**2) / (2 * deviation**2)) for i in range(2 * radius + 1)]
    result = np.zeros(x.shape)
    for i, weight in enumerate(weights):
        dy = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        dx = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        rows = [min(max(row + dy, 0), height - 1) for row in range(height)]
        columns = [min(max(column + dx, 0), width - 1) for column in range(width)]
        result += weight / sum(weights) * x[rows][:, columns]
    return result


def clipped_zoom(x: np.ndarray, factor: float) -> np.ndarray:
    """A zoom into the middle of a square."""
    size = len(x)
    window = math.ceil(size / factor)
    top = (size - window) // 2
    zoomed = ndimage.zoom(x[top : top + window, top : top + window], (factor, factor, 1)[: x.ndim], order=1)
    trim = (len(zoomed) - size) // 2
    return zoomed[trim : trim + size, trim : trim + size]


def zoom_blur(x, constants):
    factors = np.arange(*constants)
    return (x + sum(clipped_zoom(x.astype(float), factor) for factor in factors)) / (len(factors) + 1)


def by_hsv(x: np.ndarray, change) -> np.ndarray:
    """Change every pixel's (hue, saturation, value), 0 to 1 each."""
    pixels = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in x.reshape(-1, 3) / 255]
    return 255 * np.array(pixels).reshape(x.shape)


def brightness(x, amount):
    return by_hsv(x, lambda h, s, v: (h, s, min(max(v + amount, 0), 1)))


def saturate(x, constants):
    factor, summand = constants
    return by_hsv(x, lambda h, s, v: (h, min(max(s * factor + summand, 0), 1), v))


def contrast(x, factor):
    means = x.mean(axis=(0, 1), keepdims=True)
    return (x - means) * factor + means


def pixelate(x, share):
    size, image = len(x), Image.fromarray(x)
    return np.asarray(image.resize([int(size * share)] * 2, Image.BOX).resize([size] * 2, Image.BOX))


def jpeg_compression(x, quality):
    file = io.BytesIO()
    Image.fromarray(x).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file, formats=["JPEG"]))


# ------------------------------------------------------------------ with chance


def gaussian_noise(x, deviation, rng):
    return 255 * np.clip(x / 255 + rng.normal(0, deviation, x.shape), 0, 1)


def shot_noise(x, photons, rng):
    return 255 * np.clip(rng.poisson(x / 255 * photons) / photons, 0, 1)


def impulse_noise(x, amount, rng):
    hit, white = rng.random(x.shape) <= amount, rng.random(x.shape) < 0.5
    return np.where(hit, np.where(white, 255, 0), x)


def speckle_noise(x, deviation, rng):
    return 255 * np.clip(x / 255 + x / 255 * rng.normal(0, deviation, x.shape), 0, 1)


def iso_noise(x, constants, rng):
    return gaussian_noise(shot_noise(x, constants[0], rng), constants[1], rng)


def low_light(x, brightest, rng):
    low, high = x.min(), x.max()
    dark = 255 * ((x.astype(float) - low) / (high - low)) ** 2 * brightest
    return gaussian_noise(shot_noise(dark, 120, rng), 0.018, rng)


def glass_loop(x: np.ndarray, down: np.ndarray, right: np.ndarray, reach: int) -> np.ndarray:
    """Upstream's loop with its views: what looks like a swap of two pixels changes the first of them only."""
    x = x.copy()
    height, width = x.shape[:2]
    for h in range(height - reach, reach, -1):
        for w in range(width - reach, reach, -1):
            h_other, w_other = h + down[h - reach - 1, w - reach - 1], w + right[h - reach - 1, w - reach - 1]
            x[h, w], x[h_other, w_other] = x[h_other, w_other], x[h, w]
    return x


def glass_blur(x, constants, rng):
    deviation, reach, rounds = constants
    x = np.uint8(gaussian(x, deviation))
    for _ in range(rounds):
        right, down = rng.integers(-reach, reach, size=(2, len(x) - 2 * reach, len(x) - 2 * reach))
        x = glass_loop(x, down, right, reach)
    return gaussian(x, deviation)


def motion_blur(x, constants, rng):
    return np.rint(motion(x, *constants, rng.uniform(-45, 45)))


def snow(x, constants, rng):
    mean, deviation, zoom, threshold, radius, along, share = constants
    layer = clipped_zoom(rng.normal(mean, deviation, x.shape[:2]), zoom)
    layer[layer < threshold] = 0
    layer = np.uint8(np.clip(layer, 0, 1) * 255)
    layer = np.rint(motion(layer, radius, along, rng.uniform(-135, -45)))[..., None]
    grey = (x @ [0.299, 0.587, 0.114])[..., None]
    x = share * x + (1 - share) * np.maximum(x, grey * 1.5 + 127.5)
    return np.clip(x + layer + np.rot90(layer, 2), 0, 255)


def fractal(size: int, decay: float, rng) -> np.ndarray:
    """The diamond-square algorithm, point by point around a torus."""
    grid, step, wobble = np.zeros((size, size)), size, 100.0
    while step >= 2:
        half = step // 2
        spread = wobble * wobble

        def middle(points, spread=spread):
            return sum(grid[y % size, x % size] for y, x in points) / 4 + rng.uniform(-spread, spread)

        for y in range(half, size, step):
            for x in range(half, size, step):
                grid[y, x] = middle([(y + a, x + b) for a in (-half, half) for b in (-half, half)])
        for y in range(0, size, half):
            for x in range((y + half) % step, size, step):
                grid[y, x] = middle([(y - half, x), (y + half, x), (y, x - half), (y, x + half)])
        step, wobble = half, wobble / decay
    grid -= grid.min()
    return grid / grid.max()


def fog(x, constants, rng):
    amount, decay = constants
    brightest, size = x.max() / 255, len(x)
    clouds = fractal(1 << (size - 1).bit_length(), decay, rng)[:size, :size, None]
    return 255 * np.clip((x / 255 + amount * clouds) * brightest / (brightest + amount), 0, 1)


def elastic_transform(x, constants, rng):
    size, smoothness, reach = constants
    n = len(x)
    centre, third = n // 2, n // 3
    points = np.array(
        [[centre + third, centre + third], [centre + third, centre - third], [centre - third, centre - third]]
    )
    moved = points + rng.uniform(-reach, reach, size=(3, 2))
    # Of every pixel of the result, where it was: OpenCV's points are (x, y), scipy's (y, x).
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), points.astype(float)).T
    matrix, offset = back[::-1, 1::-1], back[::-1, 2]
    turned = np.stack(
        [ndimage.affine_transform(x[..., c].astype(float), matrix, offset, order=1, mode="mirror") for c in range(3)], 2
    )
    fields = (rng.uniform(-1, 1, (n, n)) for _ in range(2))
    dx, dy = (ndimage.gaussian_filter(field, smoothness, mode="reflect", truncate=3) * size for field in fields)
    rows, columns = np.mgrid[:n, :n]
    at = [rows + dy, columns + dx]
    return np.stack([ndimage.map_coordinates(turned[..., c], at, order=1, mode="reflect") for c in range(3)], 2)
