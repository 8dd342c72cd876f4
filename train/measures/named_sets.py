"""The images that a training is measured on: named sets, a bank of neighbours, and what it holds out of its own.

In: texts such as ``val=data/val``, the sets of the training, a seed. Out: `ImageSet`s, their labels in terms of the
classes that are measured. Which images are chosen is a function of seed, set and the image's number there.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from synclones.base.draws import hash64
from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes
from synclones.models.network import Preprocessing
from synclones.shards.loading.mixture import Item, parse_mixture
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.sources.open import open_source
from synclones.train.options.validation import HELD_OUT

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
CHOICE, HOLD_OUT = 0x43484F49, 0x484F4C44  # tell these numbers from others of the same seed


@dataclass(frozen=True)
class ImageSet:
    """Labelled images of one or several sources, in a fixed order."""

    name: str
    sources: tuple[LabelledSource, ...]
    labels: tuple[np.ndarray, ...]
    """int64[classes of the source]: the measured class of each of a source's own."""
    source: np.ndarray
    """int64[n]: which source each image is of."""
    position: np.ndarray
    """int64[n]: where it is there."""

    def __len__(self) -> int:
        return len(self.position)

    def read(self, number: int, preprocessing: Preprocessing) -> tuple[np.ndarray, int]:
        """Read an image as evaluation prepares it, uint8[s, s, 3], and its class.

        Raises:
            VerificationError: it is damaged; names shard and sample.
        """
        which = int(self.source[number])
        image = self.sources[which].read(int(self.position[number]))
        return preprocessing.fit(image.pixels), int(self.labels[which][image.label])

    def classes(self) -> set[int]:
        """Return the classes that there is an image of."""
        named = zip(self.source.tolist(), self.position.tolist(), strict=True)
        return {int(self.labels[which][self.sources[which].label(position)]) for which, position in named}

    def at_most(self, images: int, seed: int) -> "ImageSet":
        """Return a seeded choice of that many images; a smaller one of the same seed is within a larger one."""
        if len(self) <= images:
            return self
        drawn = hash64(seed, CHOICE, self.source, self.position)
        kept = np.sort(np.argsort(drawn, kind="stable")[:images])
        return replace(self, source=self.source[kept], position=self.position[kept])


def image_set(
    name: str, sources: Sequence[LabelledSource], positions: Sequence[np.ndarray], class_ids: tuple[str, ...], flag: str
) -> ImageSet:
    """Return images of several sources, by position in each, as images of ``class_ids``.

    Raises:
        InputError: a source has a class that is none of them, by name.
    """
    source = np.concatenate([np.full(len(of), number) for number, of in enumerate(positions)])
    labels = tuple(_labels(one, class_ids, flag) for one in sources)
    return ImageSet(name, tuple(sources), labels, source.astype(np.int64), np.concatenate(positions).astype(np.int64))


def _labels(source: LabelledSource, class_ids: tuple[str, ...], flag: str) -> np.ndarray:
    number = {class_id: at for at, class_id in enumerate(class_ids)}
    unknown = next((class_id for class_id in source.class_ids if class_id not in number), None)
    if unknown is not None:
        known = ", ".join(class_ids[:3]) + (", ..." if len(class_ids) > 3 else "")
        raise InputError(
            f"{flag}: {source.folder} has the class {unknown!r}, which is none of the {len(class_ids)} that are "
            f"measured ({known}); give a set of their ids, or say with classes=FILE what its labels mean"
        )
    return np.array([number[class_id] for class_id in source.class_ids], dtype=np.int64)


def named_item(text: str, flag: str) -> tuple[str, Item]:
    """Return the name of a set and how it is opened, of ``NAME=DATA`` or ``DATA``.

    Raises:
        InputError: anything else.
    """
    name, equals, data = text.partition("=")
    if os.path.exists(text) or not equals or not NAME.fullmatch(name):
        name, data = "", text
    mixture = parse_mixture([data])
    if len(mixture.items) != 1 or mixture.total or mixture.pair:
        raise InputError(f"{flag}: {text!r}: expected one set, as in val=data/val; give each its own NAME=DATA")
    item = mixture.items[0]
    plain = Item(path=item.path, name=item.name, count=item.count, fraction=item.fraction, subset_seed=item.subset_seed)
    how = {key: getattr(item, key) for key in ("classes", "label_key", "caption_key", "split", "first")}
    if item != replace(plain, **how):
        raise InputError(f"{flag}: {text!r}: every image is measured once; leave all but count and fraction out")
    return name or item.name or os.path.basename(item.path.rstrip("/")), item


def open_named(text: str, class_ids: tuple[str, ...] | None, flag: str, *, quick: bool, cache_gb: float) -> ImageSet:
    """Open the set that ``NAME=DATA`` names; its amount is a seeded choice, ``class_ids`` its own by default.

    Raises:
        InputError: no set, no labels, or classes that are not among ``class_ids``.
        VerificationError: it is damaged.
    """
    name, item = named_item(text, flag)
    keys: dict[str, Any] = {"label_key": item.label_key or None, "caption_key": item.caption_key or None}
    how: dict[str, Any] = {"classes": item.classes or None, "split": item.split or None, "first": item.first}
    source = LabelledSource(open_source(item.path, cache_gb=cache_gb, **how, **keys))
    source.source.check(quick=quick)
    source.check_labels()
    images = image_set(name, [source], [np.arange(len(source))], class_ids or source.class_ids, flag)
    if item.count > len(images):
        raise InputError(f"{flag}: {text!r}: {item.count:,} images are asked for, it has {len(images):,}")
    return images.at_most(item.count or max(1, int(len(images) * item.fraction)), item.subset_seed)


def check_names(texts: Sequence[str], flag: str) -> None:
    """Refuse two sets of one name, before any is opened.

    Raises:
        InputError: naming it.
    """
    names = [named_item(text, flag)[0] for text in texts]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{flag}: two sets are called {name!r}; name them, as in a={texts[0]}")
        if name == HELD_OUT:
            raise InputError(f"{flag}: {name!r} is what --hold-out measures; give another name")


def held_out(source: LabelledSource, share: float, seed: int) -> np.ndarray:
    """Return which images of a set are never shown: ascending positions int64[m], that share of each class, rounded.

    Chosen by seed, the set's content and the image's number in it, so that a set named twice holds out the same
    images; a smaller share is within a larger one.

    Raises:
        InputError: it would leave nothing.
    """
    labels, index = source.all_labels_and_indices()
    content = int(sha256_bytes(source.content_hash().encode())[:15], 16)
    drawn = hash64(seed, HOLD_OUT, content, index)
    order = np.lexsort((drawn, labels))  # class by class, in each by what was drawn
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = np.sort(order[rank < np.rint(share * counts).astype(np.int64)[labels[order]]])
    if not len(taken):
        raise InputError(f"--hold-out: {share:g} of each class of {source.folder} is no image; raise it")
    return taken
