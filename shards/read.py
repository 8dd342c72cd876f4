"""Reads the samples of a finished dataset folder, one after the other or any of them, every one checked.

In: a folder of shards with their sidecars. Out: `Sample` objects; nothing is decoded unless asked, nothing extracted.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from synclones.base.errors import InputError, VerificationError
from synclones.base.manifest import read_manifest
from synclones.shards.index import Summary, content_hash, own_summary, present_split, shard_names
from synclones.shards.schema import Sample, SampleRow, ShardFiles, sample_key
from synclones.shards.shard import ReadRange, Shard, label_range, opened, sample_rows
from synclones.shards.stores.store import refuse_store
from synclones.shards.unfinished import is_unfinished, resume_command

if TYPE_CHECKING:
    from webdataset import WebDataset

CACHED_SHARDS = 8
TOLERATED_SAMPLES = 10  # of a folder of up to a thousand


class ShardFolder:
    """The complete shards of a folder. Safe to use from several threads.

    Attributes:
        split: which split of a set these are.
        shards: names of the complete shards, in order.
        samples_per_shard: stored samples (status ok) of each.
        num_samples: stored samples of all of them.
        skipped: what `sequential` left out, as (shard, sample key or "", reason).
    """

    def __init__(self, folder: Path | str, split: str | None = None):
        """Find the shards of ``split``, which is read from the folder by default.

        Raises:
            InputError: no such folder, or no shards in it.
            VerificationError: the json of a shard is broken.
        """
        self.folder = Path(folder)
        refuse_store(folder)
        if not self.folder.is_dir():
            raise InputError(f"{folder}: no such folder; give one that `synclones generate` made")
        self.split = split or present_split(self.folder)
        self.shards = shard_names(self.folder, self.split)
        if not self.shards:
            held = present_split(self.folder)
            if shard_names(self.folder, held):
                raise InputError(f"{folder}: has shards of the split {held}, none of {self.split}; give another folder")
            step = "give a folder that `synclones generate` made"  # never the advice to draw into somebody's files
            if is_unfinished(self.folder):
                step = f"go on with: {resume_command(self.folder)}"
            raise InputError(f"{folder}: no finished shards; {step}")
        self._summaries = {name: own_summary(ShardFiles(self.folder, name)) for name in self.shards}
        self._firsts = [summary["first_index"] for summary in self._summaries.values()]
        self.samples_per_shard: list[int] = [summary["ok"] for summary in self._summaries.values()]
        self.num_samples = sum(self.samples_per_shard)
        self.skipped: list[tuple[str, str, str]] = []
        self._left_out: dict[tuple[str, str], int] = {}  # once each, however often the folder is read
        self._tolerated = TOLERATED_SAMPLES
        self._cached_shard = lru_cache(maxsize=CACHED_SHARDS)(self.open)
        self._cached_rows = lru_cache(maxsize=CACHED_SHARDS)(self._read_rows)

    @cached_property
    def has_classes(self) -> bool:
        """Whether ``manifest.json`` says what labels mean."""
        return bool(read_manifest(self.folder).get("classes"))

    @cached_property
    def class_ids(self) -> tuple[str, ...]:
        """The class of each label in order, from ``manifest.json``.

        Raises:
            InputError: the images have no labels.
        """
        classes = read_manifest(self.folder).get("classes")
        if not isinstance(classes, list) or not classes:
            raise InputError(f"{self.folder}: the images have no labels; give a folder whose prompts name classes")
        return tuple(str(class_id) for class_id in classes)

    @property
    def summaries(self) -> list[Summary]:
        """What the json of each shard stated when the folder was opened."""
        return list(self._summaries.values())

    @property
    def planned_per_shard(self) -> list[int]:
        """Planned samples of each shard, stored or not."""
        return [summary["planned"] for summary in self._summaries.values()]

    @property
    def first_indices(self) -> list[int]:
        """The number of the first planned sample of each shard."""
        return list(self._firsts)

    def tar_sha256(self, shard: str) -> str:
        """Return the hash of a shard's tar, as its json states it."""
        return str(self._summaries[shard]["tar"]["sha256"])

    def content_hash(self) -> str:
        """Return the identity of the folder.

        Raises:
            VerificationError: the folder is unfinished.
        """
        return content_hash(self.folder)

    def summary(self, shard: str) -> Summary:
        """Read what the json of a shard states.

        Raises:
            VerificationError: it is missing or broken.
        """
        return own_summary(ShardFiles(self.folder, shard))

    def open(self, shard: str, *, images_only: bool = False) -> Shard:
        """Open a shard: read its columns, or those alone that finding an image takes.

        Raises:
            VerificationError: its Parquet file is missing or damaged.
        """
        files = ShardFiles(self.folder, shard)
        with self._sidecar_at_hand(files):
            return Shard(files, self._summaries[shard], self._read_range(files), images_only=images_only)

    def label_range(self, shard: str) -> tuple[int, int] | None:
        """Return the lowest and highest label planned in a shard, as its Parquet file notes them; None if it does not.

        Raises:
            VerificationError: its Parquet file is missing or damaged.
        """
        files = ShardFiles(self.folder, shard)
        with self._sidecar_at_hand(files):
            return label_range(files, self._summaries[shard])

    def rows(self, shard: str) -> list[SampleRow]:
        """Read the rows of a shard, one per planned sample.

        Raises:
            VerificationError: its Parquet file is missing or damaged.
        """
        return self._cached_rows(shard)

    def _read_rows(self, shard: str) -> list[SampleRow]:
        files = ShardFiles(self.folder, shard)
        with self._sidecar_at_hand(files):
            return sample_rows(files, self._summaries[shard])

    def _sidecar_at_hand(self, files: ShardFiles) -> AbstractContextManager[None]:
        """Enter a context in which the Parquet file of a shard can be read."""
        return nullcontext()

    def _read_range(self, files: ShardFiles) -> ReadRange | None:
        """Return what reads a tar that is not on this disk."""
        return None

    def get(self, index: int) -> Sample:
        """Read the sample ``index``.

        Raises:
            InputError: the folder has no such sample, or it has no image.
            VerificationError: it is damaged.
        """
        number = bisect_right(self._firsts, index) - 1
        shard = self._cached_shard(self.shards[number]) if number >= 0 else None
        position = None if shard is None else shard.position(index)
        if shard is None or position is None:
            raise InputError(self._why_absent(index, number))
        return shard.sample(position)

    def _why_absent(self, index: int, number: int) -> str:
        rows = self.rows(self.shards[number]) if number >= 0 else []
        row = next((row for row in rows if row.index == index), None)
        if row is None:
            return f"{self.folder}: no sample {index}; the folder holds {self._firsts[0]} and following"
        return f"{self.folder}: sample {index} has no image ({row.status}: {row.reason})"

    def sequential(
        self,
        shards: Sequence[str] | None = None,
        *,
        on_bad_shard: Literal["fail", "skip"] = "fail",
        tolerated: int | None = None,
    ) -> Iterator[Sample]:
        """Read the stored samples in order, each checked before it is given out.

        ``skip`` leaves damaged samples, and shards whose sidecar is damaged, out and lists them in ``skipped``, up to
        ``tolerated`` samples: by default 1 % of the folder's, and ten of a small one.

        Raises:
            VerificationError: damage, naming shard and sample, with ``fail``; more than is tolerated, with ``skip``.
        """
        self._tolerated = max(TOLERATED_SAMPLES, self.num_samples // 100) if tolerated is None else tolerated
        for name in self.shards if shards is None else shards:
            with ExitStack() as stack:
                try:
                    shard = self._cached_shard(name)
                    read_range = stack.enter_context(opened(shard.files.tar))
                except (VerificationError, OSError) as error:
                    self._bad(name, "", error, on_bad_shard, self._summaries[name]["ok"])
                    continue
                yield from self._samples(shard, read_range, on_bad_shard)

    def _samples(self, shard: Shard, read_range: ReadRange, policy: str) -> Iterator[Sample]:
        for position in range(len(shard)):
            try:
                sample = shard.sample(position, read_range)
            except VerificationError as error:
                self._bad(shard.files.name, sample_key(int(shard.index[position])), error, policy)
                continue
            yield sample

    def _bad(self, shard: str, key: str, error: Exception, policy: str, samples: int = 1) -> None:
        if policy == "fail":
            raise error if isinstance(error, VerificationError) else VerificationError(f"{shard}: {error}")
        self.skipped.append((shard, key, str(error)))
        self._left_out[shard, key] = samples
        left_out = sum(self._left_out.values())
        if left_out > self._tolerated:
            raise VerificationError(
                f"{self.folder}: {left_out} of {self.num_samples} samples are damaged, more than skipping "
                f"allows; the last: {error}"
            )

    def webdataset(self, **options: Any) -> "WebDataset":
        """Return the shards as a `webdataset.WebDataset`: a dictionary per sample with ``__key__`` and raw members.

        In stored order, unless ``options``, which are those of `webdataset.WebDataset`, ask for another. It reads the
        tars by itself: damage that its reader does not see goes unnoticed, so verify the folder first.
        """
        from webdataset import WebDataset

        folder = self.folder.absolute()  # of a relative path the library would take what precedes a colon for a scheme
        tars = [str(ShardFiles(folder, shard).tar) for shard in self.shards]
        return WebDataset(tars, **{"shardshuffle": False, **options})
