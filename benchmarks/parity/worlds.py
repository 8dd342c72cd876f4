"""The images of a parity row, as WebDataset tars that neither side wrote: jpg, cls and txt, in shards of equal size.

In: the lab's digits, or a folder of CIFAR-10 as tars (``cifar10-train-*.tar``, ``cifar10-test-*.tar``, jpg and cls).
Out: ``train-00000.tar`` ..., ``classes.txt``, and the test images. Captions are a sentence with the class and three
drawn words: two images of one batch hardly ever share one, so that plain CLIP and CLIP with equal captions as positives
are the same objective.
"""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
import webdataset
from PIL import Image

SHARDS = 5
COPIES = {"classifier-train": 20, "test": 10}  # how often each of the lab's real digits is drawn, never twice alike
SENTENCE = "a photo of a {}"
WORDS = (
    "amber autumn basket breeze bronze candle canyon cedar clover cobalt copper coral cotton crimson dawn drift dusk "
    "ember fabric feather fern flint forest garden glacier granite harbor hazel honey indigo ivory jasmine kettle "
    "lantern lemon linen maple marble meadow mirror mist moss needle oak olive onyx opal orchid paper pebble pepper "
    "pine plum quartz rain raven river saffron sage sand shadow silk silver slate smoke spruce stone summer teal "
    "thistle thunder timber topaz valley velvet violet walnut willow window winter wool"
).split()


@dataclass(frozen=True)
class World:
    """Shards to train on and images to test on."""

    folder: Path
    """Holds the shards and ``classes.txt``."""
    classes: tuple[str, ...]
    images: int
    """In the shards."""
    test_pixels: np.ndarray
    """uint8[n, 32, 32, 3]."""
    test_labels: np.ndarray
    """int64[n]."""

    @property
    def shards(self) -> list[Path]:
        """The tars, in order."""
        return sorted(self.folder.glob("train-*.tar"))


def open_world(name: str, out: Path, cifar10: Path | None) -> World:
    """Return a world by name; its shards are written where they are missing."""
    if name == "lab":
        train, (test_pixels, test_labels) = _digits("classifier-train", 0), _digits("test", 1)
        encoded = [
            (simplejpeg.encode_jpeg(p, quality=90, colorsubsampling="420"), y) for p, y in zip(*train, strict=True)
        ]
        classes: tuple[str, ...] = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    else:
        assert cifar10 is not None, "--cifar10 names the folder of its tars"
        encoded = list(_members(sorted(cifar10.glob("cifar10-train-*.tar"))))
        test = list(_members(sorted(cifar10.glob("cifar10-test-*.tar"))))
        test_pixels = np.stack([np.asarray(Image.open(io.BytesIO(jpg), formats=("JPEG",))) for jpg, _ in test])
        test_labels = np.array([label for _, label in test])
        classes = tuple((cifar10 / "classes.txt").read_text().split())
    _write(out / name, encoded, classes)
    return World(out / name, classes, len(encoded), test_pixels, test_labels)


def _digits(split: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from synclones.lab.digits import load_split
    from synclones.lab.render import AUGMENTED, Look, render

    strokes, labels = load_split(split)
    strokes, labels = np.repeat(strokes, COPIES[split], 0), np.repeat(labels, COPIES[split])
    images = render(strokes, [Look()] * len(labels), np.random.default_rng(seed), AUGMENTED)
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    order = np.random.default_rng([seed, 1]).permutation(len(labels))  # sorted by digit a shuffle buffer would see one
    return pixels[order], labels[order].astype(np.int64)


def _members(tars: list[Path]) -> Iterator[tuple[bytes, int]]:
    """Yield (JPEG, label) of tars that hold jpg and cls side by side."""
    for path in tars:
        parts: dict[str, dict[str, bytes]] = {}
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None, member.name
                parts.setdefault(key, {})[suffix] = file.read()
        yield from ((part["jpg"], int(part["cls"])) for part in parts.values())


def _write(folder: Path, encoded: list[tuple[bytes, int]], classes: tuple[str, ...]) -> None:
    last = folder / "classes.txt"
    if last.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    words = np.random.default_rng(0).integers(0, len(WORDS), (len(encoded), 3))
    for shard in range(SHARDS):
        with webdataset.TarWriter(str(folder / f"train-{shard:05d}.tar"), mtime=0, compress=False) as tar:
            for number in range(shard, len(encoded), SHARDS):
                jpg, label = encoded[number]
                drawn = " ".join(WORDS[word] for word in words[number])
                text = f"{SENTENCE.format(classes[label])}, {drawn}"
                tar.write({"__key__": f"{number:06d}", "jpg": jpg, "cls": str(label), "txt": text})
    last.write_text("".join(f"{name}\n" for name in classes))
