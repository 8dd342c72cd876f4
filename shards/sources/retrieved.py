"""Images that were retrieved out of a set, as a `Source` of their own: an index over the shards of the set, no copy.

In and out: a folder with ``index.parquet`` (a row per image: shard, row and number in the set, key, label, score) and
``retrieved.json`` (the set by path and content hash, classes, model, rule, the hash of the index). The set is compared
with its hash when the folder is opened.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.json_file import canonical_json, pretty_json, read_json, read_regular
from synclones.shards.schema import MAX_SHARD_ROWS
from synclones.shards.sidecar import read_sidecar
from synclones.shards.sources.source import FetchedSource, OpenShard, Source
from synclones.shards.write import parquet_bytes

FORMAT = 1
RETRIEVED, INDEX = "retrieved.json", "index.parquet"
MAX_INDEX_BYTES, MAX_IMAGES = 2**34, 2**30
SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),  # the image's number in the set
        pa.field("key", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ]
)
_SET_KEYS = ("path", "content_hash", "split", "label_key", "caption_key")


@dataclass(frozen=True)
class Retrieved:
    """What a folder of retrieved images states.

    Attributes:
        set_facts: path and content hash of the set, and how it was opened.
        class_ids: the class of each label, in order.
        rule: how the images were chosen, model included.
        index_sha256: of the bytes of ``index.parquet``.
        images: how many there are.
    """

    set_facts: dict[str, str]
    class_ids: tuple[str, ...]
    rule: dict[str, Any]
    index_sha256: str
    images: int

    @property
    def content_hash(self) -> str:
        """Identity of the images, their labels and their order; of the set its contents count, not its path."""
        known_by = [FORMAT, self.set_facts["content_hash"], list(self.class_ids), self.index_sha256]
        return sha256_bytes(canonical_json(known_by))

    def record(self) -> dict[str, Any]:
        """Return the same as a JSON object."""
        named = {"class_ids": list(self.class_ids), "rule": self.rule, "index_sha256": self.index_sha256}
        return {"format": FORMAT, "set": self.set_facts, **named, "images": self.images}


def is_retrieved(path: Path) -> bool:
    """Tell whether this is a folder of retrieved images."""
    return (path / RETRIEVED).is_file()


def write_retrieved(
    folder: Path, set_facts: dict[str, str], class_ids: Sequence[str], rule: dict[str, Any], table: pa.Table
) -> Retrieved:
    """Write index and json into an empty folder; the caller adds what else lies in it.

    ``table``: of `SCHEMA`, ordered by shard and row.
    """
    data = parquet_bytes(table.cast(SCHEMA))
    stated = Retrieved(set_facts, tuple(class_ids), rule, sha256_bytes(data), len(table))
    write_atomic(folder / INDEX, data)
    write_atomic(folder / RETRIEVED, pretty_json(stated.record()))
    return stated


def read_retrieved(folder: Path) -> Retrieved:
    """Read what a folder of retrieved images states.

    Raises:
        InputError: there is none.
        VerificationError: it is broken.
    """
    path = folder / RETRIEVED
    try:
        record = read_json(path)
        stated = Retrieved(
            {key: record["set"][key] for key in _SET_KEYS},
            tuple(record["class_ids"]),
            dict(record["rule"]),
            record["index_sha256"],
            record["images"],
        )
        texts = [*stated.set_facts.values(), *stated.class_ids, stated.index_sha256]
        sound = record["format"] == FORMAT and all(type(text) is str for text in texts) and type(stated.images) is int
    except FileNotFoundError:
        raise InputError(f"{folder}: no {RETRIEVED}; give a folder that `synclones shards retrieve` made") from None
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise VerificationError(f"{path}: not the json of retrieved images; retrieve them again")
    return stated


class RetrievedSource:
    """Images of another set by an index, with classes of their own. Safe to use from several threads.

    Attributes:
        folder: where the index is.
        stated: what it says of itself.
        behind: the set that holds the images.
    """

    def __init__(self, folder: Path, stated: Retrieved, behind: Source):
        """Compare the set with the one that the index is of, and read the index.

        Raises:
            VerificationError: the set is another by now, or the index is damaged.
        """
        self.folder, self.stated, self.behind = folder, stated, behind
        then, now = stated.set_facts["content_hash"], behind.content_hash()
        if now != then:
            raise VerificationError(
                f"{folder}: {behind.folder} changed since images were retrieved from it (content {then[:16]} then, "
                f"{now[:16]} now); restore it, or retrieve again"
            )
        shard, self._rows, self._labels = self._read()
        self._numbers, self._starts = np.unique(shard, return_index=True)
        self._ends = [*self._starts[1:], len(shard)]

    def _read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        path = self.folder / INDEX
        try:
            data = read_regular(path, MAX_INDEX_BYTES)
            if sha256_bytes(data) != self.stated.index_sha256:
                raise ValueError(f"other bytes than {RETRIEVED} states")
            table = read_sidecar(pa.py_buffer(data), ["shard", "row", "label"], SCHEMA, max_rows=MAX_IMAGES)
            columns = [table[name].to_numpy() for name in ("shard", "row", "label")]
            self._check(*columns)
        except FileNotFoundError:
            raise VerificationError(f"{path}: missing; restore it, or retrieve again") from None
        except ValueError as error:
            raise VerificationError(f"{path}: damaged ({error}); restore it, or retrieve again") from None
        return columns[0], columns[1], columns[2]

    def _check(self, shard: np.ndarray, row: np.ndarray, label: np.ndarray) -> None:
        """Raise ValueError for rows that are none of the set, or classes that are none."""
        counts = np.asarray(self.behind.images_per_shard)
        codes = shard.astype(np.int64) * MAX_SHARD_ROWS + row
        inside = len(shard) == self.stated.images and (np.diff(codes) > 0).all()
        if not inside or (len(shard) and not (shard[-1] < len(counts) and (row < counts[shard]).all())):
            raise ValueError("names images that the set has not")
        if len(label) and not 0 <= label.min() <= label.max() < len(self.stated.class_ids):
            raise ValueError("names classes that it has not")

    @property
    def class_ids(self) -> tuple[str, ...]:
        """The class of each label, in order."""
        return self.stated.class_ids

    @cached_property
    def images_per_shard(self) -> Sequence[int]:
        """How many images were retrieved from each shard of the set that has any."""
        return [int(end - start) for start, end in zip(self._starts, self._ends, strict=True)]

    @property
    def is_local(self) -> bool:
        """Whether any image costs as little as any other, as in the set."""
        return self.behind.is_local

    def content_hash(self) -> str:
        """Return the identity of the retrieved images."""
        return self.stated.content_hash

    def check(self, *, quick: bool) -> None:
        """Compare the set with what is known of it.

        Raises:
            VerificationError: naming what differs.
        """
        self.behind.check(quick=quick)

    def prefetch(self, shards: Sequence[int]) -> None:
        """Begin to bring the set's shards that hold these images."""
        self.behind.prefetch([int(self._numbers[shard]) for shard in shards])

    def open(self, shard: int) -> "RetrievedShard":
        """Open the images of one shard of the set.

        Raises:
            VerificationError: its columns are damaged.
        """
        part = slice(self._starts[shard], self._ends[shard])
        return RetrievedShard(self.behind.open(int(self._numbers[shard])), self._rows[part], self._labels[part])


