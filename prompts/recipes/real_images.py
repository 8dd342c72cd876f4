"""The class name of every image of a real dataset, whose images a generator then varies.

Text: c
Example: tench
Paper: Hennicke et al. 2024, Mind the Gap, arXiv 2405.03243: unCLIP variations of real images against prompts

`--images PATH` is a folder of images with one sub-folder per class, or of tars with `cls`. There is one caption per
image, `source_key` names it, and each is taken once: classes take turns, each through its images in an order
shuffled by the seed, until the smallest class ends. `generate --images PATH` draws from the same images.
"""

import numpy as np
import pyarrow as pa

from synclones.base.draws import hash64
from synclones.base.errors import InputError
from synclones.prompts.captions.pool import Labels
from synclones.prompts.recipe import CAPTION_ORDER, Bound, Columns, Inputs, constant, pick, texts
from synclones.shards.sources.files import PassedOver, plain_text
from synclones.shards.sources.images import list_images

TAKES = ("images",)


def bind(inputs: Inputs) -> Bound:
    """Bind one caption per image.

    Raises:
        InputError: without images, or for an image of no class of ``--classes``.
    """
    if inputs.images is None:
        raise InputError("--images: this recipe needs a folder of images or shards; see `synclones prompts list`")
    passed = PassedOver()
    listed = list(list_images(inputs.images, passed))
    notes = (passed.text(inputs.images),) if passed.text(inputs.images) else ()
    if not listed:
        raise InputError(f"--images: no sample of {inputs.images} has an image; {''.join(notes)}")
    keys, stored = texts([key for key, _ in listed]), texts([class_text for _, class_text in listed])
    label = Labels(inputs.classes, inputs.class_numbers).of(f"{inputs.images}, its images in order", 0, stored)
    order = _taking_turns(label, inputs.seed)
    names = texts([info.name for info in inputs.classes.classes])

    def columns(captions: np.ndarray) -> Columns:
        row = order[captions]
        return Columns(
            pick(names, label[row]), label[row], row, constant("", len(row)), pick(keys, row).cast(pa.string())
        )

    source = f"{plain_text(str(inputs.images))} {listed[0][0].partition('/')[0]}"
    return Bound(columns, len(listed), {"images": source}, notes)


def _taking_turns(label: np.ndarray, seed: int) -> np.ndarray:
    """Return a permutation int64[n] of the images: the first of every class, the second of every class, and so on."""
    shuffled = np.lexsort((hash64(seed, CAPTION_ORDER, np.arange(len(label))), label))
    counts = np.bincount(label)
    turn = np.arange(len(label)) - np.repeat(np.cumsum(counts) - counts, counts)
    order: np.ndarray = shuffled[np.lexsort((label[shuffled], turn))]
    return order
