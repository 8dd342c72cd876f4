"""Accuracies and features of images under the weights as they are, divided among processes.

In: an `ImageSet`, a network in evaluation mode. Out: numbers that are the same for any number of processes: batches are
fixed by position and dealt to processes, what one of them computed is added to zeros of the others, sums are taken in
the order of the images.
"""

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from synclones.base.errors import VerificationError
from synclones.models.network import Preprocessing
from synclones.shards.loading.order import slice_of_rank
from synclones.train.measures.named_sets import ImageSet

BATCH, AHEAD = 64, 2
MOST_KEPT = 2**30  # bytes of the features of a set, in each process
NOT_READ = -1
Decoded = tuple[np.ndarray, int]


@dataclass(frozen=True)
class Measurer:
    """One process' share of measurements."""

    accelerator: Accelerator
    preprocessing: Preprocessing
    threads: int
    skips: bool
    """Whether a damaged image is told of and left out; else it ends the training."""
    kept: dict[str, list[tuple[int, Tensor, Tensor]]] = field(default_factory=dict)
    """This process' batches of a set that a frozen network has seen: number, features, classes; on the CPU."""

    def batches(self, images: ImageSet) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Read the batches of this process: number, float32[n, 3, s, s] in 0..1, and int64[n], -1 for a damaged image.

        Raises:
            VerificationError: a damaged image, by shard and sample.
        """
        device, count = self.accelerator.device, num_batches(images)
        mine = range(self.accelerator.process_index, count, self.accelerator.num_processes)
        with ThreadPoolExecutor(self.threads, thread_name_prefix="measure") as pool:
            ahead: deque[tuple[int, list[Future[Decoded]]]] = deque()
            for number in [*mine, *([None] * AHEAD)]:
                if number is not None:
                    ahead.append((number, [pool.submit(self._read, images, at) for at in _span(images, number)]))
                if len(ahead) > AHEAD or (number is None and ahead):
                    at, jobs = ahead.popleft()
                    pixels, labels = zip(*(job.result() for job in jobs), strict=True)
                    moved = torch.from_numpy(np.stack(pixels)).to(device).permute(0, 3, 1, 2).float() / 255
                    yield at, moved, torch.tensor(labels, device=device)

    def _read(self, images: ImageSet, number: int) -> Decoded:
        try:
            return images.read(number, self.preprocessing)
        except VerificationError as error:
            if not self.skips:
                raise
            print(f"{error}; left out of {images.name}", file=sys.stderr, flush=True)
            return np.zeros((*self.preprocessing.input_px, 3), dtype=np.uint8), NOT_READ

    def _seen(self, images: ImageSet, features: Callable[[Tensor], Tensor]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Return the batches of this process with ``features`` of the pixels, which are computed once and kept.

        Of a set whose features take more memory than `MOST_KEPT` they are computed each time.
        """
        if images.name in self.kept:
            device = self.accelerator.device
            yield from ((at, rows.to(device), labels.to(device)) for at, rows, labels in self.kept[images.name])
            return
        kept, num_bytes = [], 0
        for number, pixels, labels in self.batches(images):
            rows = features(pixels)
            num_bytes += rows.nbytes
            if num_bytes <= MOST_KEPT:
                kept.append((number, rows.cpu(), labels.cpu()))
            yield number, rows, labels
        if num_bytes <= MOST_KEPT:
            self.kept[images.name] = kept

    def accuracies(
        self,
        classify: Callable[[Tensor], Tensor],
        heads: int,
        images: ImageSet,
        features: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the share of images whose largest logit is that of their class, and the mean cross-entropy in nats.

        ``classify``: pixels to logits float[heads, n, classes]; or where ``features`` of pixels never change, these.
        Both float64[heads], on the CPU.
        """
        sums = torch.zeros((num_batches(images), 3, heads), dtype=torch.float64, device=self.accelerator.device)
        for number, given, labels in self.batches(images) if features is None else self._seen(images, features):
            logits = classify(given).float()
            counted = labels != NOT_READ
            wanted = labels.clamp(min=0).expand(heads, -1)
            loss = F.cross_entropy(logits.movedim(-1, 1), wanted, reduction="none")
            each = torch.stack([logits.argmax(-1) == wanted, loss, torch.ones_like(loss)]) * counted
            sums[number] = each.double().sum(-1)
        right, losses, count = self.together(sums).cpu().sum(0)
        return right / count, losses / count

    def features(self, backbone: nn.Module, images: ImageSet) -> tuple[Tensor, Tensor]:
        """Return float32[n, d] and int64[n] of all images but damaged ones, on every process.

        ``backbone``: pixels in 0..1 to float[n, d].
        """
        width = torch.zeros((), dtype=torch.int64, device=self.accelerator.device)
        rows: Tensor | None = None
        known = torch.zeros(len(images), dtype=torch.int64, device=self.accelerator.device)
        for number, pixels, labels in self.batches(images):
            features = backbone(pixels).float().flatten(1)
            rows = features.new_zeros((len(images), features.shape[1])) if rows is None else rows
            at = _span(images, number)
            rows[at.start : at.stop], known[at.start : at.stop] = features, labels + 1
            width = width * 0 + features.shape[1]
        if self.accelerator.num_processes > 1:  # one that had no batch learns how wide its zeros have to be
            torch.distributed.all_reduce(width, op=torch.distributed.ReduceOp.MAX)
        rows = torch.zeros((len(images), int(width)), device=known.device) if rows is None else rows
        rows, known = self.together(rows), self.together(known) - 1
        return rows[known != NOT_READ], known[known != NOT_READ]

    def together(self, own: Tensor) -> Tensor:
        """Return the sum over processes; what each gives is 0 where others give something, so that it is exact."""
        total: Tensor = self.accelerator.reduce(own, "sum")
        return total

    def part(self, n: int) -> slice:
        """Return which of ``n`` rows are this process'."""
        mine = slice_of_rank(n, self.accelerator.process_index, self.accelerator.num_processes)
        return slice(mine.start, mine.stop)


def num_batches(images: ImageSet) -> int:
    """Return how many batches a set is measured in."""
    return -(-len(images) // BATCH)


def _span(images: ImageSet, number: int) -> range:
    return range(number * BATCH, min((number + 1) * BATCH, len(images)))


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode without gradients; afterwards every module is in the mode that it was in."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
