"""The 15 corruptions of ImageNet-C: ours beside imagecorruptions-imaug, CPU time of one core, at 224 px and at 32 px.

Equality first: what is fixed by its formula is within one grey level everywhere and half of one on the mean, and what
is random changes images as much on the mean. The peer knows the constants of 224 px alone, so that both use these at 32
px too; ours is timed with its own table as well. Images are cut from scikit-learn's two photographs. The peer's elastic
deformation is another and lighter one than ImageNet-C's, and its frost reads a file where ours draws: both are timed
and not compared, and the mean is printed without them too.

The peer needs numba, scikit-image and OpenCV, which this project does not; give it a folder of its own:

    pip install --target peer imagecorruptions-imaug==1.1.5
    python benchmarks/corruptions.py --peer peer

Without --peer ours alone are timed.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from synclones.evaluate.corruptions.constants import TEST
from synclones.evaluate.corruptions.corrupt import corrupt

IMAGES, CHECKED, ROUNDS, SEVERITIES = 64, 16, 3, (1, 2, 3, 4, 5)
FIXED = ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate")
NOT_COMPARED = (
    "elastic_transform",
    "frost",
    "jpeg_compression",
)  # the last is the same codec, perhaps of another version
Corruption = Callable[[np.ndarray, str, int, int], np.ndarray]


def ours(image: np.ndarray, name: str, severity: int, key: int) -> np.ndarray:
    """Corrupt with the constants of 224 px."""
    return corrupt(image, name, severity, seed=0, key=key, table=224)


def ours_by_size(image: np.ndarray, name: str, severity: int, key: int) -> np.ndarray:
    """Corrupt with the constants of the image's own size."""
    return corrupt(image, name, severity, seed=0, key=key)


def load_peer(folder: str) -> Corruption:
    """Return the peer's corruptions, on one thread."""
    # Not this script's folder: numba would take coverage.py in it for the package of that name.
    own = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != own] + [folder]
    import cv2
    import imagecorruptions

    cv2.setNumThreads(0)
    np.random.seed(0)
    return lambda image, name, severity, key: imagecorruptions.corrupt(image, severity=severity, corruption_name=name)


def photographs(size: int) -> list[np.ndarray]:
    """Return squares cut from two photographs at random: uint8[size, size, 3] each."""
    rng, images = np.random.default_rng(0), []
    photos = load_sample_images().images
    for number in range(IMAGES):
        side = int(rng.integers(224, 427))
        top, left = rng.integers(0, 427 - side), rng.integers(0, 640 - side)
        part = Image.fromarray(photos[number % 2][top : top + side, left : left + side])
        images.append(np.asarray(part.resize((size, size), Image.Resampling.BICUBIC)))
    return images


def check_equal(name: str, images: list[np.ndarray], peer: Corruption) -> None:
    """Assert that both make the same of an image, or change images as much on the mean."""
    for severity in SEVERITIES:
        pairs = [(ours(x, name, severity, k), peer(x, name, severity, k)) for k, x in enumerate(images)]
        if name in FIXED:
            difference = np.abs(np.subtract(*np.array(pairs, dtype=np.int16).swapaxes(0, 1)))
            assert difference.max() <= 1 and difference.mean() < 0.5, f"{name} {severity}: other images"
        elif name not in NOT_COMPARED:
            change = [[np.abs(y.astype(float) - x).mean() for y in pair] for x, pair in zip(images, pairs, strict=True)]
            apart = np.subtract(*np.transpose(change))
            slack = 5 * apart.std() / np.sqrt(len(images)) + 0.02 * np.mean(change)
            assert abs(apart.mean()) < slack, f"{name} {severity}: {np.mean(change, axis=0)} grey levels"


def milliseconds(function: Corruption, name: str, images: list[np.ndarray]) -> float:
    """Return CPU milliseconds per image over all images, severities in turn."""
    started = time.process_time()
    for key, image in enumerate(images):
        function(image, name, SEVERITIES[key % 5], key)
    return (time.process_time() - started) / len(images) * 1e3


def compare(size: int, peer: Corruption | None) -> None:
    """Print milliseconds per image of each corruption, best of interleaved rounds, and the ratios."""
    images, functions = photographs(size), [ours, ours_by_size] + ([peer] if peer else [])
    print(f"{size} px{'':19} ours  own table   peer  ratio")
    rows = {}
    for name in TEST:
        if peer:
            check_equal(name, images[:CHECKED], peer)
        else:
            milliseconds(ours, name, images)  # tables are made in the first calls
        milliseconds(ours_by_size, name, images[:5])
        rounds = [[milliseconds(function, name, images) for function in functions] for _ in range(ROUNDS)]
        rows[name] = [min(column) for column in zip(*rounds, strict=True)]
        report(name, rows[name])
    report("mean of 15", [mean(column) for column in zip(*rows.values(), strict=True)])
    others = [row for name, row in rows.items() if name not in ("elastic_transform", "frost")]
    report("without elastic, frost", [mean(column) for column in zip(*others, strict=True)])


def report(name: str, row: list[float]) -> None:
    """Print a row."""
    print(
        f"{name:22} {row[0]:7.3f} {row[1]:9.3f}",
        *(f"{row[2]:8.3f} {row[2] / row[0]:6.2f}" for _ in row[2:]),
        flush=True,
    )


def main() -> None:
    """Compare at both sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="folder that imagecorruptions-imaug was installed into by pip's --target")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 32], help="px")
    given = parser.parse_args()
    peer = load_peer(given.peer) if given.peer else None
    for size in given.sizes:
        compare(size, peer)


if __name__ == "__main__":
    main()
