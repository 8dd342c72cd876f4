"""Features in the place of images: each image passes the frozen network once, and every batch reads what came of it.

In: a `Job` whose features are cached, the learner, what presents a batch on the device. Out: a loader whose batches are
those of the training, their ``pixels`` the features. The files lie in the run folder, below a hash of all that features
depend on; processes share the work, and whatever is whole after a kill is not computed again.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from synclones.base.errors import HOW_TO_RESUME, Stopped
from synclones.base.files import remove_leftovers, sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.base.output import say
from synclones.base.process import stop_asked
from synclones.base.progress import Progress
from synclones.shards.loading.batch import Batch, Slot
from synclones.shards.loading.batches import BatchLoader
from synclones.shards.loading.order import Stretch, slice_of_rank
from synclones.shards.loading.parts import Part
from synclones.shards.sources.labelled import LabelledSource
from synclones.train.batches.feature_files import FeatureFiles, record
from synclones.train.job import Job
from synclones.train.recovery.folder_names import FEATURES

IMAGES_AT_ONCE = 256
OF_IMAGES = ("data", "image_size_px", "decode", "interpolation", "pixels", "precision", "versions", "rules")
"""Keys of a plan that features depend on, beside the network's weights."""
ToFeatures = Callable[[Batch], Tensor]


class ListedImages(BatchLoader):
    """Reads images that are listed in the place of those that a step shows."""

    def __init__(self, *sources: Any, listed: Sequence[list[Slot]], **how: Any):
        """``listed``: the images of each batch; the rest as `BatchLoader` takes it."""
        self._listed = listed
        super().__init__(*sources, **how)

    def slots(self, step: int) -> list[Slot]:
        """Return batch number ``step`` of the list."""
        return self._listed[step]


class FeatureLoader:
    """Batches of one process, as `BatchLoader` makes them, of features.

    Attributes:
        skipped, converted, cut: as those of `BatchLoader`; a probe reads no captions.
    """

    def __init__(self, job: Job, rows: "Rows", files: FeatureFiles, converted: Counter[str]):
        """``converted``: of the images that were read for the files."""
        self._parts, self._order = job.mixed.parts, job.mixed.order(job.config.seed)
        self._rows, self._files, self._size = rows, files, job.config.batch_size
        self._mine = slice_of_rank(self._size, job.rank, job.world_size)
        self.skipped: list[str] = []
        self.converted, self.cut = converted, 0

    def batches(self, first_step: int, end_step: int) -> Iterator[Batch]:
        """Return batches ``first_step`` to ``end_step`` - 1."""
        for step in range(first_step, end_step):
            first = step * self._size
            yield self._batch(step, self._order.stretch(first + self._mine.start, first + self._mine.stop))

    def _batch(self, step: int, shown: Stretch) -> Batch:
        rows = self._files.read(self._rows.numbers(shown.part, shown.group))
        for at in np.flatnonzero(rows["weight"] == 0):  # as often as `BatchLoader` would have left it out
            source, position = _place(self._parts[int(shown.part[at])], int(shown.group[at]))
            self.skipped.append(f"{source.where(position)}: was damaged when its features were computed")
        return Batch(
            step=step,
            pixels=torch.from_numpy(np.ascontiguousarray(rows["features"]))[:, None],
            labels=torch.from_numpy(rows["label"].copy()),
            weights=torch.from_numpy(rows["weight"].copy()),
            source=shown.part,
            index=rows["index"].copy(),
            times_seen=shown.showing,
            first=self._mine.start,
        )


Loader = BatchLoader | FeatureLoader


class Rows:
    """Which row has the features of an image: part after part, in each the images that are ever shown, in order."""

    def __init__(self, job: Job):
        """List the images of the whole training."""
        self._parts = job.mixed.parts
        self._groups = [_shown(part, job.config.seed, number) for number, part in enumerate(self._parts)]
        self._starts = np.concatenate([[0], np.cumsum([len(of) for of in self._groups])])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def digest(self) -> str:
        """Return the SHA-256 of the list."""
        return sha256_bytes(b"".join(sha256_bytes(of.tobytes()).encode() for of in self._groups))

    def slots(self, rows: range) -> list[Slot]:
        """Return the images of neighbouring rows."""
        numbers = np.arange(rows.start, rows.stop)
        parts = np.searchsorted(self._starts, numbers, "right") - 1
        slots = []
        for number, part in zip((numbers - self._starts[parts]).tolist(), parts.tolist(), strict=True):
            slots.append(Slot(part, _place(self._parts[part], int(self._groups[part][number]))[1], 0))
        return slots

    def numbers(self, part: np.ndarray, group: np.ndarray) -> np.ndarray:
        """Return the row of each image, int64[n]."""
        rows = np.empty(len(part), dtype=np.int64)
        for number in np.unique(part):
            mine = part == number
            rows[mine] = self._starts[number] + np.searchsorted(self._groups[number], group[mine])
        return rows


def _shown(part: Part, seed: int, key: int) -> np.ndarray:
    """Return all images that a part ever shows, ascending int64[n]; each is a group of its own."""
    stream, asked = part.order(seed, key), part.unique
    groups = np.unique(stream.at(np.arange(asked))[0])
    while len(groups) < part.unique:  # of classes that take turns the larger ones take longer
        asked *= 2
        groups = np.unique(stream.at(np.arange(asked))[0])
    return groups


