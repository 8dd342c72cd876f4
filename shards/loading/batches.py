"""Hands out training batches: the same global batches for any number of ranks, decoded by threads a little ahead.

In: a mixture of sets, a seed, a step to start from. Out: `Batch`es of uint8 pixels; augmentation belongs to the device.
The reader's whole state is the step: nothing has to be saved, and any step can be the first one.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch

from synclones.base.errors import InputError, VerificationError
from synclones.shards.kept import note_once
from synclones.shards.loading.batch import Batch, Filled, Slot
from synclones.shards.loading.crops import Crops
from synclones.shards.loading.extras import Extras
from synclones.shards.loading.order import slice_of_rank
from synclones.shards.loading.parts import MixedSources
from synclones.shards.loading.processes import DecodingProcesses
from synclones.shards.sources.labelled import LabelledSource

PREFETCH_BATCHES = 3
# More than these would wait for each other: what is not decoding or resizing, Python does in one thread at a time.
MOST_THREADS = 4
TOLERATED_BAD_SHARE, TOLERATED_BAD_SAMPLES = 0.01, 10
CUT = "caption cut"
NOTHING_MORE = Extras()
Change = Callable[[np.ndarray, int, int, int, int], np.ndarray]
"""(uint8[s, s, 3], set, image's number, showing, view) -> the same shape; called from several threads."""


class BatchLoader:
    """Batches of one rank.

    Attributes:
        images_per_epoch: images that one epoch shows, repetitions counted.
        converted: how many images were grey, CMYK, 16 bit, turned, ... and became the RGB that a viewer shows.
        cut: how many captions had more token ids than are read, and lost their end.
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
        reopen: "Callable[[], BatchLoader] | None" = None,
        on_bad_sample: Literal["fail", "skip"] = "fail",
        pin_memory: bool = False,
    ):
        """Prepare to read; no image is read yet.

        ``mixed``: the sets, and how much of each an epoch shows. ``batch_size``: images of the global batch. ``seed``:
        of the order. ``crops``: how their bytes become pixels. ``extras``: what is read of images besides.
        ``change``: what is done to every crop's pixels after that, in the decoding threads. ``reopen``: opens this
        loader in another process, and can be pickled: with it more than four threads become processes.

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
        self._change, self._reopen = change, reopen
        self._policy, self._pin, self._read, self._left_out = on_bad_sample, pin_memory, 0, 0
        self._asked: dict[int, bytes] = {}
        self.skipped: list[str] = []
        self.converted, self.cut = Counter[str](), 0

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

    def slots(self, step: int) -> list[Slot]:
        """List where this rank's images of global batch ``step`` come from."""
        first = step * self._groups_per_batch
        stretch = self._order.stretch(first + self._mine.start, first + self._mine.stop)
        for part, shards in self._order.ahead(stretch).items():
            self._prefetch(part, shards)
        columns = (stretch.part.tolist(), stretch.group.tolist(), stretch.showing.tolist())
        if self._groups_are_images:
            return [Slot(*column) for column in zip(*columns, strict=True)]
        return [
            Slot(part, position, showing)
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
        if self._reopen is not None and self._threads > MOST_THREADS:
            yield from self._by_processes(self._reopen, range(first_step, end_step))
            return
        with ThreadPoolExecutor(self._threads, thread_name_prefix="decode") as pool:
            ahead: deque[tuple[Batch, list[Future[Filled]]]] = deque()
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

    def _by_processes(self, reopen: "Callable[[], BatchLoader]", steps: range) -> Iterator[Batch]:
        if not steps:
            return
        ahead: deque[Batch] = deque()
        pattern = self._empty(0, self.slots(steps.start), pin=False)
        decoders = DecodingProcesses(reopen, self._threads, pattern, PREFETCH_BATCHES + 1)
        try:
            for step in steps:
                slots = self.slots(step)
                ahead.append(self._empty(step, slots, self._pin))
                decoders.ask(slots)
                if len(ahead) > PREFETCH_BATCHES:
                    yield self._counted(ahead[0], decoders.answer(ahead.popleft()))
            while ahead:
                yield self._counted(ahead[0], decoders.answer(ahead.popleft()))
        finally:
            decoders.close()

    def _start(self, step: int, pool: ThreadPoolExecutor) -> tuple[Batch, list[Future[Filled]]]:
        slots = self.slots(step)
        batch = self._empty(step, slots, self._pin)
        numbered, share = list(enumerate(slots)), -(-len(slots) // self._threads)
        parts = [dict(numbered[start : start + share]) for start in range(0, len(slots), share)]
        return batch, [pool.submit(self.fill, batch, part) for part in parts]

    def _empty(self, step: int, slots: list[Slot], pin: bool) -> Batch:
        n, local = len(slots), self._crops.local
        return Batch(
            step=step,
            pixels=_room(n, self._crops, pin),
            labels=torch.zeros(n, dtype=torch.int64),
            weights=torch.ones(n),
            source=np.array([slot.part for slot in slots], dtype=np.int64),
            index=np.full(n, -1, dtype=np.int64),
            times_seen=np.array([slot.times_seen for slot in slots], dtype=np.int64),
            local=None if local is None else _room(n, local, pin),
            extras=self._extras.empty(self._mixed, n, pin),
            first=self._mine.start * self._size_of_group,
        )

    def fill(self, batch: Batch, slots: dict[int, Slot]) -> Filled:
        """Decode images of a batch into their places there; return what is wrong with those left out.

        Raises:
            VerificationError: a damaged image under the policy ``fail``.
        """
        problems, converted, pixels = [], Counter[str](), batch.pixels.numpy()
        local = None if batch.local is None else batch.local.numpy()
        for number, slot in slots.items():
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
                cut = self._extras.fill(batch.extras, number, source, slot.part, position, slot.times_seen, where)
                converted.update([CUT] if cut else [])
            except VerificationError as error:
                if self._policy == "fail":
                    raise
                batch.weights[number] = 0.0
                batch.pixels[number] = 0
                if local is not None:
                    local[number] = 0
                problems.append(str(error))
        return problems, converted

    def _finish(self, batch: Batch, jobs: list[Future[Filled]]) -> Batch:
        return self._counted(batch, [job.result() for job in jobs])

    def _counted(self, batch: Batch, filled: list[Filled]) -> Batch:
        for problems, converted in filled:
            self.skipped += problems
            self._left_out += len(problems)
            if cut := converted.pop(CUT, 0):
                note_once(f"a caption has more than {self._extras.text_length} token ids and loses its end")
                self.cut += cut
            self.converted += converted
        self._read += len(batch.labels)
        if self._left_out > max(TOLERATED_BAD_SAMPLES, TOLERATED_BAD_SHARE * self._read):
            raise VerificationError(
                f"{self._left_out} of {self._read} images are damaged, more than skipping allows; the last: "
                f"{self.skipped[-1]}"
            )
        return batch


def _room(n: int, crops: Crops, pin: bool) -> torch.Tensor:
    side = crops.size_px
    return torch.empty((n, crops.views, side, side, 3), dtype=torch.uint8, pin_memory=pin)
