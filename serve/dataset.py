"""A set of images as it is now: its finished shards, those that are being drawn, its classes and its prompts.

In: a dataset folder. Out: `Piece`s in the order of their samples, each of which gives its rows as an Arrow table when
it is asked for; samples by their number. Of 16 M images the jsons of their shards are in memory, 1,600 small ones.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from synclones.base.errors import InputError, VerificationError
from synclones.base.json_file import parse_json
from synclones.base.manifest import MANIFEST_FILE, read_manifest
from synclones.prompts.table import class_names
from synclones.serve.folders import NotServed
from synclones.serve.prompt_texts import prompt_texts, stored_texts
from synclones.shards.growing import growing_bytes, growing_rows, growing_sample, growing_shards
from synclones.shards.index import Summary, own_summary, present_split, read_plan, shard_names
from synclones.shards.read import ShardFolder
from synclones.shards.schema import MAX_SHARD_ROWS, SPLITS, Sample, ShardFiles
from synclones.shards.shard import opened, read_rows

KEPT_JOURNALS = 8
MOST_CLASS_HINTS = 3
LOOKED_AT = 200  # rows, for the names of scores
MOST_DIGITS = 18  # of a class number: what Arrow compares with


class Piece:
    """A shard of a set, finished or being drawn.

    Attributes:
        files: of the shard.
        summary: what the json of a finished shard states; None of one that is being drawn.
    """

    def __init__(self, files: ShardFiles, summary: Summary | None = None, planned: range | None = None):
        """``planned``: the numbers of its samples, where the plan of the set says them."""
        self.files, self.summary, self._planned = files, summary, planned

    @property
    def span(self) -> range:
        """From its first to its last sample, as planned or so far; empty before the first one."""
        if self._planned is not None:
            return self._planned
        if self.summary is not None:
            return range(self.summary["first_index"], self.summary["last_index"] + 1)
        index = self.rows()["index"]
        return range(index[0].as_py(), index[-1].as_py() + 1) if len(index) else range(0)

    def lacks(self, status: str) -> bool:
        """Return whether no sample of the shard can have this status."""
        return self.summary is not None and self.summary[status] == 0

    def rows(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows of its planned samples so far, or some columns.

        Raises:
            VerificationError: the Parquet file is missing or damaged.
        """
        if self.summary is not None:
            return read_rows(self.files, self.summary, columns)
        try:
            rows = _journal(self.files, self.files.journal.stat().st_size)
        except FileNotFoundError:
            rows = _journal(self.files, 0)
        if not len(rows) and self.files.json.exists():  # finished meanwhile
            return read_rows(self.files, own_summary(self.files), columns)
        return rows if columns is None else rows.select(columns)

    def texts(self, offsets: list[int], sizes: list[int]) -> list[str]:
        """Read prompts out of the tar, by where its rows say that they are.

        Raises:
            VerificationError: there is no tar.
        """
        with opened(self.files.tar if self.summary is not None else growing_bytes(self.files)) as read_range:
            return stored_texts(read_range, offsets, sizes)


@lru_cache(maxsize=KEPT_JOURNALS)
def _journal(files: ShardFiles, size: int) -> pa.Table:
    """Read a journal of this size; an object of files is that of one opened set."""
    return growing_rows(files)


