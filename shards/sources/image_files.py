"""Images that are files of their own, as collections that can be indexed: a folder per class, or a table of paths.

In: a folder, or a CSV or TSV with a header ``path,label|class_id[,caption]``, or StableRep's lines ``path,caption``
without one. Out: a row per image; 10,000 of them make one shard.
"""

import csv
import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes
from synclones.shards.sources.decode import IMAGE_SUFFIXES
from synclones.shards.sources.files import PassedOver, plain_text
from synclones.shards.sources.listing import Part, Row, SourceFile, stamped

IMAGES_PER_SHARD = 10_000
_MAX_IMAGE_BYTES = 2**28
_LABELS, _CAPTIONS = ("class_id", "label"), ("caption", "text")


@dataclass(frozen=True)
class _Entry:
    """One image file and its label and caption."""

    name: str
    """Below the root."""
    label: str | None
    caption: str = ""


@dataclass(frozen=True)
class FolderCollection:
    """Images below a folder, sorted by path; the first folder on the way names the class."""

    root: Path
    names: list[str]
    """Below the root, as `sorted_names` sorts them."""

    kind: ClassVar[str] = "folder"
    keeps_index: ClassVar[bool] = False  # torchvision takes every folder in the root for a class, hidden ones too
    has_text_labels: ClassVar[bool] = True

    def sources(self) -> list[SourceFile]:
        """Return nothing: every image is a file of its own."""
        return []

    def listing(self) -> str:
        """Return the hash of all names."""
        return sha256_bytes(os.fsencode("\0".join(self.names)))

    def parts(self) -> Sequence[Part]:
        """Return runs of files."""
        return _runs(self.root, [_Entry(name, self._label(name)) for name in self.names])

    def _label(self, name: str) -> str | None:
        top, slash, _ = name.partition("/")
        return plain_text(top) if slash else None

    def class_names(self) -> tuple[str, ...]:
        """Return nothing: the folders are the names."""
        return ()

    def rule(self) -> str:
        """Return where labels come from."""
        return "folder and nothing"


