"""Parquet files of the Hugging Face Hub with a column of images, as a collection that can be indexed.

In: ``data/train-*.parquet`` with an image struct<bytes, path>, a label (its names in the schema's metadata) and texts.
Out: a row per image, whose place is its row; and encoded images by row, a row group at a time.
"""

import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synclones.base.errors import InputError, VerificationError
from synclones.base.json_file import parse_json
from synclones.shards.sources.files import PassedOver, plain_text
from synclones.shards.sources.listing import Part, Row, SourceFile, file_stamp, hashed, stamped

_BATCH = 32
_MAX_IMAGE_BYTES, _MAX_GROUP_BYTES = 2**28, 2**30
CACHED_BYTES = 2**29  # of row groups that were read


@dataclass(frozen=True)
class ParquetCollection:
    """Parquet files of one folder and those below it, in the order of their paths."""

    root: Path
    paths: list[Path]
    label_key: str | None = None
    caption_key: str | None = None

    kind: ClassVar[str] = "parquet"
    keeps_index: ClassVar[bool] = True
    has_text_labels: ClassVar[bool] = False

    def sources(self) -> list[SourceFile]:
        """Return the files."""
        return stamped(self.root, self.paths)

    def listing(self) -> str:
        """Return nothing: images are no files."""
        return ""

    def parts(self) -> Sequence[Part]:
        """Return a part per file.

        Raises:
            InputError: files of different columns.
        """
        parts = [_File(self, path, f"{number:05d}") for number, path in enumerate(self.paths)]
        for part in parts:
            if part.columns != self.columns:
                raise InputError(f"{part.path}: has other columns than {self.paths[0]}; give files of one set")
        return parts

    @cached_property
    def columns(self) -> "Columns":
        """Which columns are read.

        Raises:
            InputError: they are not as asked for.
        """
        return find_columns(self.paths[0], self.label_key, self.caption_key)

    def class_names(self) -> tuple[str, ...]:
        """Return the names that the schema gives to the labels."""
        return self.columns.class_names

    def rule(self) -> str:
        """Return where labels and captions come from."""
        words = [f"column:{name}" if name else "nothing" for name in (self.columns.label, self.columns.caption)]
        return " and ".join(words)


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are read."""

    image: str
    label: str | None
    caption: str | None
    class_names: tuple[str, ...]


def image_columns(path: Path) -> list[str]:
    """List the columns of images of a Parquet file; none for what is no such file."""
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return []
    return [f.name for f in schema if pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]


def find_columns(path: Path, label_key: str | None, caption_key: str | None) -> Columns:
    """Find the columns of a file; a key names one, else they are told by names and by the schema's metadata.

    Raises:
        InputError: there is no such column, or there are several.
    """
    schema, images = pq.read_schema(path), image_columns(path)
    names = _class_names(path, schema)
    image = "image" if "image" in images else images[0] if len(images) == 1 else None
    if image is None:
        raise InputError(f"{path}: has {len(images)} columns of images ({', '.join(images)}); keep one, named image")
    for key in (label_key, caption_key):
        if key is not None and key not in schema.names:
            raise InputError(f"{path}: has no column {key!r}; its columns are {', '.join(schema.names)}")
    label = label_key or ("label" if "label" in schema.names else None)
    if label is None and len(names) > 1:
        raise InputError(f"{path}: has several labels, {', '.join(names)}; choose one as the label key")
    label = label or next(iter(names), None)
    caption = caption_key or next((name for name in ("caption", "text") if name in schema.names), None)
    for name in (label, caption):
        kind = None if name is None else schema.field(name).type
        if kind is not None and not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            if name == caption or not pa.types.is_integer(kind):
                raise InputError(f"{path}: the column {name!r} holds {kind}, expected texts; choose another key")
    return Columns(image, label, caption, names.get(label or "", ()))


def _class_names(path: Path, schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Return column -> names of its classes, as `datasets` writes them."""
    try:
        stated = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = stated.get("info", {}).get("features", {})
        known = {name: entry for name, entry in features.items() if name in schema.names}
        labels = {name: entry for name, entry in known.items() if entry.get("_type") == "ClassLabel"}
        return {name: tuple(str(text) for text in entry["names"]) for name, entry in labels.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: its huggingface metadata cannot be read; write the file again") from None


@dataclass(frozen=True)
class _File:
    collection: ParquetCollection
    path: Path
    name: str

    @cached_property
    def columns(self) -> Columns:
        return find_columns(self.path, self.collection.label_key, self.collection.caption_key)

    def stamp(self) -> list[Any]:
        return file_stamp(self.collection.root, self.path)

    def files(self) -> list[SourceFile]:
        return [hashed(self.collection.root, self.path)]

    def rows(self, passed: PassedOver) -> Iterator[Row]:
        columns, at = self.columns, 0
        wanted = [f"{columns.image}.bytes", *(name for name in (columns.label, columns.caption) if name)]
        try:
            file = pq.ParquetFile(self.path)
            for group in range(file.num_row_groups):
                group_bytes = 0
                # A few rows at a time: a page may stand for the same long image in each of very many rows.
                for batch in file.iter_batches(_BATCH, [group], wanted, use_threads=False):
                    batch.validate(full=True)  # offsets, and texts that are UTF-8
                    images = batch.column(columns.image).field("bytes")
                    labels = batch.column(columns.label).to_pylist() if columns.label else [None] * len(batch)
                    texts = batch.column(columns.caption).to_pylist() if columns.caption else [""] * len(batch)
                    for image, label, text in zip(images, labels, texts, strict=True):
                        yield self._row(at, image.as_py(), label, text)
                        group_bytes, at = group_bytes + len(image.as_buffer()), at + 1
                    if group_bytes > _MAX_GROUP_BYTES:
                        raise InputError(
                            f"{self.path}: a row group of over {_MAX_GROUP_BYTES} bytes; write smaller ones"
                        )
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            words = " ".join(str(error).split())[:80]
            raise VerificationError(f"{self.path}: damaged ({words}); fetch it again") from None

    def _row(self, at: int, image: bytes | None, label: int | str | None, text: str | None) -> Row:
        if not image or len(image) > _MAX_IMAGE_BYTES:
            words = f"is of {len(image)} bytes" if image else "is missing or only a path"
            raise InputError(f"{self.path}: the image of row {at} {words}; write the file with its images' bytes")
        if label in ("", -1):
            label = None
        label = plain_text(label) if isinstance(label, str) else label
        return Row(str(at), b"", at, len(image), zlib.crc32(image), label, (text or "").strip())


class RowGroups:
    """Images of Parquet files by row: row groups are read whole and kept. Safe to use from several threads."""

    def __init__(self, column: str):
        self._column, self._lock = column, Lock()
        self._groups: OrderedDict[tuple[Path, int], Any] = OrderedDict()
        self._starts: dict[Path, np.ndarray] = {}

    def read(self, path: Path, row: int) -> bytes:
        """Read the image of a row; one thread at a time.

        Raises:
            VerificationError: the file is damaged or shorter than that.
        """
        with self._lock:
            try:
                starts = self._row_starts(path)
                group = int(np.searchsorted(starts, row, "right")) - 1
                images = self._groups.get((path, group))
                if images is None:
                    images = self._load(path, group)
                self._groups.move_to_end((path, group))
                data: bytes = images[row - int(starts[group])].as_py()
            except (pa.ArrowException, OSError, IndexError) as error:
                raise VerificationError(f"{path}: damaged at row {row} ({error}); fetch it again") from None
        return data

    def _row_starts(self, path: Path) -> np.ndarray:
        if path not in self._starts:
            metadata = pq.read_metadata(path)
            sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
            self._starts[path] = np.array([0, *accumulate(sizes)])
        return self._starts[path]

    def _load(self, path: Path, group: int) -> Any:
        table = pq.ParquetFile(path).read_row_group(group, [f"{self._column}.bytes"], use_threads=False)
        table.validate(full=True)
        images = pa.concat_arrays([chunk.field("bytes") for chunk in table.column(self._column).chunks])
        self._groups[path, group] = images
        while len(self._groups) > 1 and sum(kept.nbytes for kept in self._groups.values()) > CACHED_BYTES:
            self._groups.popitem(last=False)
        return images
