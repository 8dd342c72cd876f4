"""Write the fixture of the corruptions' tests with another program, imagecorruptions-imaug, and upstream's formulas.

In: nothing. Out: ``corruptions.npz``: an image of 32 px and what the fixed corruptions make of it, and for the random
ones the mean absolute change of 256 images, as mean and deviation over images. The constants are those of 224 px, the
only ones that program has. It runs in an environment of its own (``make oracles``), which the project never imports.

Where that program is not upstream's, upstream's formula stands here, in the libraries that upstream uses: elastic
deformation, and the frost textures it may draw (five, cut at full size). Where no drop of water falls on an image, both
divide by zero and leave it black; such an image counts as unchanged here.
"""

import importlib.resources
import sys
from pathlib import Path

import cv2
import imagecorruptions
import numpy as np
from scipy.ndimage import map_coordinates
from skimage.filters import gaussian

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from corruption_reference import photo  # noqa: E402

IMAGES, SIZE, SEVERITIES = 256, 32, range(1, 6)
FIXED = (
    "defocus_blur",
    "gaussian_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "saturate",
    "pixelate",
    "jpeg_compression",
)
RANDOM = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur", "motion_blur", "snow", "fog"),
    "spatter",
)
ELASTIC = [(244 * a, 244 * b, 244 * c) for a, b, c in ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02))]
ELASTIC += [(244 * a, 244 * 0.01, 244 * 0.02) for a in (0.07, 0.12)]
FROST = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))


def elastic(x, severity):
    size, smoothness, reach = ELASTIC[severity - 1]
    x, n = np.float32(x) / 255, len(x)
    centre, third = n // 2, n // 3
    points = np.float32([[centre + third] * 2, [centre + third, centre - third], [centre - third] * 2])
    moved = points + np.random.uniform(-reach, reach, size=(3, 2)).astype(np.float32)
    x = cv2.warpAffine(x, cv2.getAffineTransform(points, moved), (n, n), borderMode=cv2.BORDER_REFLECT_101)
    fields = [gaussian(np.random.uniform(-1, 1, (n, n)), smoothness, mode="reflect", truncate=3) * size for _ in "xy"]
    rows, columns = np.mgrid[:n, :n]
    at = [rows + fields[1], columns + fields[0]]
    moved = [map_coordinates(x[..., channel], at, order=1, mode="reflect") for channel in range(3)]
    return np.uint8(np.clip(np.stack(moved, 2), 0, 1) * 255)


def frost(x, severity, textures):
    texture = textures[np.random.randint(5)]
    top, left = (np.random.randint(0, side - len(x)) for side in texture.shape[:2])
    share, more = FROST[severity - 1]
    return np.uint8(np.clip(share * x + more * texture[top : top + len(x), left : left + len(x), ::-1], 0, 255))


def frost_textures():
    folder = importlib.resources.files(imagecorruptions) / "frost"
    return [cv2.imread(str(folder / f"frost{number}.{'png' if number < 4 else 'jpg'}")) for number in range(1, 6)]


def change(make, images):
    """Mean and deviation over images of the mean absolute change, for each severity: float64[5, 2]."""
    made = [[(x, make(x, s)) for x in images] for s in SEVERITIES]
    rows = [[np.abs(y.astype(float) - x).mean() if y.any() else 0 for x, y in row] for row in made]
    return np.stack([np.mean(rows, 1), np.std(rows, 1)], 1)


def main():
    np.random.seed(0)
    corrupt = lambda name: lambda x, s: imagecorruptions.corrupt(x, severity=s, corruption_name=name)  # noqa: E731
    images, textures = [photo(1000 + seed, SIZE) for seed in range(IMAGES)], frost_textures()
    out = {"image": photo(7, SIZE)}
    for name in FIXED:
        out[name] = np.stack([corrupt(name)(out["image"], s) for s in SEVERITIES])
    for name in RANDOM:
        out[f"{name}_strength"] = change(corrupt(name), images)
    out["elastic_transform_strength"] = change(elastic, images)
    out["frost_strength"] = change(lambda x, s: frost(x, s, textures), images)
    np.savez_compressed(HERE / "corruptions.npz", **out)


if __name__ == "__main__":
    main()
