"""``synclones prompts caption``: write captions of real images with BLIP-2 or any image-to-text model.

In: shards or a folder of images, a transformers model. Out: a Parquet file of captions for the recipe `captions`.
Batches are fixed by the images' order, so that any number of processes divide them, and kills change nothing. An image
is known by its SHA-256: the file has one caption for it, wherever it lies.
"""

import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from synclones.base import machine
from synclones.base.config import check_ranges
from synclones.base.dry_run import DryRun
from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes
from synclones.base.resume import typed
from synclones.prompts.captions.checks import caption_in, fault
from synclones.prompts.captions.journal import Record
from synclones.prompts.captions.pieces import Work, refuse_other_file, say_cost
from synclones.prompts.captions.transformers_model import (
    TextModel,
    TextModelFolder,
    find_text_model,
    how_it_computes,
    load_text_model,
)
from synclones.prompts.classes.labels import ClassNumbers, ClassTexts
from synclones.prompts.classes.lists import load_classes
from synclones.prompts.table import check_out
from synclones.shards.sources.files import PassedOver
from synclones.shards.sources.images import ImageAt, locate_images

FALLBACK = "a photo of a {}."


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """Describe real images with a captioning model; the same command resumes after any kill, or helps another."""

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
    threads: int = 4
    """Threads of a model on the CPU; sums round by their number, so that all processes have the same."""
    out: Path = Path("captions.parquet")
    """File of the captions, `*.parquet`; the folder `OUT.parts` beside it holds them until all are there."""
    dry_run: bool = False
    """Print the number of images, the rate measured on one batch, hours and cost, and write nothing."""
    price_per_hour: float = 0.0
    """Dollars per hour of one process' machine, for --dry-run."""

    def __post_init__(self) -> None:
        check_ranges(self, max_new_tokens=(1, 1000), batch_size=(1, 1024), threads=(1, 1024), price_per_hour=(0, 1e6))
        check_out(self.out)


@dataclass(frozen=True)
class _Images:
    """All images in a fixed order: their keys, classes as stored, and where they are."""

    source_keys: list[str]
    class_texts: list[str]
    spots: list[ImageAt]


def caption_images(config: CaptionConfig) -> None:
    """Describe what no process has described yet; the last one writes the file."""
    if config.images is None:
        raise InputError("--images: none were given; give a folder of shards or images")
    refuse_other_file(config.out)
    names: dict[str, tuple[str, str]] = {}
    texts, classes_sha256 = None, ""
    if config.classes:
        classes = replace(load_classes(config.classes), name="--classes")  # what messages call it
        texts, classes_sha256 = ClassTexts(classes, config.class_numbers), classes.content_sha256
        infos = [(info.class_id, info.name) for info in classes.classes]
        names = {text: infos[label] for text, label in texts.labels.items()}
    images = _check_classes(config.images, texts)
    # What decides a caption is known before any is written: other settings are refused, not mixed.
    folder = find_text_model(config.model, config.revision, "--model")
    settings = _settings(config, folder, images) | {"classes_sha256": classes_sha256}
    work = Work(config.out, settings, len(images.spots), config.batch_size)
    describer = _Describer(config, folder, images, work)
    if config.dry_run:
        _dry_run(config, work, describer)
        return
    if not work.begin(config):
        return
    work.divide(describer.answer, "images")
    finished = work.finish(lambda records: _table(config, images, records, names))
    if finished is not None:
        table, counts = finished
        print(f"{config.out}: {len(table)} captions; {_counts_text(counts)}")
        command = ["prompts", "build", "--recipe", "captions", "--captions", str(config.out), "--out", "p.parquet"]
        print(f"next: {typed(command)}")


def _settings(config: CaptionConfig, folder: TextModelFolder, images: _Images) -> Record:
    """Return the settings that decide a caption."""
    return {
        "model": folder.name,
        "revision": folder.revision,
        "model_sha256": folder.sha256,
        "prompt": config.prompt,
        "max_new_tokens": config.max_new_tokens,
        "images": images.source_keys[0].partition("/")[0],
        **how_it_computes(config.device, config.threads),
    }


def _check_classes(path: Path, texts: ClassTexts | None) -> _Images:
    """List the images; what is passed over is said, and one of an unknown class refused, before a model loads."""
    passed, images = PassedOver(), _Images([], [], [])
    for source_key, class_text, where in locate_images(path, passed):
        if texts:
            texts.label(source_key, class_text)
        images.source_keys.append(source_key)
        images.class_texts.append(class_text)
        images.spots.append(where)
    passed.tell(path)
    if not images.spots:
        raise InputError(f"--images: no images in the tars of {path}; give shards with jpg, png or webp members")
    return images


