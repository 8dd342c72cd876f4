"""A finished set in Python: its samples by position, and the forms in which torch, webdataset and Hugging Face read it.

In: a dataset folder. Out: `Dataset`, whose items are `DatasetSample`s; every one is checked when it is read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from synclones.base.errors import InputError
from synclones.base.manifest import MANIFEST_FILE
from synclones.shards.read import ShardFolder
from synclones.shards.schema import Sample
from synclones.shards.unfinished import how_far, is_unfinished, resume_command

if TYPE_CHECKING:
    import datasets
    from PIL.Image import Image


@dataclass(frozen=True)
class DatasetSample:
    """One stored image with its prompt, its class and what it was drawn from."""

    index: int
    """Its row in the prompt table, which it keeps when a set grows."""
    prompt: str
    label: int | None
    """Position of its class among the set's; None of a set without classes."""
    class_id: str | None
    seed: int
    """Of its noise, 0 to 2^32 - 1."""
    jpg: bytes

    @property
    def image(self) -> "Image":
        """The image of PIL, RGB.

        Raises:
            VerificationError: it cannot be decoded.
        """
        from PIL import Image

        return Image.fromarray(self.pixels)

    @property
    def pixels(self) -> np.ndarray:
        """uint8[height, width, 3], RGB.

        Raises:
            VerificationError: it cannot be decoded.
        """
        from synclones.shards.sources.decode import decode_image

        return decode_image(self.jpg, where=f"sample {self.index}")


class Dataset(ShardFolder):
    """The stored images of a finished set, by position: those that failed or were dropped have none."""

    def __init__(self, folder: Path | str, split: str | None = None):
        """Open the set.

        Raises:
            InputError: no such folder, no shards in it, or not all that were planned.
            VerificationError: the json of a shard is broken.
        """
        super().__init__(folder, split)
        if is_unfinished(self.folder):  # a set that is shorter than it will be is nobody's wish
            raise InputError(f"{folder}: unfinished, {how_far(self.folder)}; go on with: {resume_command(self.folder)}")

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, position: int) -> DatasetSample:
        """Return the sample at a position, counted from the end if it is negative.

        Raises:
            IndexError: there is none.
            VerificationError: it is damaged.
        """
        at = position + self.num_samples if position < 0 else position
        if not 0 <= at < self.num_samples:
            raise IndexError(f"{self.folder}: no sample {position}; it has {self.num_samples}")
        number = int(np.searchsorted(self._ends, at, side="right"))
        first = int(self._ends[number - 1]) if number else 0
        return self._shown(self._cached_shard(self.shards[number]).sample(at - first))

    def __iter__(self) -> Iterator[DatasetSample]:
        return map(self._shown, self.sequential())

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes, by label; none of a set without, or of shards that no manifest is with."""
        return self.class_ids if (self.folder / MANIFEST_FILE).exists() and self.has_classes else ()

    def to_torch(self, transform: "Callable[[Image], Any] | None" = None) -> "TorchDataset":
        """Return the set for `torch.utils.data.DataLoader`: pairs of image and label, -1 where there is none.

        Args:
            transform: makes of an image of PIL what is given out; by default uint8[3, height, width].
        """
        return TorchDataset(self.folder, self.split, transform)

    def to_hf(self, **options: Any) -> "datasets.Dataset":
        """Return the set of Hugging Face's library, columns ``jpg``, ``txt``, ``json`` and, with classes, ``cls``.

        Args:
            options: those of `datasets.load_dataset`, such as ``streaming=True`` or ``cache_dir``.

        Raises:
            InputError: the library is not installed.
        """
        if find_spec("datasets") is None:
            raise InputError("to_hf(): the library datasets is not installed; run: pip install datasets")
        from datasets import load_dataset

        tars = [str(self.folder.absolute() / f"{shard}.tar") for shard in self.shards]
        return load_dataset("webdataset", data_files={self.split: tars}, split=self.split, **options)

    @cached_property
    def _ends(self) -> np.ndarray:
        """int64[shards]: how many samples there are up to the end of each shard."""
        return np.cumsum(self.samples_per_shard)

    def _shown(self, sample: Sample) -> DatasetSample:
        class_id = None if sample.label is None or not self.classes else self.classes[sample.label]
        return DatasetSample(sample.index, sample.txt, sample.label, class_id, sample.seed, sample.jpg)


class TorchDataset:
    """A set as `torch.utils.data.DataLoader` takes one; each worker opens it for itself."""

    def __init__(self, folder: Path, split: str, transform: "Callable[[Image], Any] | None"):
        """Open the set, so that what is wrong with it shows here and not in a worker."""
        self.folder, self.split, self.transform = folder, split, transform
        self._dataset: Dataset | None = Dataset(folder, split)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_dataset": None}  # open shards stay with the process that opened them

    def _opened(self) -> Dataset:
        if self._dataset is None:
            self._dataset = Dataset(self.folder, self.split)
        return self._dataset

    def __len__(self) -> int:
        return len(self._opened())

    def __getitem__(self, position: int) -> tuple[Any, int]:
        sample = self._opened()[position]
        label = -1 if sample.label is None else sample.label
        if self.transform is not None:
            return self.transform(sample.image), label
        import torch

        return torch.from_numpy(np.ascontiguousarray(sample.pixels.transpose(2, 0, 1))), label


def open_dataset(folder: Path | str, split: str | None = None) -> Dataset:
    """Open a finished set to read its samples: by position, in order, or through other libraries.

    ``split``: read from the folder by default.

    Raises:
        InputError: no such folder, or no shards in it.
        VerificationError: the json of a shard is broken.
    """
    return Dataset(folder, split)
