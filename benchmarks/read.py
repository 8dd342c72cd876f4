"""Rates of reading, decoding and cropping, beside webdataset with PIL and torchvision as timm and DeiT read.

    python benchmarks/read.py [--tars FOLDER] [--rounds 7]

Equality first: the same boxes cropped by PIL, to 60 dB (faithful) and 30 dB (fast). Then images per CPU second of one
pinned core, interleaved, best of the rounds, each beside the rate of libjpeg's decoding alone. ``--tars``: a folder of
WebDataset tars whose small images (as png, jpg or webp) take the place of made ones in the row of random access.
"""

import argparse
import hashlib
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
import torch
import webdataset
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader
from torchvision import transforms

from synclones.base.json_file import canonical_json
from synclones.base.manifest import write_manifest
from synclones.shards.index import finish_folder
from synclones.shards.loading.batches import BatchLoader
from synclones.shards.loading.crops import Crops
from synclones.shards.loading.parts import single
from synclones.shards.schema import Sample
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.write import ShardWriter

IMAGES, BATCH, SIDE, SCALE = 128, 32, 224, 0.08
FEW = 200  # images of those that a peer looks up by name, in a list of all members
CROP = {"size_px": SIDE, "scale_min": SCALE, "flip": True}


def photographs(side: int) -> list[bytes]:
    """Return JPEGs (q90, 4:2:0) of squares of two photographs, enlarged or shrunk to ``side``."""
    rng, whole = np.random.default_rng(side), [Image.fromarray(p) for p in load_sample_images().images]
    files = []
    for number in range(IMAGES):
        image = whole[number % 2]
        part = int(rng.uniform(0.55, 1) * image.height)
        x, y = rng.integers(0, image.width - part + 1), rng.integers(0, image.height - part + 1)
        square = image.crop((x, y, x + part, y + part)).resize((side, side), Image.Resampling.BICUBIC)
        files.append(simplejpeg.encode_jpeg(np.asarray(square), quality=90, colorsubsampling="420"))
    return files


def make_folder(folder: Path, files: list[bytes]) -> Path:
    """Write a labelled set of one shard."""
    samples = [
        Sample(index=i, jpg=data, json=canonical_json({"index": i}), txt="x", label=i % 10)
        for i, data in enumerate(files)
    ]
    with ShardWriter(folder, "train-00000", "plan") as writer:
        writer.add_batch(0, samples)
        writer.finish()
    finish_folder(folder)
    write_manifest(folder, "benchmark", {}, [], {}, {}, {"classes": list("0123456789"), "content_hash": ""})
    return folder


