"""The lab's real digits as dataset folders: what a clone is compared with, and what it is tested on.

In: scikit-learn's digits of one split, drawn in the plain look at 32 px. Out: a finished folder of shards whose bytes
are a function of split and seed.
"""

import time
from pathlib import Path

import numpy as np
import simplejpeg

from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.json_file import canonical_json
from synclones.base.manifest import write_manifest
from synclones.lab.digits import DIGIT_NAMES, Split, load_split
from synclones.lab.render import SIZE_PX, Look, render
from synclones.prompts.classes.lists import load_classes
from synclones.shards.card import write_card
from synclones.shards.index import finish_folder
from synclones.shards.schema import Sample, shard_name
from synclones.shards.write import ShardWriter, is_complete

IMAGES_PER_SHARD = 250
JPEG_QUALITY = 90


def write_real_digits(folder: Path, split: Split, seed: int = 0) -> Path:
    """Write the real digits of ``split``, each once, with one draw of the natural variation; return ``folder``.

    The shards are named ``test-`` for the test split and ``train-`` for the others.
    """
    started, folder = time.monotonic(), Path(folder)
    pixels, labels = draw_real_digits(split, seed)
    numbers = range(-(-len(labels) // IMAGES_PER_SHARD))
    plan = {"real_digits": split, "seed": seed, "size_px": SIZE_PX, "jpeg_quality": JPEG_QUALITY}
    plan_id = sha256_bytes(canonical_json(plan))[:16]
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "plan.json", canonical_json(plan | {"plan_id": plan_id, "num_shards": len(numbers)}))
    written = "test" if split == "test" else "train"
    write_card(folder, f"Real digits: {split}", _card(split), len(labels), written)
    for number in numbers:
        _write_shard(folder, shard_name(written, number, len(numbers)), plan_id, number, pixels, labels)
    content = finish_folder(folder, written)
    classes = [info.class_id for info in load_classes("lab-digits").classes]
    counts, times = {"ok": len(labels)}, {"seconds": round(time.monotonic() - started, 1)}
    write_manifest(folder, "real digits", plan, [], counts, times, {"content_hash": content, "classes": classes})
    return folder


def draw_real_digits(split: Split, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of a split before they are stored, uint8[n, 32, 32, 3], and their labels int64[n]."""
    strokes, labels = load_split(split)
    # render places and colours each image; drawing all at once makes them independent of the shard size.
    images = render(strokes, [Look()] * len(labels), np.random.default_rng([seed, len(labels)]))
    return (images * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy(), labels


def encode(pixels: np.ndarray) -> bytes:
    """Return the JPEG of an image, uint8[h, w, 3], as the lab's real sets store it."""
    return bytes(simplejpeg.encode_jpeg(pixels, quality=JPEG_QUALITY, colorsubsampling="420"))


def _write_shard(folder: Path, name: str, plan_id: str, number: int, pixels: np.ndarray, labels: np.ndarray) -> None:
    if is_complete(folder, name):
        return
    chosen = range(number * IMAGES_PER_SHARD, min((number + 1) * IMAGES_PER_SHARD, len(labels)))
    class_ids = [info.class_id for info in load_classes("lab-digits").classes]
    samples = []
    for index in chosen:
        label = int(labels[index])
        facts = {"index": index, "class_id": class_ids[label], "plan": plan_id}
        text = f"a real handwritten {DIGIT_NAMES[label]}"
        samples.append(
            Sample(index=index, jpg=encode(pixels[index]), json=canonical_json(facts), txt=text, label=label)
        )
    with ShardWriter(folder, name, plan_id) as writer:
        if writer.next_batch == 0:
            writer.add_batch(0, samples)
        writer.finish()


def _card(split: str) -> str:
    return (
        f"Real handwritten digits, the split `{split}` of scikit-learn's copy of the UCI optdigits test set, enlarged "
        "from 8x8 to 32x32 px in dark ink on cream paper. No digit is in two splits."
    )