def _dry_run(config: CaptionConfig, work: Work, describer: "_Describer") -> None:
    """Print what the work would take; of several processes one speaks."""
    if machine.rank():
        return
    missing = 0 if work.is_written() else work.num_rows - work.check()
    work.earlier = {}  # what is known would be no measurement
    # The first batch warms up: it loads weights and chooses kernels; the second is measured.
    for _ in range(2):
        started = time.monotonic()
        rows = describer.answer(0, min(config.batch_size, work.num_rows), [])[1]
        measured = rows, time.monotonic() - started
    dry = DryRun("prompts caption")
    counted = f"{work.num_rows} images, {missing} of them left to describe"
    dry.line("work", counted, rows=work.num_rows, left=missing)
    dry.line("model", f"{describer.folder.name} {describer.folder.sha256[:16]}", model=describer.folder.name)
    where = ", ".join(str(work.settings[key]) for key in ("device", "dtype"))
    say_cost(dry, missing, measured, where, config.price_per_hour)


class _Describer:
    """Describes any batch of the images; the model is loaded with the first that needs it."""

    def __init__(self, config: CaptionConfig, folder: TextModelFolder, images: _Images, work: Work):
        self.folder, self._config, self._images, self._work = folder, config, images, work
        self._model: TextModel | None = None

    def answer(self, start: int, stop: int, before: list[Record]) -> tuple[list[Record], int]:
        """Return a record per image from ``start`` to below ``stop``, and how many images the model described.

        An image that the piece had ``before``, or a batch that an earlier version described, is not shown again.
        """
        data = [where.read() for where in self._images.spots[start:stop]]
        keys = [sha256_bytes(image) for image in data]
        made = {record["key"]: record for record in before if record["key"] in keys}
        fresh = dict[str, int]()
        for number, key in enumerate(keys, start):
            if key not in made:
                fresh.setdefault(key, number)
        if all(key in self._work.earlier for key in fresh):
            made |= {key: self._work.earlier[key] for key in fresh}
            return [made[key] for key in keys], 0
        # All that is fresh in the batch is described together, whatever is known of it, so that it rounds alike.
        answers = self._describe([self._decode(number, data[number - start]) for number in fresh.values()])
        captions = [caption_in(answer) for answer in answers]
        for key, caption in zip(fresh, captions, strict=True):
            made[key] = {"key": key, "caption": caption, "fault": fault(caption)}
        return [made[key] for key in keys], len(fresh)

    def _describe(self, pixels: list[np.ndarray]) -> list[str]:
        config = self._config
        if self._model is None:
            self._model = load_text_model(self.folder, "image-to-text", config.device, "--model", config.threads)
        return describe(self._model, pixels, config.prompt, config.max_new_tokens)

    def _decode(self, number: int, data: bytes) -> np.ndarray:
        from synclones.shards.sources.decode import decode_image

        try:
            return decode_image(data)
        except VerificationError as error:
            raise VerificationError(f"{self._images.source_keys[number]}: {error}") from None


def describe(model: TextModel, images: list[np.ndarray], prompt: str, max_new_tokens: int) -> list[str]:
    """Return the model's answers for images uint8[h, w, 3], by greedy search."""
    import torch

    texts = {"text": [prompt] * len(images)} if prompt else {}
    inputs = model.processor(images=images, return_tensors="pt", **texts).to(model.device, model.dtype)
    with torch.inference_mode():
        tokens = model.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    answers = model.processor.batch_decode(tokens, skip_special_tokens=True)
    return [answer.removeprefix(prompt) for answer in answers]


def _table(
    config: CaptionConfig, images: _Images, records: list[Record], names: dict[str, tuple[str, str]]
) -> tuple[pa.Table, Counter[str]]:
    """Return one row per image, a faulty caption replaced where the class has a name, and counts of outcomes."""
    rows, first, counts = [], dict[str, Record](), Counter[str]()
    for source_key, class_text, record in zip(images.source_keys, images.class_texts, records, strict=True):
        made = first.setdefault(record["key"], record)  # the same image has the same caption wherever it lies
        class_id, name = names.get(class_text, (class_text, ""))
        caption, problem = made["caption"], made["fault"]
        counts[problem or "good"] += 1
        if problem and not name:
            counts["left out"] += 1
            continue
        if problem:
            caption = FALLBACK.replace("{}", name)
            counts["fallback"] += 1
        row = {"caption": caption, "class": class_id, "source_key": source_key}
        rows.append(row | {"image_sha256": made["key"], "fault": problem})
    if not rows:
        raise InputError(f"{config.images}: no caption can be used ({_counts_text(counts)}); try another --model")
    return pa.Table.from_pylist(rows), counts


def _counts_text(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.most_common())