class Dataset:
    """A set of images. Safe to use from several threads.

    Attributes:
        folder: the dataset folder.
        plan: what plan.json states; empty without one.
        pieces: its shards, in the order of their samples.
    """

    def __init__(self, folder: Path):
        """Look which shards there are, and read their jsons.

        Raises:
            VerificationError: a json is broken.
        """
        self.folder, self.plan = folder, read_plan(folder)
        present, planned = present_split(folder), self.plan.get("split")
        self.split = planned if planned in SPLITS and not shard_names(folder, present) else present
        self.shards = ShardFolder(folder, self.split) if shard_names(folder, self.split) else None
        finished = self.shards.summaries if self.shards else []
        growing = [] if (folder / MANIFEST_FILE).exists() else growing_shards(folder, self.split)
        pieces = [Piece(ShardFiles(folder, summary["name"]), summary) for summary in finished]
        self.growing = [Piece(files, planned=self._planned(files.name)) for files in growing]
        self.pieces = sorted([*pieces, *self.growing], key=lambda piece: _number(piece.files.name))
        self._score_names: list[list[str]] = []

    def _planned(self, shard: str) -> range | None:
        """Return which samples a shard of a drawn set will hold: nothing has to be read to know it."""
        size = self.plan.get("images_per_shard")
        if "prompts_sha256" not in self.plan or type(size) is not int or not 0 < size <= MAX_SHARD_ROWS:
            return None
        return range(_number(shard) * size, (_number(shard) + 1) * size)

    @property
    def is_finished(self) -> bool:
        """Whether the set is whole, as far as its folder says."""
        return (self.folder / MANIFEST_FILE).exists()

    def count(self, status: str) -> int:
        """Return how many samples of the finished shards have a status, or are planned."""
        return sum(piece.summary[status] for piece in self.pieces if piece.summary is not None)

    @cached_property
    def prompts(self) -> Any:
        """The prompt table that the set was drawn from, as `PromptTexts`; None where it is not found."""
        return prompt_texts(self.folder, self.plan)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What manifest.json states; empty of a set that is not finished."""
        try:
            return read_manifest(self.folder)
        except InputError:
            return {}

    # ------------------------------------------------------------------ classes

    @cached_property
    def class_ids(self) -> tuple[str, ...]:
        """The class of each label in order; empty where nothing here says it."""
        stated = self.manifest.get("classes") or (self.prompts and self.prompts.table.metadata.get("class_ids"))
        return tuple(map(str, stated)) if isinstance(stated, list) else ()

    @cached_property
    def class_names(self) -> dict[str, str]:
        """What the classes are called, by their ids, as far as it is known here."""
        return class_names(self.prompts.table.metadata) if self.prompts else {}

    def class_of(self, label: int) -> str:
        """Return what a label is called: the name of its class, else its id, else nothing."""
        class_id = self.class_ids[label] if 0 <= label < len(self.class_ids) else ""
        return self.class_names.get(class_id, class_id)

    def label_of(self, text: str) -> int:
        """Return the label that somebody means by a number, the id of a class or its name.

        Raises:
            InputError: there is none, or there are several.
        """
        if text.isdecimal() and len(text) <= MOST_DIGITS:
            return int(text)
        wanted = text.strip().casefold()
        labels = [
            label
            for label, class_id in enumerate(self.class_ids)
            if wanted in (class_id.casefold(), self.class_names.get(class_id, "").casefold())
        ]
        if len(labels) == 1:
            return labels[0]
        if labels:
            raise InputError(
                f"class {text[:60]!r}: {len(labels)} classes are called so: give one of the numbers {labels[:5]}"
            )
        raise InputError(f"class {text[:60]!r}: not in this set; {self._near(wanted)}")

    def _near(self, wanted: str) -> str:
        names = (self.class_names.get(class_id, class_id) for class_id in self.class_ids)
        near = [name for name in names if wanted in name.casefold()][:MOST_CLASS_HINTS]
        return f"there are {', '.join(map(repr, near))}" if near else "give a number, an id or a name of its classes"

    @property
    def score_names(self) -> list[str]:
        """The scores that the first samples have, of the first shard that holds some and is not damaged."""
        if not self._score_names:
            for piece in self.pieces:
                with contextlib.suppress(VerificationError):
                    if texts := piece.rows(["scores"]).slice(0, LOOKED_AT)["scores"].to_pylist():
                        self._score_names = [sorted({name for text in texts for name in scores_of(text)})]
                        break
        return self._score_names[0] if self._score_names else []  # kept as soon as there are samples

    # ------------------------------------------------------------------ samples

    def from_index(self, start: int) -> Iterator[Piece]:
        """Yield the shards that hold samples from this number on, in order."""
        return (piece for piece in self.pieces if piece.span.stop > start)

    def row(self, index: int) -> tuple[Piece, dict[str, Any]]:
        """Return the shard and the row of a planned sample.

        Raises:
            InputError: the set has none of this number so far.
            VerificationError: the Parquet file is missing or damaged.
        """
        piece = next((piece for piece in self.from_index(index) if index in piece.span), None)
        rows = piece.rows() if piece else None
        if piece is not None and rows is not None:
            own = rows.filter(pc.equal(rows["index"], index)).to_pylist()
            if own:
                return piece, own[0]
        raise NotServed(f"{self.folder}: no image {index}{'' if self.is_finished else ' so far'}")

    def sample(self, index: int) -> Sample:
        """Read a sample, whole and checked.

        Raises:
            InputError: the set has no such sample, or it has no image.
            VerificationError: it is damaged.
        """
        growing = next((piece for piece in self.growing if index in piece.span), None)
        if growing is not None:
            return growing_sample(growing.files, growing.rows(), index)
        if self.shards is None:
            raise InputError(f"{self.folder}: no image {index} so far")
        return self.shards.get(index)

    def shown_texts(self, piece: Piece, rows: list[dict[str, Any]]) -> list[str]:
        """Return the prompts of some rows of a shard: of an image what lies beside it, else what the table says."""
        stored = [row for row in rows if row["status"] == "ok"]
        texts = (
            piece.texts([row["txt_offset"] for row in stored], [row["txt_size"] for row in stored]) if stored else []
        )
        beside = dict(zip((row["index"] for row in stored), texts, strict=True))
        planned = self.prompts.text if self.prompts else lambda index: ""
        return [beside[row["index"]] if row["index"] in beside else planned(row["index"]) for row in rows]


class Datasets:
    """The sets that were looked at last, opened again when a file of theirs has come or gone."""

    def __init__(self, most: int = 4):
        self._open = lru_cache(maxsize=most)(lambda folder, stamp: Dataset(folder))

    def get(self, folder: Path) -> Dataset:
        """Return the set in a folder as it is now.

        Raises:
            VerificationError: a json of it is broken, or the folder is gone.
        """
        try:
            stamp = folder.stat().st_mtime_ns  # every file of ours comes by a rename
        except OSError:
            raise VerificationError(f"{folder}: is not there any more") from None
        opened_set: Dataset = self._open(folder, stamp)
        return opened_set


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


def scores_of(text: str) -> dict[str, float]:
    """Return the scores in a row; none when it holds something else."""
    try:
        record = parse_json(text) if text else {}
    except ValueError:
        return {}
    stated = record.items() if isinstance(record, dict) else ()
    return {
        name: value for name, value in stated if type(value) is float or (type(value) is int and abs(value) < 2**63)
    }
