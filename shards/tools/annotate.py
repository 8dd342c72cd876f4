"""``synclones shards annotate``: adds captions, numbers or vectors to a finished set, beside its tars.

In: a finished dataset folder, and a file with rows for its images or a CLIP model. Out: ``columns/NAME/``, shard after
shard; any number of processes divide the shards, and the same command goes on after a kill. The set stays what it was.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from cyclopts import Parameter

from synclones.base.errors import InputError
from synclones.base.files import sha256_file
from synclones.base.machine import choose_device, rank
from synclones.shards.column_files import ColumnType, check_name
from synclones.shards.column_makers import Maker, ValueMaker, add_columns
from synclones.shards.read import ShardFolder
from synclones.shards.shard import Shard
from synclones.shards.similarity.embedding import embedding_maker
from synclones.shards.sources.images import find_images
from synclones.shards.sources.rows import KEYS, MatchedRows, RowFile, key_column
from synclones.shards.sources.values import grouped
from synclones.shards.stores.store import refuse_store


@dataclass(frozen=True, kw_only=True)
class AnnotateConfig:
    """Add captions, numbers or vectors to the images of a finished set, in files beside its tars."""

    folder: Path = field(kw_only=False)
    """The dataset folder."""
    source: Annotated[Path | None, Parameter(name="--from")] = None
    """Parquet, CSV or JSONL file with the column index, key or source_key, and others; a prompt table is one."""
    columns: tuple[str, ...] = ()
    """Columns of the file to take; the only one beside index and key by default."""
    by: Literal["auto", "index", "key", "source_key"] = "auto"
    """Which column says of which image a row is; the first of source_key, index and key that fits by default."""
    embed: str = ""
    """CLIP model whose image embeddings to add: an open_clip folder, hub id, or architecture/tag."""
    name: tuple[str, ...] = ()
    """Names to give the columns, as many as there are; those of the file by default."""
    dtype: Literal["auto", "float16", "float32"] = "auto"
    """Numbers of arrays; float16 for embeddings and as in the file by default."""
    allow_missing: bool = False
    """Let images have no value, instead of refusing a file without rows for them."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where a model runs."""


def annotate(config: AnnotateConfig) -> str:
    """Add the columns and return what was done, in a few lines.

    Raises:
        InputError: a bad combination of flags, a file that does not fit the set, a name that is taken; before anything
            is written.
        VerificationError: the set is unfinished or damaged.
    """
    refuse_store(config.folder)
    if (config.source is None) == (not config.embed):
        raise InputError("--from or --embed: give one of them, a file with rows or a model that sees the images")
    shards = ShardFolder(config.folder)
    shards.content_hash()
    # Everything that can be wrong with the input is known before a byte is written.
    makers = _embedding(config) if config.source is None else _from_file(config, config.source, shards)
    return add_columns(shards, makers, "synclones shards annotate")


# ------------------------------------------------------------------ from a file


@dataclass(frozen=True, kw_only=True)
class FileMaker(ValueMaker):
    """One column of a file."""

    column: str
    rows: MatchedRows

    def values(self, number: int, shard: Shard) -> pa.Array:
        positions, values = self.rows.of_shard(number, self.column)
        return grouped(positions, values, len(shard), self.type)


def _from_file(config: AnnotateConfig, source: Path, shards: ShardFolder) -> list[Maker]:
    """Read the whole file once and check it against the set."""
    file, origin = RowFile(source), find_images(shards.folder)[0]
    by = key_column(file, config.by, origin)
    columns = config.columns or tuple(name for name in file.names if name not in KEYS)
    if not config.columns and len(columns) != 1:
        raise InputError(f"--columns: {source} has {', '.join(file.names[:12])}; say which to take")
    for name in columns:
        if name not in file.names:
            raise InputError(f"--columns: {source} has no {name[:60]!r}, it has {', '.join(file.names[:12])}")
    names = _names(config, columns)
    rows = MatchedRows(file, columns, by, origin, [shards.open(name).index for name in shards.shards])
    if rows.foreign and rank() == 0:
        print(f"synclones: note: {source}: {rows.foreign} rows are of no stored image", file=sys.stderr, flush=True)
    digest = sha256_file(source)
    return [
        _file_maker(config, shards, rows, name, column, digest) for name, column in zip(names, columns, strict=True)
    ]


def _names(config: AnnotateConfig, columns: Sequence[str]) -> tuple[str, ...]:
    names = config.name or tuple(columns)
    if len(names) != len(columns) or len(set(names)) != len(names):
        raise InputError(
            f"--name: {' '.join(names)} was given, expected {len(columns)} different names, one for each of "
            f"{' '.join(columns)}"
        )
    return names


def _file_maker(
    config: AnnotateConfig, shards: ShardFolder, rows: MatchedRows, name: str, column: str, digest: str
) -> Maker:
    """Decide what the values of a column are, now that it is known how many rows an image has."""
    counts, kind = rows.counts[column], rows.types[column]
    missing = np.flatnonzero(counts == 0)
    if len(missing) and not config.allow_missing:
        index = np.concatenate([shards.open(shard).index for shard in shards.shards])[missing[0]]
        raise InputError(
            f"{config.source}: no {column!r} for {len(missing)} of {len(counts)} images, the first is image {index}; "
            "add them, or pass --allow-missing"
        )
    type = _grouped_type(kind, np.unique(counts[counts > 0]), f"{config.source}: column {column!r}")
    if type.kind == "array" and config.dtype != "auto":
        type = replace(type, dtype=config.dtype)
    made_by = {
        "file": Path(str(config.source)).name,
        "sha256": digest,
        "column": column,
        "by": rows.by,
        "allow_missing": config.allow_missing,
    }
    return FileMaker(name=name, type=type, made_by=made_by, column=column, rows=rows)


def _grouped_type(kind: ColumnType, counts: np.ndarray, where: str) -> ColumnType:
    """Return the type of one image's value; ``counts``: how many rows images have, each number once."""
    if not len(counts) or counts[-1] == 1:
        return kind
    if kind.kind == "text":
        return ColumnType("texts")
    if kind.kind != "array" or len(kind.shape) > 1:
        raise InputError(f"{where}: holds {kind} and has up to {counts[-1]} rows for an image; give one for each")
    if len(counts) > 1:
        raise InputError(
            f"{where}: has {counts[0]} to {counts[-1]} rows for an image; give equally many arrays for each"
        )
    return ColumnType("array", kind.dtype, (int(counts[0]), *kind.shape))


# ------------------------------------------------------------------ from a model


def _embedding(config: AnnotateConfig) -> list[Maker]:
    """Check and load the model, and ask it how long its vectors are."""
    for flag, given in (("--columns", config.columns), ("--by", config.by != "auto")):
        if given:
            raise InputError(f"{flag}: has no effect without a file; give --from, or leave it out")
    if config.allow_missing:
        raise InputError("--allow-missing: has no effect without a file; every image has an embedding")
    if len(config.name) != 1:
        raise InputError("--name: name the column of embeddings, as in --embed MODEL --name clip")
    check_name(config.name[0])
    from synclones.shards.similarity.embed import find_clip

    clip, dtype = find_clip(config.embed, "--embed"), config.dtype
    made = embedding_maker(clip, config.name[0], choose_device(config.device), "float16" if dtype == "auto" else dtype)
    return [made]
