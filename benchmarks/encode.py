"""From the decoder's tensor to a JPEG in a shard: images per CPU second on one core, beside what scripts do.

Ours: rounding on the tensor, simplejpeg, the journalled, checksummed, synced shard writer. The peer: diffusers'
postprocessing to PIL, PIL's JPEG, webdataset's TarWriter. Images are smooth noise of 512 px, as JPEG sees
photographs, in the memory format of our decoder (channels last); both store quality 90, 4:2:0, and decode to the same
image first.

python benchmarks/encode.py
"""

import io
import tempfile
import time
from pathlib import Path

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from webdataset import TarWriter

from synclones.generate.sampling.pixels import round_images, to_host
from synclones.shards.read import ShardFolder
from synclones.shards.schema import Sample
from synclones.shards.sources.decode import decode_image
from synclones.shards.write import ShardWriter

IMAGES, BATCH, SIDE, ROUNDS, QUALITY = 200, 50, 512, 3, 90


def noise_images() -> torch.Tensor:
    """Return float32[BATCH, 3, SIDE, SIDE] in -1..1, as a VAE gives them."""
    torch.manual_seed(0)
    coarse = sum(F.interpolate(torch.randn(BATCH, 3, n, n), SIDE, mode="bicubic") * n**-0.7 for n in (4, 16, 64, 256))
    return (coarse / 2).clamp(-1, 1).to(memory_format=torch.channels_last)


def ours(decoded: torch.Tensor, folder: Path) -> None:
    """Write one shard, batch by batch."""
    with ShardWriter(folder, "train-00000", "bench") as writer:
        for number in range(IMAGES // BATCH):
            samples = []
            for position, pixels in enumerate(to_host([round_images(decoded, 127.5, 127.5, SIDE)])[0]):
                jpg = simplejpeg.encode_jpeg(pixels, quality=QUALITY, colorspace="RGB", colorsubsampling="420")
                index = number * BATCH + position
                samples.append(Sample(index=index, jpg=jpg, json=b"{}", txt="a prompt", label=0, seed=index, attempt=0))
            writer.add_batch(number, samples)
        writer.finish()


def peer(decoded: torch.Tensor, folder: Path) -> None:
    """Write one tar as a usual script does."""
    processor = VaeImageProcessor()
    with TarWriter(str(folder / "peer.tar")) as writer:
        for number in range(IMAGES // BATCH):
            for position, image in enumerate(processor.postprocess(decoded, output_type="pil")):
                data = io.BytesIO()
                image.save(data, "JPEG", quality=QUALITY, subsampling="4:2:0")
                key = f"{number * BATCH + position:010d}"
                writer.write({"__key__": key, "jpg": data.getvalue(), "json": b"{}", "txt": b"a prompt", "cls": b"0"})


def check_equal(decoded: torch.Tensor, folder: Path) -> int:
    """Check that both store the same images, but for the encoder's rounding; return the bytes of one."""
    (folder / "equal").mkdir()
    ours(decoded, folder / "equal")
    theirs = VaeImageProcessor().postprocess(decoded[:8], output_type="pil")
    for index, image in enumerate(theirs):
        data = io.BytesIO()
        image.save(data, "JPEG", quality=QUALITY, subsampling="4:2:0")
        with Image.open(data, formats=["JPEG"]) as stored:
            jpg = ShardFolder(folder / "equal").get(index).jpg
            difference = np.abs(decode_image(jpg).astype(int) - np.asarray(stored)).mean()
        assert difference < 1, f"image {index} differs by {difference:.2f} grey levels"
    return len(jpg)


def one_by_one(decoded: torch.Tensor) -> None:
    """Round as the sampler does."""
    round_images(decoded, 127.5, 127.5, SIDE)


def over_the_batch(decoded: torch.Tensor) -> None:
    """Round in the obvious way, step after step."""
    ((decoded + 1) / 2 * 255).nan_to_num(0.0).clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def rounding_ms(call) -> float:
    """Return CPU milliseconds per image, the best of three."""
    decoded, times = noise_images(), []
    for _ in range(ROUNDS):
        started = time.process_time()
        call(decoded)
        times.append(time.process_time() - started)
    return min(times) / BATCH * 1000


def run() -> None:
    """Print ours, peer and ratio, by CPU seconds of one thread."""
    torch.set_num_threads(1)
    decoded = noise_images()
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as name:
        size = check_equal(decoded, Path(name))
        for number in range(ROUNDS):
            for who, call in (("ours", ours), ("peer", peer)):
                folder = Path(name) / f"{who}{number}"
                folder.mkdir()
                started = time.process_time()
                call(decoded, folder)
                times[who].append(time.process_time() - started)
    # Rounding by itself shows how much of the ratio is ours and how much is the JPEG encoder.
    once, whole = (rounding_ms(call) for call in (one_by_one, over_the_batch))
    print(f"rounding alone, per image: one by one {once:.2f} ms, step after step over a batch {whole:.2f} ms")
    rate = {who: IMAGES / min(seconds) for who, seconds in times.items()}
    print(f"{SIDE} px, {size / 1000:.0f} kB each: ours {rate['ours']:.0f} images per CPU second, ", end="")
    print(f"postprocess + PIL + TarWriter {rate['peer']:.0f}, ratio {rate['ours'] / rate['peer']:.2f}")


if __name__ == "__main__":
    run()
