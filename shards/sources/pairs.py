"""Real images and the synthetic ones that were made from them, as one set: the two of a pair by ``source_key``.

In: a set of real images, and a dataset folder with the side column ``source_key``. Out: groups of one or two images. A
group is a real image with at least one synthetic one; of several synthetic ones every showing draws one.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from synclones.base.draws import hash64
from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes
from synclones.base.resume import typed
from synclones.shards.columns import SideColumns
from synclones.shards.sources.dataset import DatasetSource
from synclones.shards.sources.files import tar_key
from synclones.shards.sources.images import find_images
from synclones.shards.sources.indexed import IndexedSource
from synclones.shards.sources.labelled import LabelledImage, LabelledSource

SOURCE_KEY = "source_key"
_OF_PAIRS = 0x50414952  # so that the choice knows nothing of other draws with the same numbers
_ANNOTATE = ("--from", "PROMPTS.parquet", "--by", "index", "--columns", SOURCE_KEY)


class PairedSource:
    """Pairs by position: real images first, then synthetic ones, each numbered by that. Safe for several threads.

    Attributes:
        source: the set of real images; both are on this disk.
        folder: where that is.
        class_ids: its classes.
        images_per_group: 1 where every showing picks one of the two, 2 where they stay together.
        groups_per_shard: real images that have a synthetic one, of each shard.
        ungrouped: images without a partner.
        holds_all: true, because both sets must be.
    """

    holds_all = True

    def __init__(self, real: LabelledSource, synthetic: LabelledSource, label_of: np.ndarray | None, *, both: bool):
        """Join two sets.

        ``label_of``: the real set's label for each of the synthetic set's, None when they are the same.

        Raises:
            InputError: the synthetic set has no ``source_key``, or those of other images.
            VerificationError: its column is damaged.
        """
        self.real, self.synthetic, self._label_of = real, synthetic, label_of
        self.source, self.folder, self.class_ids = real.source, real.folder, real.class_ids
        self.images_per_group = 2 if both else 1
        if not (real.holds_all and synthetic.holds_all):
            raise InputError("--data: pair: both sets must be on this disk; leave pair out, or bring them here")
        self._paired, self._starts, self._partners = self._join()
        shards = np.searchsorted(self._paired, list(accumulate(real.source.images_per_shard, initial=0)))
        self.groups_per_shard: Sequence[int] = np.diff(shards).tolist()
        self.ungrouped = len(self) - len(self._paired) - len(self._partners)

    def _join(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return real positions with partners, and the synthetic positions of each: all, and where each one's begin."""
        position_of = {key: position for position, key in enumerate(_real_keys(self.real))}
        columns = SideColumns(self.synthetic.folder)
        advice = typed(["shards", "annotate", str(self.synthetic.folder), *_ANNOTATE])
        if not isinstance(self.synthetic.source, DatasetSource) or SOURCE_KEY not in columns.names:
            raise InputError(f"--data: pair: {self.synthetic.folder} has no {SOURCE_KEY}; run: {advice}")
        column, owners = columns.column(SOURCE_KEY), []
        for shard, count in enumerate(self.synthetic.source.images_per_shard):
            keys = (column.drawn(shard, row, 0, 0) for row in range(count))
            owners += [position_of.get(key, -1) for key in keys]
        owner = np.array(owners, dtype=np.int64)
        order = np.argsort(owner, kind="stable")
        order = order[owner[order] >= 0]
        if not len(order):
            raise InputError(
                f"--data: pair: no {SOURCE_KEY} of {self.synthetic.folder} is of an image in {self.real.folder}; name "
                "the set that it was made from, at the path that it was read from"
            )
        paired, starts = np.unique(owner[order], return_index=True)
        self._owner = owner
        return paired, np.append(starts, len(order)), order

    def __len__(self) -> int:
        return len(self.real) + len(self.synthetic)

    def images(self, group: int, showing: int, seed: int) -> list[int]:
        """Return the positions of the images of a group at a showing: a function of the arguments alone."""
        real, (start, stop) = int(self._paired[group]), self._starts[group : group + 2].tolist()
        drawn = int(hash64(_OF_PAIRS, seed, real, showing))
        synthetic = len(self.real) + int(self._partners[start + (drawn >> 1) % (stop - start)])
        if self.images_per_group == 2:
            return [real, synthetic]
        return [synthetic if drawn & 1 else real]

    def group_labels(self) -> np.ndarray:
        """Return the class of each group, that of its real image: int32[groups]."""
        labels: np.ndarray = self.real.group_labels()[self._paired]
        return labels

    def content_hash(self) -> str:
        """Return what both sets are known by, and who is whose partner: a column may be made again, and differ."""
        return f"{self.real.content_hash()}+{self.synthetic.content_hash()}+{self._joined_sha256()}"

    def set_hash(self) -> str:
        """Return the same of the whole sets, where these are the first images of them."""
        return f"{self.real.set_hash()}+{self.synthetic.set_hash()}+{self._joined_sha256()}"

    def _joined_sha256(self) -> str:
        return sha256_bytes(b"".join(part.tobytes() for part in (self._paired, self._starts, self._partners)))

    def check_labels(self) -> None:
        """Look at the labels of all shards of both sets.

        Raises:
            InputError: one is no class of its set; names shard and sample.
        """
        self.real.check_labels()
        self.synthetic.check_labels()

    def index(self, position: int) -> int:
        """Return the image's number, which is its position."""
        return position

    def label(self, position: int) -> int:
        """Return the image's class number, by the real set's classes."""
        own, within = self._own(position)
        label = own.label(within)
        return label if own is self.real or self._label_of is None else int(self._label_of[label])

    def caption(self, position: int, showing: int = 0, seed: int = 0, column: str = "") -> str:
        """Return the image's text, or that of a side column for this showing.

        Raises:
            InputError: no such column, or none of texts.
            VerificationError: it is damaged.
        """
        own, within = self._own(position)
        return own.caption(within, showing, seed, column)

    def why_no_caption(self) -> str:
        """Return what labels of the real set lack for captions of their classes, as `LabelledSource.why_no_caption`."""
        return self.real.why_no_caption()

    def tokens(self, position: int, showing: int, seed: int, name: str) -> np.ndarray | None:
        """Return the token ids of the image's caption for this showing, as `LabelledSource.tokens`.

        Raises:
            InputError: the column holds something else.
            VerificationError: it is damaged.
        """
        own, within = self._own(position)
        return own.tokens(within, showing, seed, name)

    def caption_id(self, position: int) -> int:
        """Return the real image of the pair: the two are of one caption."""
        real = len(self.real)
        return position if position < real else int(self._owner[position - real])

    def array(self, position: int, showing: int, column: str) -> np.ndarray:
        """Return the numbers that a side column has of an image for this showing.

        Raises:
            InputError: no such column.
            VerificationError: it is damaged.
        """
        own, within = self._own(position)
        return own.array(within, showing, column)

    def encoded(self, position: int) -> bytes:
        """Read the encoded image.

        Raises:
            VerificationError: it is damaged; names shard and sample.
        """
        own, within = self._own(position)
        return own.encoded(within)

    def where(self, position: int) -> str:
        """Name the image in messages."""
        own, within = self._own(position)
        return own.where(within)

    def read(self, position: int) -> LabelledImage:
        """Read and decode one image.

        Raises:
            VerificationError: it is damaged, or cannot be decoded; names shard and sample.
        """
        own, within = self._own(position)
        return own.read(within)

    def _own(self, position: int) -> tuple[LabelledSource, int]:
        real = len(self.real)
        return (self.real, position) if position < real else (self.synthetic, position - real)


def _real_keys(real: LabelledSource) -> Iterator[str]:
    """Yield the ``source_key`` of every image, in the order of positions.

    Raises:
        InputError: a set whose images have none.
    """
    source, path = real.source, Path(real.folder)
    if isinstance(source, IndexedSource) and source.index.kind in ("tars", "folder") and path.is_dir():
        origin = find_images(path)[0]
        for number, facts in enumerate(source.index.shards):
            keys = source.texts(number, "key").to_pylist()
            tar = Path(facts.files[0]["name"]) if source.index.kind == "tars" else None
            yield from (tar_key(origin, tar, key) if tar else f"{origin}/{key}" for key in keys)
    elif isinstance(source, DatasetSource):
        origin = find_images(path)[0]
        for number in range(len(source.images_per_shard)):
            shard = source.open(number)
            yield from (tar_key(origin, shard.files.tar, f"{index:010d}") for index in shard.index.tolist())
    else:
        raise InputError(f"--data: pair: images of {path} have no {SOURCE_KEY}; give a folder of images or of tars")
