"""``synclones shards annotate``: adds captions, numbers or vectors to a finished set, beside its tars.

In: a finished dataset folder, and a file with rows for its images or a CLIP model. Out: ``columns/NAME/``, shard after
shard; any number of processes divide the shards, and the same command goes on after a kill. The set stays what it was.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from cyclopts import Parameter

from synclones.base.errors import InputError
from synclones.base.files import remove_dead_temporaries, sha256_file
from synclones.base.machine import choose_device, cores, rank
from synclones.base.manifest import versions
from synclones.shards.column_files import (
    ColumnFiles,
    ColumnType,
    begin_column,
    check_name,
    check_unlike,
    is_written,
    write_values,
)
from synclones.shards.index import Summary, own_summary
from synclones.shards.lock import claim, remove_locks
from synclones.shards.read import ShardFolder
from synclones.shards.schema import ShardFiles
from synclones.shards.shard import Shard
from synclones.shards.sources.decode import decode_image
from synclones.shards.sources.images import find_images
from synclones.shards.sources.rows import KEYS, MatchedRows, RowFile, key_column
from synclones.shards.sources.values import fixed_arrays, grouped
from synclones.shards.stores.store import refuse_store

_EMBED_BATCH = 32  # part of what vectors depend on in their last bits


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


@dataclass(frozen=True, kw_only=True)
class Maker(ABC):
    """What makes the values of one column.

    Attributes:
        name: of the column.
        type: of its values.
        made_by: what they depend on, as JSON.
    """

    name: str
    type: ColumnType
    made_by: dict[str, Any]

    @abstractmethod
    def write(self, number: int, shard: Shard, files: ColumnFiles, summary: Summary) -> None:
        """Write the values of the shard with this number in the set, whose json is ``summary``.

        Raises:
            ValueError, pa.ArrowException: there are none, or they are not of the column's type.
        """


class ValueMaker(Maker):
    """What makes a value per stored sample."""

    @abstractmethod
    def values(self, number: int, shard: Shard) -> pa.Array:
        """Return a value per stored sample of the shard with this number in the set."""

    def write(self, number: int, shard: Shard, files: ColumnFiles, summary: Summary) -> None:
        """Write them.

        Raises:
            ValueError, pa.ArrowException: they are not of the column's type.
        """
        write_values(files, summary, shard.index, self.values(number, shard))


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


def add_columns(shards: ShardFolder, makers: Sequence[Maker], command: str) -> str:
    """Add what makers make to a finished set, shard after shard, and return what was done, in a few lines.

    Any number of processes divide the shards, and the same call goes on after a kill.

    Raises:
        InputError: a name that is none or is taken, before anything is written; values that are not of their type.
        VerificationError: the set is damaged.
    """
    folder = shards.folder
    for maker in makers:
        check_name(maker.name)
        check_unlike(folder, maker.name, maker.type, maker.made_by)
    beside = {"command": command, "versions": versions()}
    columns = [begin_column(folder, m.name, m.type, m.made_by, beside) for m in makers]
    written = _write_all(shards, list(zip(makers, columns, strict=True)))
    for files in columns:
        remove_dead_temporaries(files.folder)
        remove_locks(files.folder)
    lines = (f"{files.folder}: {files.type}, {shards.num_samples} images" for files in columns)
    return "\n".join([*lines, f"{written} of {len(shards.shards) * len(columns)} shards written by this process"])


def _write_all(shards: ShardFolder, work: list[tuple[Maker, ColumnFiles]]) -> int:
    """Write what is missing; return how many shards' values this process wrote.

    First those that nobody else works on; then, when others are left, wait for them: a killed process lets go of its
    shard, and somebody has to write it.
    """
    written = 0
    for wait in (False, True):
        for number, name in enumerate(shards.shards):
            missing = [(maker, files) for maker, files in work if not is_written(files, name)]
            for maker, files in missing:
                held = claim(files.folder, name, wait=wait)
                if held is None:
                    continue
                with held:
                    if not is_written(files, name):  # else another process finished it since
                        _write_one(shards, number, maker, files)
                        written += 1
    return written


def _write_one(shards: ShardFolder, number: int, maker: Maker, files: ColumnFiles) -> None:
    name = shards.shards[number]
    shard = shards.open(name)
    try:
        maker.write(number, shard, files, own_summary(ShardFiles(shards.folder, name)))
    except (ValueError, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{files.folder}: {' '.join(str(error).split())[:200]}") from None


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


@dataclass(frozen=True, kw_only=True)
class EmbeddingMaker(ValueMaker):
    """The image embeddings of a CLIP model."""

    embedder: Any

    def values(self, number: int, shard: Shard) -> pa.Array:
        # Batches are fixed by the shard, and each is one thread's: vectors do not depend on how many there are.
        with ThreadPoolExecutor(cores(), thread_name_prefix="embed") as pool:
            vectors = list(pool.map(lambda rows: self._batch(shard, rows), _batches(len(shard))))
        joined = np.concatenate(vectors or [np.zeros((0, *self.type.shape), np.float32)])
        return fixed_arrays(joined, np.ones(len(shard), bool), self.type)

    def _batch(self, shard: Shard, rows: range) -> np.ndarray:
        images = [decode_image(shard.image(row), where=shard.where(row)) for row in rows]
        vectors: np.ndarray = self.embedder.images(images)
        return vectors


def _batches(rows: int) -> Iterator[range]:
    return (range(start, min(start + _EMBED_BATCH, rows)) for start in range(0, rows, _EMBED_BATCH))


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
    from synclones.shards.similarity.embed import LIBRARIES, Embedder, find_clip

    clip, device = find_clip(config.embed, "--embed"), choose_device(config.device)
    import torch

    torch.set_num_threads(1)  # the order of a sum depends on their number; images side by side use the cores
    embedder = Embedder(clip, device)
    length = embedder.images([np.zeros((8, 8, 3), np.uint8)]).shape[1]
    installed = versions()
    made_by = {
        "model": clip.name,
        "sha256": clip.sha256,
        "device": device,
        "batch_size": _EMBED_BATCH,
        **{name: installed.get(name, "") for name in ("torch", *LIBRARIES)},
    }
    dtype = "float16" if config.dtype == "auto" else config.dtype
    type = ColumnType("array", dtype, (int(length),))
    return [EmbeddingMaker(name=config.name[0], type=type, made_by=made_by, embedder=embedder)]
