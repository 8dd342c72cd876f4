"""``synclones prompts caption``: write captions of real images with BLIP-2 or any image-to-text model.

In: shards or a folder of images, a transformers model. Out: a Parquet file of captions for the recipe `captions`.
Captions are kept by the image's SHA-256 as they come, so that a killed command goes on, and the same image is
described once.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from synclones.base.config import check_ranges
from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes
from synclones.prompts.captions.checks import caption_in, fault
from synclones.prompts.captions.journal import Journal, Progress, Record, write_captions
from synclones.prompts.captions.transformers_model import TextModel, TextModelFolder, find_text_model, load_text_model
from synclones.prompts.classes.labels import ClassNumbers, ClassTexts
from synclones.prompts.classes.lists import load_classes
from synclones.prompts.table import check_out
from synclones.shards.sources.files import PassedOver
from synclones.shards.sources.images import SourceImage, list_images, read_images

FALLBACK = "a photo of a {}."


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """Describe real images with a captioning model; the same command resumes after any kill."""

    images: Path | None = None
    """Folder of shards or images (one sub-folder per class, if any), or one tar."""
    model: str = "Salesforce/blip2-opt-2.7b"
    """Image-to-text model of transformers: hub id or folder."""
    revision: str = ""
    """Commit of the hub id; the one in the cache or the newest when empty."""
    classes: str = ""
    """Class list that numbers and folder names refer to; classes are written as its ids, and names help out."""
    class_numbers: ClassNumbers = "ask"
    """What a number as a class means where the list's ids are numbers too: an id, or a position from 0; ask stops."""
    prompt: str = ""
    """Text before the caption, for models that are asked; BLIP-2 needs none."""
    max_new_tokens: int = 40
    """Longest caption in tokens."""
    batch_size: int = 16
    """Images described together."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run; auto takes a GPU when there is one."""
    out: Path = Path("captions.parquet")
    """File of the captions, `*.parquet`; `OUT.journal` beside it holds them until all are there."""
    dry_run: bool = False
    """Count the images, say what is missing, load no weights."""

    def __post_init__(self) -> None:
        check_ranges(self, max_new_tokens=(1, 1000), batch_size=(1, 1024))
        check_out(self.out)


def caption_images(config: CaptionConfig) -> None:
    """Describe what is not described yet, then write the file."""
    if config.images is None:
        raise InputError("--images: none were given; give a folder of shards or images")
    if config.out.exists():
        raise InputError(f"--out: {config.out} exists; choose another file, or delete it")
    names: dict[str, tuple[str, str]] = {}
    texts = None
    if config.classes:
        classes = replace(load_classes(config.classes), name="--classes")  # what messages call it
        texts = ClassTexts(classes, config.class_numbers)
        infos = [(info.class_id, info.name) for info in classes.classes]
        names = {text: infos[label] for text, label in texts.labels.items()}
    num_images = _check_classes(config.images, texts)
    # Every image is a row, but only those that no earlier run described are decoded and shown to the model.
    images = partial(read_images, config.images)
    folder = find_text_model(config.model, config.revision, "--model")
    if config.dry_run:
        print(f"{num_images} images, model {folder.name} {folder.sha256[:16]}")
        return
    journal = Journal(config.out.with_name(config.out.name + ".journal"), _settings(config, folder))
    _describe_missing(images(), config, folder, journal)
    rows, counts = _rows(images(), journal, names)
    if not rows:
        raise InputError(f"{config.images}: no caption can be used ({_counts_text(counts)}); try another --model")
    write_captions(config.out, pa.Table.from_pylist(rows), {**_settings(config, folder), "counts": dict(counts)})
    journal.close(delete=True)
    print(f"{config.out}: {len(rows)} captions; {_counts_text(counts)}")
    print(f"next: synclones prompts build --recipe captions --captions {config.out} --out p.parquet")


def _settings(config: CaptionConfig, folder: TextModelFolder) -> Record:
    """Return the settings that decide a caption."""
    return {
        "model": folder.name,
        "revision": folder.revision,
        "model_sha256": folder.sha256,
        "prompt": config.prompt,
        "max_new_tokens": config.max_new_tokens,
    }


def _check_classes(path: Path, texts: ClassTexts | None) -> int:
    """Count the images; what is passed over is said, and one of an unknown class refused, before a model loads."""
    passed, num_images = PassedOver(), 0
    for source_key, class_text in list_images(path, passed):
        if texts:
            texts.label(source_key, class_text)
        num_images += 1
    passed.tell(path)
    if not num_images:
        raise InputError(f"--images: no images in the tars of {path}; give shards with jpg, png or webp members")
    return num_images


def _describe_missing(
    images: Iterable[SourceImage], config: CaptionConfig, folder: TextModelFolder, journal: Journal
) -> None:
    """Describe one batch after the other; each is on the disk before the next begins."""
    model: TextModel | None = None
    progress = Progress()
    for batch in _batches(_missing(images, journal), config.batch_size):
        model = model or load_text_model(folder, "image-to-text", config.device, "--model")
        answers = describe(model, [pixels for _, pixels in batch], config.prompt, config.max_new_tokens)
        captions = [caption_in(answer) for answer in answers]
        journal.add(
            {"key": key, "caption": caption, "fault": fault(caption)}
            for (key, _), caption in zip(batch, captions, strict=True)
        )
        progress.report(f"{len(journal.records)} images described")
    progress.report(f"{len(journal.records)} images described", last=True)


def _missing(images: Iterable[SourceImage], journal: Journal) -> Iterator[tuple[str, np.ndarray]]:
    from synclones.shards.sources.decode import decode_image

    seen: set[str] = set()
    for image in images:
        key = sha256_bytes(image.data)
        if key not in journal.records and key not in seen:
            seen.add(key)
            try:
                yield key, decode_image(image.data)
            except VerificationError as error:
                raise VerificationError(f"{image.source_key}: {error}") from None


def _batches(items: Iterator[tuple[str, np.ndarray]], size: int) -> Iterator[list[tuple[str, np.ndarray]]]:
    while batch := list(islice(items, size)):
        yield batch


def describe(model: TextModel, images: list[np.ndarray], prompt: str, max_new_tokens: int) -> list[str]:
    """Return the model's answers for images uint8[h, w, 3], by greedy search."""
    import torch

    texts = {"text": [prompt] * len(images)} if prompt else {}
    inputs = model.processor(images=images, return_tensors="pt", **texts).to(model.device, model.dtype)
    with torch.inference_mode():
        tokens = model.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    answers = model.processor.batch_decode(tokens, skip_special_tokens=True)
    return [answer.removeprefix(prompt) for answer in answers]


def _rows(
    images: Iterable[SourceImage], journal: Journal, names: dict[str, tuple[str, str]]
) -> tuple[list[Record], Counter[str]]:
    """Return one row per image, a faulty caption replaced where the class has a name, and counts of outcomes."""
    rows, counts = [], Counter[str]()
    for image in images:
        made = journal.records[sha256_bytes(image.data)]
        class_id, name = names.get(image.class_text, (image.class_text, ""))
        caption, problem = made["caption"], made["fault"]
        counts[problem or "good"] += 1
        if problem and not name:
            counts["left out"] += 1
            continue
        if problem:
            caption = FALLBACK.replace("{}", name)
            counts["fallback"] += 1
        row = {"caption": caption, "class": class_id, "source_key": image.source_key}
        rows.append(row | {"image_sha256": made["key"], "fault": problem})
    return rows, counts


def _counts_text(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.most_common())