def psnr(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB."""
    return float(10 * np.log10(255**2 / max(np.mean((ours.astype(float) - theirs) ** 2), 1e-9)))


def check_pixels(files: list[bytes], crops: Crops, floor: float) -> str:
    """Compare ours with PIL's crop and resize of the same boxes; return what was measured."""
    figures, out = [], np.empty((crops.views, SIDE, SIDE, 3), np.uint8)
    for number, data in enumerate(files[:48]):
        crops.fill(data, 0, number, 0, out, where="image")
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            boxes, mirrored = crops.parameters(0, number, 0, image.height, image.width)
            (x, y, w, h), flipped = boxes[0].tolist(), mirrored[0]
            theirs = np.asarray(image.crop((x, y, x + w, y + h)).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        figures.append(psnr(out[0], theirs[:, ::-1] if flipped else theirs))
    assert min(figures) >= floor, f"{min(figures):.1f} dB"
    return f"{statistics.mean(figures):.0f} dB on average, {min(figures):.0f} at least"


def reads_of_ours(folder: Path, crops: Crops, threads: int = 1) -> Callable[[], None]:
    """Return one epoch of our loader, every crc32 checked."""
    loader = BatchLoader(single(LabelledSource(folder)), batch_size=BATCH, seed=0, crops=crops, threads=threads)
    steps = IMAGES // BATCH

    def read() -> None:
        assert sum(len(batch.labels) for batch in loader.batches(0, steps)) == IMAGES

    return read


def reads_of_peer(folder: Path, as_bytes: bool) -> Callable[[], None]:
    """Return one epoch of the usual pipeline, to normalised floats (DeiT) or to bytes (timm with its prefetcher)."""
    last = [transforms.PILToTensor()] if as_bytes else []
    if not as_bytes:
        last = [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    bicubic = transforms.InterpolationMode.BICUBIC
    crop = transforms.RandomResizedCrop(SIDE, (SCALE, 1.0), interpolation=bicubic)
    transform = transforms.Compose([crop, transforms.RandomHorizontalFlip(), *last])
    data = webdataset.WebDataset(str(folder / "train-00000.tar"), shardshuffle=False, empty_check=False)
    data = data.decode("pil", only=["jpg", "cls"]).to_tuple("jpg", "cls").map_tuple(transform, int)
    loader = DataLoader(data, batch_size=BATCH, num_workers=0)

    def read() -> None:
        assert sum(len(labels) for _, labels in loader) == IMAGES

    return read


def measure(functions: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Return CPU seconds of each, the best of interleaved rounds."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            started = time.process_time()
            function()
            times[name].append(time.process_time() - started)
    return {name: min(each) for name, each in times.items()}


def compare_reading(side: int, rounds: int) -> None:
    """Print images per CPU second of random crops from images of ``side``."""
    files = photographs(side)
    modes = {mode: Crops(**CROP, mode=mode) for mode in ("faithful", "fast")}
    quality = {mode: check_pixels(files, crops, {"faithful": 60, "fast": 30}[mode]) for mode, crops in modes.items()}
    four = {f"{mode} x 4": Crops(**CROP, mode=mode, views=4) for mode in modes}
    with tempfile.TemporaryDirectory() as name:
        folder = make_folder(Path(name), files)
        functions = {mode: reads_of_ours(folder, crops) for mode, crops in (modes | four).items()}
        functions |= {peer: reads_of_peer(folder, peer == "bytes") for peer in ("floats", "bytes")}
        functions["libjpeg"] = lambda: [simplejpeg.decode_jpeg(data) for data in files] and None
        seconds = measure(functions, rounds)
    rate = {name: IMAGES / each for name, each in seconds.items()}
    print(f"{side} px stored, images per CPU second: libjpeg alone {rate['libjpeg']:.0f}; ", end="")
    print(f"webdataset + PIL + torchvision {rate['floats']:.0f}, without floats {rate['bytes']:.0f}")
    for mode in modes:
        print(f"  {mode:8s} {rate[mode]:6.0f}, ratio {rate[mode] / rate['floats']:.2f} and ", end="")
        print(f"{rate[mode] / rate['bytes']:.2f} ({rate[mode] / rate['libjpeg']:.0%} of libjpeg); {quality[mode]}")
        crops = 4 * rate[f"{mode} x 4"]
        print(f"           four crops of one decoding {crops:.0f} crops, ratio to four reads of ours ", end="")
        print(f"{crops / rate[mode]:.2f}, of the peer {crops / rate['floats']:.2f}")


def hashes(threads: int) -> None:
    """Hash as many threads can at once: nothing here waits for the interpreter's lock."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: hashlib.sha256(part).digest(), [bytes(2**20)] * 64))


def compare_threads(rounds: int) -> None:
    """Print how much faster two decoding threads are than one, by the clock, and what two cores give to hashing."""
    crops = {mode: Crops(**CROP, mode=mode) for mode in ("faithful", "fast")}
    with tempfile.TemporaryDirectory() as name:
        folder = make_folder(Path(name), photographs(256))
        functions = {(mode, n): reads_of_ours(folder, each, n) for mode, each in crops.items() for n in (1, 2)}
        functions |= {("hashing", n): partial(hashes, n) for n in (1, 2)}
        times: dict[tuple[str, int], list[float]] = {name: [] for name in functions}
        for _ in range(2 * rounds):
            for key, function in functions.items():
                started = time.perf_counter()
                function()
                times[key].append(time.perf_counter() - started)
    print("two threads against one, by the clock, best and median of rounds: ", end="")
    for what in (*crops, "hashing"):
        one, two = times[what, 1], times[what, 2]
        middle = statistics.median(a / b for a, b in zip(one, two, strict=True))
        print(f"{what} {min(one) / min(two):.2f}, {middle:.2f}", end="\n" if what == "hashing" else "; ")


def small_images(tars: Path | None) -> list[bytes]:
    """Return small encoded images: those of tars, or made ones of 32 px."""
    if tars is None:
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (5000, 8, 8, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
        return [simplejpeg.encode_jpeg(np.ascontiguousarray(p), quality=90) for p in pixels]
    images: list[bytes] = []
    with tarfile.open(next(iter(sorted(tars.glob("*.tar"))))) as tar:
        for member in tar:
            if member.name.rpartition(".")[2] in ("png", "jpg", "jpeg", "webp") and len(images) < 5000:
                images.append(tar.extractfile(member).read())
    return images


def compare_random_access(tars: Path | None, rounds: int) -> None:
    """Print encoded images per CPU second in random order; every crc32 of ours is checked."""
    with tempfile.TemporaryDirectory() as name:
        files = small_images(tars)
        folder = make_folder(Path(name), files)
        source, order = LabelledSource(folder), np.random.default_rng(0).permutation(len(files)).tolist()
        tar = tarfile.open(folder / "train-00000.tar")
        members = {member.name: member for member in tar.getmembers()}
        names = [name for name in members if name.endswith(".jpg")]
        theirs = lambda position: tar.extractfile(members[names[position]]).read()  # noqa: E731
        assert all(source.encoded(at) == theirs(at) == files[at] for at in order[:500])
        data = webdataset.WebDataset(str(folder / "train-00000.tar"), shardshuffle=False, empty_check=False)
        functions = {
            "ours": lambda: [source.encoded(at) for at in order] and None,
            "tarfile": lambda: [theirs(at) for at in order] and None,
            "webdataset": lambda: [sample["jpg"] for sample in data] and None,
            "by name": lambda: [tar.extractfile(names[position]).read() for position in order[:FEW]] and None,
        }
        count = dict.fromkeys(functions, len(files)) | {"by name": FEW}
        rate = {name: count[name] / each for name, each in measure(functions, rounds).items()}
        tar.close()
    print(
        f"encoded images of {np.mean([len(f) for f in files]):.0f} bytes in random order: ours {rate['ours']:.0f}, ",
        end="",
    )
    print(f"tarfile {rate['tarfile']:.0f}, ratio {rate['ours'] / rate['tarfile']:.1f}; ", end="")
    print(f"by name {rate['by name']:.0f}, ratio {rate['ours'] / rate['by name']:.0f}; ", end="")
    print(f"webdataset in file order {rate['webdataset']:.0f}, ratio {rate['ours'] / rate['webdataset']:.1f}")


def main() -> None:
    """Print all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tars", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cores = os.sched_getaffinity(0)
    if len(cores) > 1:
        compare_threads(args.rounds)
    os.sched_setaffinity(0, {max(cores)})
    compare_random_access(args.tars, args.rounds)
    for side in (512, 256):
        compare_reading(side, args.rounds)


if __name__ == "__main__":
    main()
