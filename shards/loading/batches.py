"""Hands out training batches: the same global batches for any number of ranks, decoded by threads a little ahead.

In: a mixture of sets, a seed, a step to start from. Out: `Batch`es of uint8 pixels; augmentation belongs to the device.
The reader's whole state is the step: nothing has to be saved, and any step can be the first one.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from synclones.base.errors import InputError, VerificationError
from synclones.shards.loading.crops import Crops
from synclones.shards.loading.extras import BatchExtras, Extras
from synclones.shards.loading.order import slice_of_rank
from synclones.shards.loading.parts import MixedSources
from synclones.shards.sources.labelled import LabelledSource

PREFETCH_BATCHES = 3
TOLERATED_BAD_SHARE, TOLERATED_BAD_SAMPLES = 0.01, 10
NOTHING_MORE = Extras()
Change = Callable[[np.ndarray, int, int, int, int], np.ndarray]
"""(uint8[s, s, 3], set, image's number, showing, view) -> the same shape; called from several threads."""


@dataclass(frozen=True)
class Batch:
    """One rank's part of a global batch; every array has one entry per image, groups together."""

    step: int
    pixels: torch.Tensor
    """uint8[n, views, s, s, 3]."""
    labels: torch.Tensor
    """int64[n]."""
    weights: torch.Tensor
    """float32[n]: 1, and 0 for an image that was dropped as damaged (its pixels are 0)."""
    source: np.ndarray
    """int64[n]: number of the set in the mixture."""
    index: np.ndarray
    """int64[n]: the image's number in its set."""
    times_seen: np.ndarray
    """int64[n]: how often the image was shown before."""
    local: torch.Tensor | None = None
    """uint8[n, local views, s, s, 3], of multi-crop."""
    extras: BatchExtras = BatchExtras()
    """What the objective asked for besides."""
    first: int = 0
    """Position of the first image in the global batch."""


_Part = tuple[list[str], Counter[str]]


@dataclass(frozen=True)
class _Slot:
    """Where one image of a batch comes from."""

    part: int
    position: int
    times_seen: int


class BatchLoader:
    """Batches of one rank.

    Attributes:
        images_per_epoch: images that one epoch shows, repetitions counted.
        converted: how many images were grey, CMYK, 16 bit, turned, ... and became the RGB that a viewer shows.
        skipped: what ``on_bad_sample="skip"`` left out, as messages that name shard and sample; whoever has told them
            may clear them.
    """

    def __init__(
        self,
        mixed: MixedSources,
        *,
        batch_size: int,
        seed: int,
        crops: Crops,
        extras: Extras = NOTHING_MORE,
        change: Change | None = None,
        rank: int = 0,
        world_size: int = 1,
        threads: int = 2,
        on_bad_sample: Literal["fail", "skip"] = "fail",
        pin_memory: bool = False,
    ):
        """Prepare to read; no image is read yet.

        ``mixed``: the sets, and how much of each an epoch shows. ``batch_size``: images of the global batch. ``seed``:
        of the order. ``crops``: how their bytes become pixels. ``extras``: what is read of images besides.
        ``change``: what is done to every crop's pixels after that, in the decoding threads.

        Raises:
            InputError: a batch that is not whole groups, is larger than an epoch, or smaller than the number of ranks.
        """
        self._parts = mixed.parts
        self._order = mixed.order(seed)
        self._size_of_group, self._seed = mixed.images_per_group, seed
        sources = [part.source for part in mixed.parts]
        self._groups_are_images = all(isinstance(one, LabelledSource) and one.groups_are_images for one in sources)
        self._groups_per_batch = batch_size // self._size_of_group
        self.images_per_epoch = mixed.images_per_epoch
        self._check(batch_size, world_size)
        self._mine = slice_of_rank(self._groups_per_batch, rank, world_size)
        self._mixed, self._crops, self._extras, self._threads = mixed, crops, extras, threads
        self._change = change
        self._policy, self._pin, self._read, self._left_out = on_bad_sample, pin_memory, 0, 0
        self._asked: dict[int, bytes] = {}
        self.skipped: list[str] = []
        self.converted = Counter[str]()

    def _check(self, batch_size: int, world_size: int) -> None:
        images = self.images_per_epoch
        if batch_size % self._size_of_group:
            raise InputError(f"--batch-size: {batch_size} is not a multiple of {self._size_of_group} images per group")
        if batch_size > images:
            raise InputError(
                f"--batch-size: {batch_size}, the data have {images} images; lower it, or draw more images"
            )
        if self._groups_per_batch < world_size:
            raise InputError(f"--batch-size: {batch_size} is too small for {world_size} processes; raise it")

    def slots(self, step: int) -> list[_Slot]:
        """List where this rank's images of global batch ``step`` come from."""
        first = step * self._groups_per_batch
        stretch = self._order.stretch(first + self._mine.start, first + self._mine.stop)
        for part, shards in self._order.ahead(stretch).items():
            self._prefetch(part, shards)
        columns = (stretch.part.tolist(), stretch.group.tolist(), stretch.showing.tolist())
        if self._groups_are_images:
            return [_Slot(*column) for column in zip(*columns, strict=True)]
        return [
            _Slot(part, position, showing)
            for part, group, showing in zip(*columns, strict=True)
            for position in self._parts[part].source.images(group, showing, self._seed)
        ]

    def _prefetch(self, part: int, shards: np.ndarray) -> None:
        """Ask once for the shards of a window and of the next, in the order in which they are read."""
        if self._asked.get(part) != shards.tobytes():
            self._asked[part] = shards.tobytes()
            self._parts[part].source.source.prefetch([int(shard) for shard in shards])

    def batches(self, first_step: int, end_step: int) -> Iterator[Batch]:
        """Read batches ``first_step`` to ``end_step`` - 1.

        Raises:
            VerificationError: a damaged image under the policy ``fail``, or too many of them under ``skip``.
        """
        with ThreadPoolExecutor(self._threads, thread_name_prefix="decode") as pool:
            ahead: deque[tuple[Batch, list[Future[_Part]]]] = deque()
            try:
                for step in range(first_step, end_step):
                    ahead.append(self._start(step, pool))
                    if len(ahead) > PREFETCH_BATCHES:
                        yield self._finish(*ahead.popleft())
                while ahead:
                    yield self._finish(*ahead.popleft())
            finally:
                for _, jobs in ahead:
                    for job in jobs:
                        job.cancel()

    def _start(self, step: int, pool: ThreadPoolExecutor) -> tuple[Batch, list[Future[_Part]]]:
        slots = self.slots(step)
        n, local = len(slots), self._crops.local
        batch = Batch(
            step=step,
            pixels=self._room(n, self._crops),
            labels=torch.zeros(n, dtype=torch.int64),
            weights=torch.ones(n),
            source=np.array([slot.part for slot in slots], dtype=np.int64),
            index=np.full(n, -1, dtype=np.int64),
            times_seen=np.array([slot.times_seen for slot in slots], dtype=np.int64),
            local=None if local is None else self._room(n, local),
            extras=self._extras.empty(self._mixed, n, self._pin),
            first=self._mine.start * self._size_of_group,
        )
        share = -(-n // self._threads)
        parts = [range(start, min(start + share, n)) for start in range(0, n, share)]
        return batch, [pool.submit(self._fill, batch, slots, part) for part in parts]

    def _room(self, n: int, crops: Crops) -> torch.Tensor:
        side = crops.size_px
        return torch.empty((n, crops.views, side, side, 3), dtype=torch.uint8, pin_memory=self._pin)

    def _fill(self, batch: Batch, slots: list[_Slot], numbers: range) -> _Part:
        """Decode part of a batch's images into it; return what is wrong with those left out, and what was converted."""
        problems, converted, pixels = [], Counter[str](), batch.pixels.numpy()
        local = None if batch.local is None else batch.local.numpy()
        for number in numbers:
            slot = slots[number]
            part, position = self._parts[slot.part], slot.position
            source = part.source
            try:
                # Here rather than for the batch at once, because the first look at a shard reads its columns.
                label, index = source.label(position), source.index(position)
                batch.labels[number] = label if part.label_of is None else int(part.label_of[label])
                batch.index[number] = index
                data, where = source.encoded(position), source.where(position)
                views = pixels[number], None if local is None else local[number]
                kind = self._crops.fill(data, slot.part, index, slot.times_seen, *views, where=where)
                converted.update([kind] if kind else [])
                if self._change is not None:
                    for number_of_view, view in enumerate(view for of in views if of is not None for view in of):
                        view[...] = self._change(view, slot.part, index, slot.times_seen, number_of_view)
                self._extras.fill(batch.extras, number, source, slot.part, position, slot.times_seen, where)
            except VerificationError as error:
                if self._policy == "fail":
                    raise
                batch.weights[number] = 0.0
                batch.pixels[number] = 0
                if local is not None:
                    local[number] = 0
                problems.append(str(error))
        return problems, converted

    def _finish(self, batch: Batch, jobs: list[Future[_Part]]) -> Batch:
        for job in jobs:
            problems, converted = job.result()
            self.skipped += problems
            self._left_out += len(problems)
            self.converted += converted
        self._read += len(batch.labels)
        if self._left_out > max(TOLERATED_BAD_SAMPLES, TOLERATED_BAD_SHARE * self._read):
            raise VerificationError(
                f"{self._left_out} of {self._read} images are damaged, more than skipping allows; the last: "
                f"{self.skipped[-1]}"
            )
        return batch