def _place(part: Part, group: int) -> tuple[LabelledSource, int]:
    """Return where the image of a group is read."""
    source = part.sets[0]
    return source, source.images(group, 0, 0)[0]


# ------------------------------------------------------------------ computing them


def training_loader(
    job: Job, accelerator: Accelerator, learner: nn.Module, images_of: Callable[[Batch], Tensor]
) -> Loader:
    """Return the batches of this process; where features are cached, those that are missing are computed first.

    ``images_of``: a batch to what the learner is given. Every process takes part.

    Raises:
        Stopped: after a signal; files that are whole stay.
        VerificationError: a damaged image, where those are not skipped.
    """
    if not job.caches_features:
        return job.loader(pin_memory=accelerator.device.type == "cuda")
    rows = Rows(job)
    folder = job.config.out / FEATURES / _identity(job, learner, rows)
    files = FeatureFiles(folder, len(rows))
    if job.rank == 0 and folder.exists():
        remove_leftovers(folder)
    accelerator.wait_for_everyone()
    # Each process hashes its share of what is there; what is missing is dealt anew.
    names = _together(files.whole(range(job.rank, len(files), job.world_size)))
    missing = [number for number in range(len(files)) if number not in names]
    _announce(job, files, missing)
    # A share may be a file longer than another: see `_write`.
    mine = missing[job.rank :: job.world_size]
    loader = job.loader(kind=partial(ListedImages, listed=[rows.slots(b) for n in mine for b in _blocks(files, n)]))

    def to_features(batch: Batch) -> Tensor:
        with torch.no_grad(), accelerator.autocast():
            features: Tensor = job.objective.features(learner, images_of(batch))
        return features.float()

    names |= _together(_write(files, mine, -(-len(missing) // job.world_size), loader, to_features, accelerator))
    files.open(names)
    return FeatureLoader(job, rows, files, loader.converted)


def _blocks(files: FeatureFiles, number: int) -> list[range]:
    span = files.span(number)
    return [range(at, min(at + IMAGES_AT_ONCE, span.stop)) for at in range(span.start, span.stop, IMAGES_AT_ONCE)]


def _identity(job: Job, learner: nn.Module, rows: Rows) -> str:
    """Return a hash of what the features depend on: the network's weights, and the images as it sees them."""
    facts: dict[str, Any] = {name: job.plan.get(name) for name in OF_IMAGES}
    tensors = learner.network["backbone"].state_dict()
    facts["architecture"], facts["images"] = job.config.architecture, rows.digest()
    facts["backbone"] = sha256_bytes(
        b"".join(
            name.encode()
            + sha256_bytes(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()).encode()
            for name, tensor in sorted(tensors.items())
        )
    )
    return sha256_bytes(canonical_json(facts))[:16]


def _announce(job: Job, files: FeatureFiles, missing: Sequence[int]) -> None:
    if job.rank or not missing:
        return
    images = sum(len(files.span(number)) for number in missing)
    say(
        f"{files.folder}: the backbone sees {images:,} of {files.rows:,} images once, nothing changes them; later "
        "batches read features (--probe-cache off: it sees them at every showing)"
    )


def _together(own: dict[int, str]) -> dict[int, str]:
    """Return what all processes have."""
    names: dict[int, str] = dict(gather_object(list(own.items())))
    return names


def _write(
    files: FeatureFiles,
    mine: Sequence[int],
    rounds: int,
    loader: BatchLoader,
    to_features: ToFeatures,
    accelerator: Accelerator,
) -> dict[int, str]:
    """Compute this process' files and return their names; all go ``rounds`` rounds, and stop in the same one.

    Raises:
        Stopped: after a signal to any of them.
    """
    names: dict[int, str] = {}
    blocks = sum(len(_blocks(files, number)) for number in mine)
    batches = loader.batches(0, blocks)
    images, shown = sum(len(files.span(number)) for number in mine), accelerator.is_main_process
    with Progress("images", images, what="features", shares=1, shown=shown) as progress:
        for number in [*mine, *([None] * (rounds - len(mine)))]:
            if number is not None:
                done = []
                for block in _blocks(files, number):
                    done.append(_records(next(batches), to_features))
                    progress.add(len(block))
                names[number] = files.write(number, np.concatenate(done))
            if stop := _signal(accelerator):
                raise Stopped(stop, HOW_TO_RESUME[-1])
    next(batches, None)  # ends what decodes
    if loader.skipped:
        say(f"{len(loader.skipped)} damaged images were left out")
    return names


def _records(batch: Batch, to_features: ToFeatures) -> np.ndarray:
    features = to_features(batch).cpu().numpy()
    rows = np.empty(len(features), dtype=record(features.shape[1]))
    rows["features"], rows["index"] = features, batch.index
    rows["label"], rows["weight"] = batch.labels.numpy(), batch.weights.numpy()
    return rows


def _signal(accelerator: Accelerator) -> int:
    """Return the number of a signal that any process was sent, 0 for none."""
    own = torch.tensor([stop_asked()], device=accelerator.device)
    return int(accelerator.gather(own).max())