@dataclass(frozen=True)
class TableCollection:
    """Images that a table names, in its order; paths are below the folder of the table."""

    table: Path
    label_key: str | None = None
    caption_key: str | None = None

    kind: ClassVar[str] = "table"
    keeps_index: ClassVar[bool] = False
    has_text_labels: ClassVar[bool] = False

    @property
    def root(self) -> Path:
        """Return the folder that paths are below."""
        return self.table.parent

    def sources(self) -> list[SourceFile]:
        """Return the table."""
        return stamped(self.root, [self.table])

    def listing(self) -> str:
        """Return nothing: the table says which images there are."""
        return ""

    def parts(self) -> Sequence[Part]:
        """Return runs of the table's rows.

        Raises:
            InputError: a row that cannot be read, or a path that leads elsewhere.
        """
        return _runs(self.root, list(self._entries()))

    def class_names(self) -> tuple[str, ...]:
        """Return nothing."""
        return ()

    def rule(self) -> str:
        """Return where labels and captions come from."""
        _, label, caption = self._columns
        words = "nothing" if caption is None else f"column {caption}"
        return f"{f'column:{label[0]}' if label else 'nothing'} and {words}"

    @cached_property
    def _columns(self) -> tuple[int, tuple[str, int] | None, int | None]:
        """(column of the path, name and column of the label, column of the caption).

        Raises:
            InputError: the header names no path, or not what was asked for.
        """
        header = next(self._lines(), (0, []))[1]
        if self._is_without_header(header):
            asked = self.label_key or self.caption_key
            if asked is not None:
                raise InputError(f"{self.table}: has no header, and the column {asked!r} was asked for; write one")
            return 0, None, 1 if len(header) == 2 else None
        if "path" not in header or len(set(header)) < len(header):
            raise InputError(
                f"{self.table}:1: the header is {header}, expected path,label or path,class_id, and caption where "
                "there are captions, each once; rename the columns"
            )
        for key in (self.label_key, self.caption_key):
            if key is not None and key not in header:
                raise InputError(f"{self.table}:1: has no column {key!r}; the header is {header}")
        label = self.label_key or next((name for name in _LABELS if name in header), None)
        caption = self.caption_key or next((name for name in _CAPTIONS if name in header), None)
        labels = None if label is None else (label, header.index(label))
        return header.index("path"), labels, None if caption is None else header.index(caption)

    def _is_without_header(self, first: list[str]) -> bool:
        """Whether the first line is one of StableRep's, a path below the folder and a caption."""
        return 1 <= len(first) <= 2 and first[0].lower().endswith(IMAGE_SUFFIXES)

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        delimiter = "\t" if self.table.suffix.lower() == ".tsv" else ","
        with self.table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, delimiter=delimiter)
            try:
                for cells in reader:
                    if cells:
                        yield reader.line_num, cells
            except (csv.Error, UnicodeDecodeError) as error:
                words = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error
                raise InputError(f"{self.table}:{reader.line_num}: no line of a table ({words}); mend it") from None

    def _entries(self) -> Iterator[_Entry]:
        path, label, caption = self._columns
        lines = self._lines()
        first = next(lines, (0, []))
        width = len(first[1])
        if self._is_without_header(first[1]):
            lines = self._lines()
        for number, cells in lines:
            if len(cells) != width:
                raise InputError(f"{self.table}:{number}: {len(cells)} columns, expected {width}; quote commas")
            name, where = cells[path], f"{self.table}:{number}"
            parts = PurePosixPath(name).parts
            if not parts or name.startswith("/") or ".." in parts or not name.isprintable():
                raise InputError(f"{where}: {name!r} is no path below {self.root}; write paths from there")
            if not name.lower().endswith(IMAGE_SUFFIXES):
                raise InputError(f"{where}: {name!r} is no {', '.join(IMAGE_SUFFIXES)}; convert it, or drop the line")
            text = cells[label[1]].strip() if label else ""
            text = "" if text == "-1" else text
            if not text.isprintable():
                raise InputError(f"{where}: the label {text!r} holds a control character; remove it")
            yield _Entry(name, text or None, "" if caption is None else cells[caption].strip())


def _runs(root: Path, entries: list[_Entry]) -> list[Part]:
    starts = range(0, len(entries), IMAGES_PER_SHARD)
    return [_Run(root, entries[at : at + IMAGES_PER_SHARD], f"{at // IMAGES_PER_SHARD:05d}") for at in starts]


@dataclass(frozen=True)
class _Run:
    root: Path
    entries: list[_Entry]
    name: str

    def stamp(self) -> list[Any]:
        stamps = []
        for entry in self.entries:
            status = _status(self.root / entry.name)
            described = os.fsencode(entry.name).hex(), entry.label, entry.caption
            stamps.append([*described, status.st_size, status.st_mtime_ns])
        return stamps

    def files(self) -> list[SourceFile]:
        return []

    def rows(self, passed: PassedOver) -> Iterator[Row]:
        for entry in self.entries:
            path = self.root / entry.name
            status, data = _status(path), path.read_bytes()
            if not data:
                raise InputError(f"{path}: the image is empty; leave it out")
            yield Row(
                key=plain_text(entry.name),
                file=os.fsencode(entry.name),
                offset=0,
                size=len(data),
                crc32=zlib.crc32(data),
                label=entry.label,
                caption=entry.caption,
                mtime_ns=status.st_mtime_ns,
                sha256=hashlib.sha256(data).digest(),
            )


def _status(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise VerificationError(f"{path}: missing; fetch it again, or leave it out of the set") from None
    if not path.is_file() or status.st_size > _MAX_IMAGE_BYTES:
        raise InputError(f"{path}: no regular file of at most {_MAX_IMAGE_BYTES} bytes; leave it out")
    return status
