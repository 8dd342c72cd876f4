"""A labelled set as training and evaluation read it: images by position, each checked when it is read.

In: a `Source`, or the path of a dataset folder. Out: encoded or decoded images with label and index; groups of images
of one caption.
"""

from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from synclones.base.errors import InputError
from synclones.shards.columns import SideColumns
from synclones.shards.kept import note_once
from synclones.shards.sources.dataset import DatasetSource
from synclones.shards.sources.decode import decode_cut_image, decode_image
from synclones.shards.sources.first import FirstImages
from synclones.shards.sources.groups import grouped_rows
from synclones.shards.sources.label_captions import LabelCaptions
from synclones.shards.sources.source import OpenShard, Source
from synclones.shards.token_files import TokenColumn

# Columns of a shard of 10,000 are about half a megabyte. All are held of sets whose every image is as near as any
# other; of larger ones, more than one window of the training order.
CACHED_SHARDS, CACHED_IMAGES = 128, 2**25
_THREADS = 4


@dataclass(frozen=True)
class LabelledImage:
    """One decoded image."""

    pixels: np.ndarray
    """uint8[h, w, 3]."""
    label: int
    index: int


class LabelledSource:
    """Images by position: 0 to ``len - 1``, shard after shard. Safe to use from several threads.

    Attributes:
        source: the set they are of.
        folder: where it is.
        class_ids: the class of each label, in order.
        holds_all: whether the columns of all shards are held, so that any image costs as little as any other.
        images_per_group: how many images each group has; a group is never split.
        groups_per_shard: how many groups each shard holds.
        ungrouped: images left out because their caption has too few of them in its shard.
    """

    def __init__(
        self,
        source: Source | Path | str,
        images_per_group: int = 1,
        *,
        labelled: bool = True,
        without: np.ndarray | None = None,
        excluded: np.ndarray | None = None,
        cut_images: bool = False,
        label_captions: LabelCaptions | None = None,
    ):
        """Open a set; the path of one means a dataset folder.

        ``images_per_group`` > 1: a group is that many images of one caption; captions with fewer are left out.
        ``labelled``: false for a set that is used for its images and captions alone, and may lack classes.
        ``without``: positions, ascending int64[m], of images that are in no group; each can be read all the same.
        ``excluded``: the same, of images that are no part of the set for its reader: neither shown nor measured.
        ``cut_images``: `read` shows a JPEG that is cut or damaged as far as it goes, and says so once.
        ``label_captions``: what images of a class and without a text are called.

        Raises:
            InputError: no shards, no labels, or no group at all.
        """
        self.source: Source = DatasetSource(source) if isinstance(source, (Path, str)) else source
        self.folder, self.class_ids = self.source.folder, self.source.class_ids if labelled else ()
        self.images_per_group, self.labelled, self.without = images_per_group, labelled, without
        self.excluded, self._cut_images, self._label_captions = excluded, cut_images, label_captions
        self._absent = _union(without, excluded)
        self._starts = [0, *accumulate(self.source.images_per_shard)]
        self.holds_all = self.source.is_local and self._starts[-1] <= CACHED_IMAGES
        # Of a set that is held, what a shard's json says too: any image may be the next, and each would be read again.
        held = None if self.holds_all else CACHED_SHARDS
        self._token_columns: dict[str, TokenColumn | None] = {}
        self._shard = lru_cache(maxsize=held)(self.source.open)
        self._groups = lru_cache(maxsize=held)(self._find_groups)
        self._caption_ids = lru_cache(maxsize=held)(lambda number: self._shard(number).caption_ids())
        self.groups_per_shard: Sequence[int] = self._count_groups()
        self._group_starts = [0, *accumulate(self.groups_per_shard)]
        left_out = 0 if self._absent is None else len(self._absent)
        self.ungrouped = self._starts[-1] - left_out - sum(self.groups_per_shard) * images_per_group
        if not sum(self.groups_per_shard):
            wanted = f"caption with {images_per_group} images" if images_per_group > 1 else "image"
            raise InputError(f"{self.folder}: holds no {wanted}; generate more, or lower --images-per-caption")

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def groups_are_images(self) -> bool:
        """Whether every image is a group of its own, numbered by its position."""
        return self.images_per_group == 1 and self._absent is None

    def leaving_out(self, positions: np.ndarray) -> "LabelledSource":
        """Return the same set with images that are in no group: ascending int64[m]."""
        return self._with(without=positions, excluded=self.excluded)

    def excluding(self, positions: np.ndarray) -> "LabelledSource":
        """Return the same set as if it had these images not: ascending int64[m]."""
        return self._with(without=self.without, excluded=positions)

    def _with(self, *, without: np.ndarray | None, excluded: np.ndarray | None) -> "LabelledSource":
        given: dict[str, Any] = {"cut_images": self._cut_images, "label_captions": self._label_captions}
        given |= {"labelled": self.labelled, "without": without, "excluded": excluded}
        return LabelledSource(self.source, self.images_per_group, **given)

    def content_hash(self) -> str:
        """Return the identity of the set."""
        return self.source.content_hash()

    def set_hash(self) -> str:
        """Return the identity of the whole set, where these are the first images of one: what its manifest names."""
        return self.source.set_hash() if isinstance(self.source, FirstImages) else self.content_hash()

    def check_labels(self) -> None:
        """Look at the labels of all shards, where their columns are held; else each is looked at when it is read.

        Raises:
            InputError: one is no class of the set; names shard and sample.
        """
        if not self.holds_all:
            return
        # Of our own folders no column is read now, all when a shard is first needed: a training over thousands of
        # shards begins sooner.
        look = self.source.check_labels if isinstance(self.source, DatasetSource) else self._shard
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="columns") as pool:
            for _ in pool.map(look, range(len(self._starts) - 1)):
                pass

    def group(self, group: int) -> np.ndarray:
        """Return the positions of the images of a group, int64[images_per_group]; groups count shard after shard."""
        if self.groups_are_images:
            return np.array([group])
        shard = bisect_right(self._group_starts, group) - 1
        positions: np.ndarray = self._starts[shard] + self._groups(shard)[group - self._group_starts[shard]]
        return positions

    def images(self, group: int, showing: int, seed: int) -> list[int]:
        """Return the same, whatever the showing."""
        return [int(position) for position in self.group(group)]

    def group_labels(self) -> np.ndarray:
        """Return the class of each group, that of its first image: int32[groups]."""
        labels = []
        for number in range(len(self._starts) - 1):
            label = self._shard(number).label
            labels.append(label if self.groups_are_images else label[self._groups(number)[:, 0]])
        return np.concatenate(labels)

    def all_labels_and_indices(self) -> tuple[np.ndarray, np.ndarray]:
        """Return class and number of every image, by position: int64[n] each; class 0 where labels are not asked."""
        shards = [self._shard(number) for number in range(len(self._starts) - 1)]
        index = np.concatenate([shard.index for shard in shards]).astype(np.int64)
        if not self.labelled:
            return np.zeros_like(index), index
        return np.concatenate([shard.label for shard in shards]).astype(np.int64), index

    def index(self, position: int) -> int:
        """Return the number that the image has in its set."""
        shard, row = self._locate(position)
        return int(shard.index[row])

    def label(self, position: int) -> int:
        """Return the image's class number."""
        shard, row = self._locate(position)
        return int(shard.label[row])

    def caption(self, position: int, showing: int = 0, seed: int = 0, column: str = "") -> str:
        """Return the image's text, or that of a side column, or of its class, at this showing; empty without any.

        Raises:
            InputError: no such column, or none of texts; or a class of the set that nobody named.
            VerificationError: it is damaged.
        """
        shard, row = self._locate(position)
        if column:
            text = self.columns.column(column).caption(*self._place(position), showing, seed)
        else:
            text = shard.caption(row)
        if text or self._label_captions is None:
            return text
        # Where labels are not asked for nobody has compared them with the classes.
        label, names = int(shard.label[row]), self._class_names
        if not 0 <= label < len(names):
            return ""
        return self._label_captions.text(names[label], int(shard.index[row]), showing, seed)

    def why_no_caption(self) -> str:
        """Return what its labels lack for captions of their classes, where these are asked for; empty else."""
        try:
            _ = self._label_captions and self.source.class_ids
        except InputError as error:
            return str(error)
        return ""

    @cached_property
    def _class_names(self) -> tuple[str, ...]:
        """What captions call the class of each label, asked for or not; none where the set has no classes."""
        try:
            class_ids = self.source.class_ids
        except InputError:
            return ()
        return self._label_captions.named(class_ids) if self._label_captions else ()

    def tokens(self, position: int, showing: int, seed: int, name: str) -> np.ndarray | None:
        """Return the token ids of the image's caption for this showing, uint16[length], all 0 for an image without one.

        None where the set has no column ``name``.

        Raises:
            InputError: it holds something else.
            VerificationError: it is damaged.
        """
        column = self.token_column(name)
        return None if column is None else column.drawn(*self._place(position), showing, seed)

    def caption_id(self, position: int) -> int:
        """Return the number of the image's caption in its set, -1 for an image without one."""
        number, row = self._place(position)
        return max(-1, int(self._caption_ids(number)[row]))

    def array(self, position: int, showing: int, column: str) -> np.ndarray:
        """Return the numbers that a side column has of an image for this showing: float16 or float32[k].

        Raises:
            InputError: no such column.
            VerificationError: it is damaged.
        """
        number, row = self._place(position)
        numbers: np.ndarray = self.columns.column(column).drawn(number, row, showing, 0)
        return numbers

    def token_column(self, name: str) -> TokenColumn | None:
        """Return a column of token ids; None where the set has none of this name.

        Raises:
            InputError: it holds something else.
            VerificationError: its ``column.json`` is broken.
        """
        if name not in self._token_columns:
            source = self.source
            column = None
            if isinstance(source, DatasetSource) and name in self.columns.names:
                column = TokenColumn(self.folder, name, source.split)
            self._token_columns[name] = column
        return self._token_columns[name]

    @cached_property
    def columns(self) -> SideColumns:
        """The side columns of the set.

        Raises:
            InputError: a set of another kind than a dataset folder on this disk, which has none.
        """
        if not isinstance(self.source, DatasetSource):
            raise InputError(f"{self.folder}: has no side columns; only dataset folders on this disk have them")
        return SideColumns(self.folder, self.source.split)

    def encoded(self, position: int) -> bytes:
        """Read the encoded image.

        Raises:
            VerificationError: it is damaged; names shard and sample.
        """
        shard, row = self._locate(position)
        return shard.image(row)

    def name(self, position: int) -> str:
        """Return what the image is called in its set."""
        shard, row = self._locate(position)
        return shard.name(row)

    def where(self, position: int) -> str:
        """Name the image in messages."""
        shard, row = self._locate(position)
        return shard.where(row)

    def read(self, position: int) -> LabelledImage:
        """Read and decode one image.

        Raises:
            VerificationError: it is damaged, or cannot be decoded; names shard and sample.
        """
        shard, row = self._locate(position)
        if self._cut_images:
            pixels, whole = decode_cut_image(shard.image(row), where=shard.where(row))
            if not whole:
                note_once(f"{shard.where(row)}: is cut or damaged, and shown as far as it goes")
        else:
            pixels = decode_image(shard.image(row), where=shard.where(row))
        return LabelledImage(pixels, int(shard.label[row]), int(shard.index[row]))

    def _place(self, position: int) -> tuple[int, int]:
        """Return the number of the image's shard, and its row there."""
        number = bisect_right(self._starts, position) - 1
        return number, int(position) - self._starts[number]

    def _locate(self, position: int) -> tuple[OpenShard, int]:
        number, row = self._place(position)
        return self._shard(number), row

    def _count_groups(self) -> Sequence[int]:
        if self.groups_are_images:
            return self.source.images_per_shard
        return [len(self._groups(number)) for number in range(len(self._starts) - 1)]

    def _find_groups(self, number: int) -> np.ndarray:
        """Find the samples of a shard that share a caption: their rows, int64[groups, images_per_group]."""
        size, first = self.images_per_group, self._starts[number]
        shown = np.ones(self._starts[number + 1] - first, dtype=bool)
        if self._absent is not None:
            start, end = np.searchsorted(self._absent, (first, first + len(shown)))
            shown[self._absent[start:end] - first] = False
        if size == 1:
            return np.flatnonzero(shown)[:, None]
        return grouped_rows(np.flatnonzero(shown), self._caption_ids(number)[shown], size)


def _union(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    if one is None or other is None:
        return other if one is None else one
    return np.union1d(one, other)
