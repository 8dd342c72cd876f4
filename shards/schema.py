"""The vocabulary of a dataset folder: one sample, its row, its key, its members, and the names of the files.

In and out: nothing is read or written here. A dataset folder holds, for every shard, ``train-00000.tar`` (the samples),
``train-00000.parquet`` (one `SampleRow` per *planned* sample) and ``train-00000.json`` (written last).
"""

import re
from dataclasses import dataclass, fields
from pathlib import Path

import pyarrow as pa

from synclones.base.errors import InputError

MEMBERS = ("cls", "jpg", "json", "txt")  # the order inside the tar: sorted by extension, as webdataset writes them
SPLITS = ("train", "val", "test")
STATUSES = ("ok", "failed", "dropped")
MAX_INDEX = 2**32  # a sample's seed is a bijection of its index on 32 bits
MAX_SHARDS = 2**20  # of one set: a list of their names is in memory
MAX_SHARD_ROWS = 2**20  # planned samples of one shard: their rows are in memory
MAX_JSON_BYTES = 512  # constants of the whole set live in plan.json, not in every sample
KEY_PATTERN = re.compile(r"[0-9]+")  # no dot: webdataset would split the key there and merge samples
SHARD_PATTERN = re.compile(r"(?P<split>[a-z]+)-(?P<number>[0-9]{5,})")


def sample_key(index: int) -> str:
    """Return the tar key of sample ``index``: ten zero-padded digits."""
    return f"{index:010d}"


def shard_name(split: str, number: int, num_shards: int) -> str:
    """Return the name, without suffix, of shard ``number`` of ``num_shards``: five digits or more."""
    digits = max(5, len(str(num_shards - 1)))
    return f"{split}-{number:0{digits}d}"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One stored image with everything that travels beside it."""

    index: int
    """Identity of the image: its row in the prompt table, 0 <= index < 2^32."""
    jpg: bytes
    """The encoded image: JPEG in every shard synclones writes; png or webp bytes only out of foreign shards."""
    json: bytes
    """At most 512 bytes of JSON: index, seed, attempt, class_id, caption_id, plan id."""
    txt: str
    """The prompt."""
    label: int | None = None
    """Class number >= 0, or None: then the sample has no ``cls`` member."""
    seed: int = 0
    """Seed of the noise, 0 <= seed < 2^32."""
    attempt: int = 0
    """Which attempt drew it, from 0."""
    scores: str = ""
    """JSON object of scores such as CLIP similarity, or an empty string."""
    reason: str = ""
    """What a filter found in an image that is kept nonetheless, such as ``near duplicate``; usually empty."""


@dataclass(frozen=True, kw_only=True)
class FailedSample:
    """A planned sample without an image: it keeps its row, and has no members in the tar."""

    index: int
    status: str
    """``failed`` (the generator could not) or ``dropped`` (a filter did not want it)."""
    reason: str
    """Why, in a few words: ``nan latents``, ``safety checker``."""
    label: int | None = None
    seed: int = 0
    attempt: int = 0
    scores: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRow:
    """One row of the parquet sidecar. Offsets count from the start of the tar; 0 and 0 where a member is absent."""

    key: str
    index: int
    status: str
    reason: str
    attempt: int
    seed: int
    label: int  # -1: none
    scores: str
    offset: int  # first header of the sample
    nbytes: int  # all its members with headers and padding
    crc32: int  # of those bytes
    cls_offset: int
    cls_size: int
    jpg_offset: int
    jpg_size: int
    json_offset: int
    json_size: int
    txt_offset: int
    txt_size: int

    def to_dict(self) -> dict[str, str | int]:
        """Return the row as a JSON object."""
        return {name: getattr(self, name) for name in _TYPES}  # `asdict` would copy every value deeply


_TYPES = {field.name: field.type for field in fields(SampleRow)}


def is_row(value: object) -> bool:
    """Tell whether ``value`` has the fields of a `SampleRow` with values that a sidecar can hold."""
    if not isinstance(value, dict) or value.keys() != _TYPES.keys() or value["status"] not in STATUSES:
        return False
    return all(
        type(item) is _TYPES[name] and (type(item) is str or -1 <= item < 2 ** (31 if name in _SMALL else 63))
        for name, item in value.items()
    )


_SMALL = {"attempt": pa.int32(), "label": pa.int32()}
PARQUET_SCHEMA = pa.schema(
    [
        pa.field(f.name, pa.string() if f.type is str else _SMALL.get(f.name, pa.int64()), nullable=False)
        for f in fields(SampleRow)
    ]
)


def check_sample(sample: Sample | FailedSample) -> None:
    """Refuse, before anything is written, what the format cannot hold.

    Raises:
        InputError: names the sample and the field.
    """
    where = f"sample {sample.index}"
    if not 0 <= sample.index < MAX_INDEX:
        raise InputError(f"{where}: the index must be in 0..2^32-1; start a second dataset for more images")
    if not 0 <= sample.seed < 2**32:
        raise InputError(f"{where}: seed {sample.seed} was given, expected 0..2^32-1; use seeds of 32 bits")
    if sample.label is not None and not 0 <= sample.label < 2**31:
        raise InputError(f"{where}: label {sample.label} was given, expected a class number >= 0 or None for no label")
    if isinstance(sample, FailedSample):
        if sample.status not in ("failed", "dropped"):
            raise InputError(f"{where}: status {sample.status!r} was given, expected 'failed' or 'dropped'")
        return
    if not sample.jpg:
        raise InputError(f"{where}: the image is empty; record a FailedSample instead")
    if len(sample.json) > MAX_JSON_BYTES:
        raise InputError(
            f"{where}: {len(sample.json)} bytes of JSON were given, at most {MAX_JSON_BYTES} are expected; "
            "move what all samples share to plan.json"
        )


class ShardFiles:
    """The paths of one shard: final names, and the hidden ones that exist only while it grows."""

    def __init__(self, folder: Path, name: str):
        if not SHARD_PATTERN.fullmatch(name):
            raise InputError(f"{folder}: {name!r} is no shard name, expected one like train-00000; use shard_name()")
        self.folder, self.name = Path(folder), name
        self.tar = self.folder / f"{name}.tar"
        self.parquet = self.folder / f"{name}.parquet"
        self.json = self.folder / f"{name}.json"
        self.part = self.folder / f".{name}.part"
        self.journal = self.folder / f".{name}.part.jsonl"

    def temporaries(self) -> list[Path]:
        """List what an atomic write of this shard's sidecars left behind when it was killed."""
        return sorted(self.folder.glob(f".{self.name}.*.tmp-*"))