class FetchedRetrievedSource(RetrievedSource):
    """The same of a set whose shards are fetched into a bounded cache."""

    behind: Any

    @property
    def cache_bytes(self) -> int:
        """How much of the set the cache holds at once."""
        held: int = self.behind.cache_bytes
        return held

    def bytes_per_shard(self) -> Sequence[int]:
        """Return how much of the cache each shard takes, shards in order."""
        sizes = self.behind.bytes_per_shard()
        return [sizes[number] for number in self._numbers]


def retrieved_source(folder: Path, stated: Retrieved, behind: Source) -> RetrievedSource:
    """Return the source of a folder over the set that it is of.

    Raises:
        VerificationError: the set is another by now, or the index is damaged.
    """
    kind = FetchedRetrievedSource if isinstance(behind, FetchedSource) else RetrievedSource
    return kind(folder, stated, behind)


class RetrievedShard:
    """Some images of a shard, under labels of their own. Safe to use from several threads."""

    def __init__(self, behind: OpenShard, rows: np.ndarray, label: np.ndarray):
        self._behind, self._rows = behind, rows
        self.index, self.label = behind.index[rows], label

    def __len__(self) -> int:
        return len(self._rows)

    def image(self, row: int) -> bytes:
        """Read the encoded image.

        Raises:
            VerificationError: it is damaged, missing, or changed since the set was opened.
        """
        return self._behind.image(int(self._rows[row]))

    def caption(self, row: int) -> str:
        """Read the image's text; empty when it has none.

        Raises:
            VerificationError: as `image`.
        """
        return self._behind.caption(int(self._rows[row]))

    def caption_ids(self) -> np.ndarray:
        """Return which images share a caption, as in the set: int64[n]."""
        ids: np.ndarray = self._behind.caption_ids()[self._rows]
        return ids

    def name(self, row: int) -> str:
        """Return what the image is called in its set."""
        return self._behind.name(int(self._rows[row]))

    def where(self, row: int) -> str:
        """Name the image in messages: file and sample of the set."""
        return self._behind.where(int(self._rows[row]))
