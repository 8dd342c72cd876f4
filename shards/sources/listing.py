"""The index of a set that others made: where each image lies, its checksum, label and caption; one Parquet per shard.

In: a `Collection`, which knows how one kind of set is read from beginning to end. Out: ``index.json`` and a Parquet
file per shard in a folder of ours. Each is written whole or not at all, a killed command goes on behind the last shard,
and equal sets give equal bytes. The set itself is left alone.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import replaced_file, sha256_bytes, sha256_file
from synclones.base.json_file import canonical_json, parse_json
from synclones.shards.schema import MAX_SHARD_ROWS
from synclones.shards.sidecar import read_sidecar
from synclones.shards.sources.class_lists import MAX_LABEL
from synclones.shards.sources.files import PassedOver

FORMAT = 1
_FACTS = b"synclones"
SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("file", pa.binary(), nullable=False),  # below the root, as the file system spells it
        pa.field("offset", pa.int64(), nullable=False),  # of the encoded image; in Parquet files its row
        pa.field("size", pa.int64(), nullable=False),
        pa.field("crc32", pa.int64(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),  # number in the shard's own sorted list of labels; -1: none
        pa.field("caption", pa.string(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),  # of an image that is a file of its own, else 0
        pa.field("sha256", pa.binary(), nullable=False),  # of the same, else empty
    ]
)


class Row(NamedTuple):
    """One image of a foreign set."""

    key: str
    file: bytes
    offset: int
    size: int
    crc32: int
    label: int | str | None
    caption: str
    mtime_ns: int = 0
    sha256: bytes = b""


@dataclass(frozen=True)
class SourceFile:
    """A file of a foreign set as it was when it was indexed."""

    name: str
    """Below the root, as Python decodes it."""
    size: int
    mtime_ns: int
    """When it was changed; 0 of an object in a store."""
    sha256: str = ""
    version: str = ""
    """What a store or the hub says of its state; empty of a file."""

    def stated(self) -> dict[str, Any]:
        """Return its fields as JSON-able values; files say nothing of a version, as earlier versions did."""
        return {name: value for name, value in asdict(self).items() if name != "version" or value}

    def state(self) -> tuple[str, int, int, str]:
        """Return what tells whether it changed, without reading it."""
        return self.name, self.size, self.mtime_ns, self.version


class Part(Protocol):
    """What becomes one shard of an index: a tar, a Parquet file, or a run of image files."""

    @property
    def name(self) -> str:
        """Name of the shard, ASCII."""

    def stamp(self) -> list[Any]:
        """Return what tells whether it changed, without reading it: names, sizes and times."""

    def rows(self, passed: PassedOver) -> Iterator[Row]:
        """Read all images in order; what is passed over is counted."""

    def files(self) -> list[SourceFile]:
        """List the files that hold many images each, hashed; none where every image is a file."""


class Collection(Protocol):
    """A foreign set of one kind."""

    kind: ClassVar[str]
    keeps_index: ClassVar[bool]
    """Whether a hidden folder in the root disturbs no other reader."""
    has_text_labels: ClassVar[bool]
    """Whether digits are names, as those of folders are."""

    @property
    def root(self) -> Path:
        """The folder that names are below."""

    def sources(self) -> list[SourceFile]:
        """List the files whose size and time, or version, tell whether the set changed; not hashed."""

    def listing(self) -> str:
        """Return the hash of all names of images where these are files, else an empty text."""

    def parts(self) -> Sequence[Part]:
        """List what becomes a shard each, in order."""

    def class_names(self) -> tuple[str, ...]:
        """Return what the files say that numbers mean; usually nothing."""

    def rule(self) -> str:
        """Return where labels and captions come from, such as ``json:class_name and txt``."""


@dataclass(frozen=True)
class Facts:
    """What is known of one shard of an index, kept in its Parquet file."""

    name: str
    stamp: str
    """SHA-256 of what tells whether it changed."""
    images: int
    sha256: str
    """The identity of its images and what is said of them."""
    numbers: bool | None
    """Whether its labels are numbers; None without any."""
    labels: dict[str, int] = field(default_factory=dict)
    """How many images have each; empty in ``index.json``, where the sum of all shards stands once."""
    missing: int = 0
    first_missing: str = ""
    without_caption: int = 0
    passed: list[list[Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)


def file_stamp(root: Path, path: Path) -> list[Any]:
    """Return name, size and time of a file.

    Raises:
        InputError: its name is no text.
    """
    status, name = path.stat(), path.relative_to(root).as_posix()
    if not name.isprintable():
        raise InputError(f"{root}: the file {name!r} has a name that is no plain text; rename it")
    return [name, status.st_size, status.st_mtime_ns]


def stamped(root: Path, paths: Iterable[Path]) -> list[SourceFile]:
    """Return what files are now, without reading them."""
    return [SourceFile(*file_stamp(root, path)) for path in paths]


def hashed(root: Path, path: Path) -> SourceFile:
    """Return what a file is now, with its hash."""
    name, size, mtime_ns = file_stamp(root, path)
    return SourceFile(name, size, mtime_ns, sha256_file(path))


def write_part(part: Part, where: Path, *, text_labels: bool, expected: str | None, command: str) -> Facts:
    """Index one part, unless that was done and it did not change since.

    ``expected``: the identity that it had before.

    Raises:
        InputError: what it holds cannot be used.
        VerificationError: it changed while it was read, or is no longer what it was.
    """
    stamp = sha256_bytes(canonical_json(part.stamp()))
    path = where / f"{part.name}.parquet"
    known = _sound_facts(path)
    if known is not None and known.stamp == stamp and known.name == part.name:
        _refuse_other(known, expected, command)
        return known
    passed = PassedOver()
    rows = _at_most(part, part.rows(passed))
    files = [file.stated() for file in part.files()]
    if sha256_bytes(canonical_json(part.stamp())) != stamp:
        raise VerificationError(
            f"{part.name}: changed while it was indexed; wait until it is written, and run: {command}"
        )
    facts = _facts_of(part, rows, files, stamp, passed, text_labels)
    _refuse_other(facts, expected, command)
    _write(path, rows, facts)
    return facts


def _refuse_other(facts: Facts, expected: str | None, command: str) -> None:
    if expected not in (None, facts.sha256):
        named = facts.files[0]["name"] if facts.files else f"images of shard {facts.name}"
        raise VerificationError(f"{named}: changed since it was indexed; if that is right, run: {command}")


def _at_most(part: Part, rows: Iterator[Row]) -> list[Row]:
    kept = []
    for row in rows:
        kept.append(row)
        if len(kept) > MAX_SHARD_ROWS:
            raise InputError(f"{part.name}: holds over {MAX_SHARD_ROWS} images; split it")
    return kept


def _facts_of(
    part: Part, rows: list[Row], files: list[dict[str, Any]], stamp: str, passed: PassedOver, text_labels: bool
) -> Facts:
    labels, numbers = _count_labels(part, rows, text_labels)
    missing = [row.key for row in rows if row.label is None]
    # A tar is known by its own hash; of image files, names and contents count, and what is said of them.
    known_by = [file["sha256"] for file in files] or [
        [row.key, row.sha256.hex(), None if row.label is None else str(row.label), row.caption] for row in rows
    ]
    return Facts(
        name=part.name,
        stamp=stamp,
        images=len(rows),
        sha256=sha256_bytes(canonical_json(known_by)),
        numbers=numbers,
        labels=labels,
        missing=len(missing),
        first_missing=missing[0] if missing else "",
        without_caption=sum(not row.caption for row in rows),
        passed=[list(entry) for entry in passed.counts()],
        files=files,
    )


def _count_labels(part: Part, rows: list[Row], text_labels: bool) -> tuple[dict[str, int], bool | None]:
    """Count labels as texts, and tell whether they are numbers; digits are, unless they name folders.

    Raises:
        InputError: both kinds occur, or a number is none of a class.
    """
    counts = Counter(str(row.label) for row in rows if row.label is not None)
    if not counts:
        return {}, None
    numbers = [text for text in counts if text.isascii() and text.isdigit()]
    if text_labels or not numbers:
        return dict(counts), False
    other = next((text for text in counts if text not in set(numbers)), None)
    if other is not None:
        raise InputError(f"{part.name}: labels are numbers ({numbers[0]}) and texts ({other!r}); choose another key")
    # The same number in two spellings is one label.
    plain: Counter[str] = Counter()
    for text, count in counts.items():
        if len(text) > 12 or int(text) >= MAX_LABEL:
            raise InputError(f"{part.name}: label {text[:20]} is above {MAX_LABEL - 1}; classes are counted from 0")
        plain[str(int(text))] += count
    return dict(plain), True


def _write(path: Path, rows: list[Row], facts: Facts) -> None:
    number = {text: at for at, text in enumerate(sorted(facts.labels))}
    spelt = (lambda label: str(int(label))) if facts.numbers else str
    codes = [-1 if row.label is None else number[spelt(row.label)] for row in rows]
    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names if name != "label"}
    table = pa.table(columns | {"label": codes}, schema=SCHEMA)
    stated = SCHEMA.with_metadata({_FACTS: canonical_json(asdict(facts))})
    with replaced_file(path) as file:
        # Texts alone are worth a dictionary; checksums of pages tell a damaged index.
        options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
        pq.write_table(table.cast(stated), file, use_dictionary=["file", "label", "caption"], **options)


def read_facts(path: Path) -> Facts:
    """Read what the Parquet file of a shard says of it.

    Raises:
        ValueError: it is no such file.
        OSError: it cannot be read.
    """
    try:
        return facts_in(pq.read_schema(path))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError("not a Parquet file") from None


def facts_in(schema: pa.Schema) -> Facts:
    """Return what the schema of a shard's Parquet file says of it.

    Raises:
        ValueError: nothing.
    """
    return as_facts(parse_json((schema.metadata or {}).get(_FACTS, b"null")))


def as_facts(value: Any) -> Facts:
    """Return the facts in a JSON value that somebody else may have written.

    Raises:
        ValueError: it holds none.
    """
    try:
        facts = Facts(**value)
        sound = (
            all(type(text) is str for text in (facts.name, facts.stamp, facts.sha256, facts.first_missing))
            and all(type(n) is int and 0 <= n <= MAX_SHARD_ROWS for n in (facts.images, facts.missing))
            and type(facts.without_caption) is int
            and facts.numbers in (None, True, False)
            and facts.name.isascii()
            and "/" not in facts.name
            and all(type(count) is int and 0 < count <= facts.images for count in facts.labels.values())
            and (not facts.labels or sum(facts.labels.values()) + facts.missing == facts.images)
            and all(len(text) <= 12 and text.isdigit() for text in facts.labels if facts.numbers)
            and all((type(a), type(b), type(n)) == (str, str, int) for a, b, n in facts.passed)
        )
        _ = [SourceFile(**file) for file in facts.files]
    except (TypeError, AttributeError):
        sound = False
    if not sound:
        raise ValueError("not the facts of a shard")
    return facts


def _sound_facts(path: Path) -> Facts | None:
    """Return what a shard that was written before says, when every byte of it can be read."""
    try:
        facts = read_facts(path)
        sound = len(read_sidecar(path, schema=SCHEMA)) == facts.images
    except (ValueError, OSError):
        return None
    return facts if sound else None
