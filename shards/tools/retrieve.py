"""``synclones shards retrieve``: takes of a set the images that are nearest to classes, texts or example images.

In: any set of images, a CLIP model, queries. Out: embeddings beside the set, and a folder with an index over it that
`--data` takes like any other set. Any number of processes divide the embedding, and the same command goes on after a
kill; the first process alone searches.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from synclones.base.config import save, to_dict
from synclones.base.differences import differences
from synclones.base.errors import InputError, one_line
from synclones.base.files import replaced_folder, sha256_file
from synclones.base.machine import choose_device, rank
from synclones.base.manifest import Parent, write_manifest
from synclones.base.weights import refuse_old_libraries
from synclones.shards.kept import kept_folders, writable_folder
from synclones.shards.similarity.dedup import hash_test_set
from synclones.shards.similarity.embed import ClipFolder, find_clip
from synclones.shards.similarity.embedding import EmbeddingMaker, column_set, embed_set, embedding_maker
from synclones.shards.similarity.embedding_files import EmbeddingFolder, FileVectors, matched_rows
from synclones.shards.similarity.inverted import InvertedIndex, build_inverted, nearest_of_index, settings_for
from synclones.shards.similarity.near import nearest_of
from synclones.shards.similarity.neighbours import Pairs, nearest, scored
from synclones.shards.similarity.phash import ImageHashes
from synclones.shards.similarity.queries import (
    ClassTexts,
    Queries,
    image_queries,
    named_classes,
    text_queries,
    written_queries,
)
from synclones.shards.similarity.retrieve import Choice, choose, named_in_captions
from synclones.shards.similarity.vectors import ColumnVectors, Vectors
from synclones.shards.sources.open import open_source
from synclones.shards.sources.retrieved import INDEX, SCHEMA, Retrieved, is_retrieved, read_retrieved, write_retrieved
from synclones.shards.sources.source import Source
from synclones.shards.tools.retrieve_export import export_list, hashes_of
from synclones.shards.tools.retrieve_settings import RetrieveConfig

CONFIG = "config.yaml"
COMMAND = "synclones shards retrieve"


@dataclass(frozen=True)
class _Searched:
    """What is searched: vectors by position, and what they are of."""

    source: Source | None
    vectors: Vectors | None
    """None where an index alone is at hand."""
    files: EmbeddingFolder | None
    position: np.ndarray | None
    """int64[n]: where in the set the image of each vector is, -1 nowhere; None when vectors stand in its order."""
    index: InvertedIndex | None
    facts: dict[str, Any]
    """What a result says of vectors and index."""

    def of_set(self, positions: np.ndarray) -> np.ndarray:
        """Return positions in the set, int64[m]."""
        return positions if self.position is None else self.position[positions]

    def captions(self) -> Iterator[tuple[int, Sequence[str]]]:
        """Yield (position of the first vector, captions) part by part."""
        if self.files is None:
            assert self.source is not None
            first = 0
            for number in range(len(self.source.images_per_shard)):
                shard = self.source.open(number)
                yield first, [shard.caption(row) for row in range(len(shard))]
                first += len(shard)
            return
        if "caption" not in self.files.names():
            raise InputError(f"--match: {self.files.folder} has no captions beside its embeddings; use nearest")
        starts = np.cumsum([0, *self.files.counts])
        for number in range(len(self.files.counts)):
            yield int(starts[number]), self.files.texts("caption", number).to_pylist()


def retrieve(config: RetrieveConfig) -> None:
    """Embed what is not yet, search, and write what was asked for.

    Raises:
        InputError: a set, model, query or file of embeddings that does not fit; before anything is searched.
        VerificationError: the set is unfinished or damaged.
    """
    refuse_old_libraries()
    # Whatever can be wrong with the input is known before the model is loaded.
    clip, texts = find_clip(config.model, "--model"), _texts(config)
    _check_out(config)
    files = None if config.embeddings is None else EmbeddingFolder(config.embeddings)
    source = None if config.folder is None else _open(config, config.folder)
    maker = embedding_maker(clip, config.column or f"clip-{clip.sha256[:12]}", choose_device(config.device))
    searched = _searched(config, source, files, maker, clip)
    if config.out is None and config.export is None:
        return
    examples = None if config.examples is None else open_source(config.examples)
    queries = None if examples is None else image_queries(examples, _embedded(examples, maker)[0])
    if rank() == 0:  # every process has helped with what takes long
        _search_and_write(config, clip, searched, queries or _text_queries(texts, maker))


def _texts(config: RetrieveConfig) -> ClassTexts | None:
    if config.queries is not None:
        return written_queries(config.queries, config.classes)
    return None if config.classes is None else named_classes(config.classes, config.templates)


def _text_queries(texts: ClassTexts | None, maker: EmbeddingMaker) -> Queries:
    assert texts is not None, "the settings refuse a search without queries"
    return text_queries(texts, maker.embedder)


def _open(config: RetrieveConfig, folder: Path) -> Source:
    keys: dict[str, Any] = {"label_key": config.label_key or None, "caption_key": config.caption_key or None}
    return open_source(folder, split=config.split or None, explain=False, **keys)


def _check_out(config: RetrieveConfig) -> None:
    out = config.out
    if out is None or not out.exists() or is_retrieved(out):
        return
    if not out.is_dir() or any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(f"--out: {out} holds something else than retrieved images; choose an empty or new folder")


def _embedded(source: Source, maker: EmbeddingMaker) -> tuple[ColumnVectors, Path]:
    shards = column_set(source)
    column, done = embed_set(shards, maker, COMMAND)
    print(done, file=sys.stderr, flush=True)
    return ColumnVectors(shards, column), shards.folder


def _searched(
    config: RetrieveConfig,
    source: Source | None,
    files: EmbeddingFolder | None,
    maker: EmbeddingMaker,
    clip: ClipFolder,
) -> _Searched:
    """Bring vectors about, and an index over them where one was asked for."""
    vectors: Vectors | None
    position, width = None, maker.type.shape[0]
    if files is None:
        assert source is not None, "the settings refuse neither"
        vectors, beside = _embedded(source, maker)
    else:
        beside = files.folder
        vectors = FileVectors(files, width, clip.name) if files.arrays else None
        position = None if source is None else matched_rows(source, files)
    # Of all vectors, or through lists: of ours all processes write a part.
    index, facts = (
        None,
        {"vectors_sha256": files.sha256 if vectors is None and files else getattr(vectors, "sha256", "")},
    )
    if config.index == "ivfpq" and (config.out or config.export):
        if vectors is None:
            raise InputError(f"--index: {beside} holds no vectors to make one of; use --index given")
        settings = settings_for(vectors)
        root = writable_folder(kept_folders(beside, f"ivfpq-{vectors.sha256[:16]}"), beside, "index")
        paths = build_inverted(vectors, root, settings)
        facts |= {"lists": settings.lists, "bytes_per_vector": settings.bytes_per_vector}
        facts |= {"index_files": [sha256_file(path) for path in paths]}
        index = InvertedIndex(paths, config.probes)
    elif config.index == "given":
        index = _given_index(config, files, width, clip)
    elif vectors is None:
        raise InputError(f"--index: {beside} holds an index and no vectors; use --index given")
    if index is not None and position is not None and len(index) != len(position):
        raise InputError(f"{beside}: its index has {len(index)} vectors, {len(position)} are expected; fetch it again")
    if index is not None:
        facts |= {"probes": config.probes, "refine": config.refine if vectors is not None else 0}
    return _Searched(source, vectors, files, position, index, facts | {"index": config.index})


def _given_index(config: RetrieveConfig, files: EmbeddingFolder | None, width: int, clip: ClipFolder) -> InvertedIndex:
    assert files is not None, "the settings refuse a given index without a folder"
    if not files.indexes:
        raise InputError(f"--index: no *.index in {files.folder}; use flat or ivfpq")
    index = InvertedIndex(files.indexes, config.probes)
    if index.width != width:
        raise InputError(
            f"{files.indexes[0]}: vectors of {index.width} numbers, {clip.name} gives {width}; name the model that "
            "made them"
        )
    if files.counts and len(index) != len(files):
        raise InputError(f"{files.indexes[0]}: {len(index)} vectors, {len(files)} rows beside it; fetch both again")
    return index


def _search_and_write(config: RetrieveConfig, clip: ClipFolder, searched: _Searched, queries: Queries) -> None:
    tests = None if config.against is None else hash_test_set(config.against)
    rule = _rule(config, clip, searched, queries, tests)
    is_made = config.out is not None and _is_made(config, searched, queries, rule)
    if is_made and config.export is None:
        print(f"{config.out}: complete; nothing to do")
        return
    # Candidates, then the rules; an image of another class or set is looked at once.
    candidates = _candidates(config, searched, queries)
    if searched.position is not None:
        candidates = candidates.take(searched.position[candidates.position] >= 0)
    near = _near_test(config, searched, candidates, tests)
    choice = Choice(min_score=config.min_score, top_share=config.top_share, per_class=config.per_class)
    chosen, counts = choose(candidates, near, choice)
    if not len(chosen):
        left_out = ", ".join(f"{count} {why.replace('_', ' ')}" for why, count in counts.items())
        raise InputError(f"nothing was retrieved ({left_out}); lower --min-score, or ask for something else")
    if config.out is not None and not is_made:
        _write(config, clip, searched, queries, rule, chosen, counts)
    if config.export is not None:
        ids = [queries.class_ids[label] for label in chosen.query.tolist()]
        export_list(config.export, chosen, ids, searched.source, searched.of_set(chosen.position), searched.files)
        print(f"{config.export}: {len(chosen)} rows of url, md5, score, class_id, key")
    _tell(queries, chosen, counts)


def _rule(
    config: RetrieveConfig, clip: ClipFolder, searched: _Searched, queries: Queries, tests: ImageHashes | None
) -> dict[str, Any]:
    """Return everything that the choice depends on beside the set."""
    named = ("match", "neighbours", "min_score", "top_share", "per_class")
    rule = {name: getattr(config, name) for name in named}
    rule |= {"model": clip.name, "model_sha256": clip.sha256, **searched.facts}
    rule |= {f"queries_{name}": value for name, value in queries.facts.items()}
    return rule | ({"test_sha256": tests.sha256, "max_distance": config.max_distance} if tests is not None else {})


def _is_made(config: RetrieveConfig, searched: _Searched, queries: Queries, rule: dict[str, Any]) -> bool:
    """Tell whether the folder holds this very result.

    Raises:
        InputError: it holds another.
    """
    assert config.out is not None and searched.source is not None
    if not is_retrieved(config.out):
        return False
    stated = read_retrieved(config.out)
    asked = {"content_hash": searched.source.content_hash(), "classes": list(queries.class_ids), **rule}
    stored = {"content_hash": stated.set_facts["content_hash"], "classes": list(stated.class_ids), **stated.rule}
    if changed := differences(stored, asked):
        raise InputError(f"--out: {config.out} holds what was retrieved otherwise ({changed}); choose a new folder")
    path = config.out / INDEX
    return path.is_file() and sha256_file(path) == stated.index_sha256


def _candidates(config: RetrieveConfig, searched: _Searched, queries: Queries) -> Pairs:
    """Return the pairs of class and vector that the rules choose from."""
    if config.match == "nearest":
        if searched.index is not None:
            k, refine = config.neighbours, config.refine
            return nearest_of_index(searched.index, searched.vectors, queries.units, k, refine)
        assert searched.vectors is not None
        return nearest(searched.vectors, queries.units, config.neighbours)
    if not queries.names:
        raise InputError(f"--match: {config.match} needs names of classes; give --classes")
    if searched.vectors is None:
        raise InputError("--match: captions are scored by vectors, and there are none; use nearest")
    which, positions = named_in_captions(searched.captions(), queries.names, whole_words=config.match == "words")
    return scored(searched.vectors, queries.units, which, positions)


def _near_test(config: RetrieveConfig, searched: _Searched, candidates: Pairs, tests: ImageHashes | None) -> np.ndarray:
    """Return the positions of candidates that nearly are a test image; only those are decoded that could be chosen."""
    if tests is None or searched.source is None:
        return np.empty(0, np.int64)
    positions = np.unique(candidates.position[candidates.score >= config.min_score])
    hashes = hashes_of(searched.source, searched.of_set(positions))
    near: np.ndarray = positions[nearest_of(hashes, tests.hashes, config.max_distance)[0]]
    return near


def _write(
    config: RetrieveConfig,
    clip: ClipFolder,
    searched: _Searched,
    queries: Queries,
    rule: dict[str, Any],
    chosen: Pairs,
    counts: dict[str, int],
) -> None:
    """Write the folder, whole or not at all."""
    out, source = config.out, searched.source
    assert out is not None and source is not None
    content = source.content_hash()
    facts = {"path": str(config.folder), "content_hash": content, "split": str(getattr(source, "split", config.split))}
    facts |= {"label_key": config.label_key, "caption_key": config.caption_key}
    table = _table(source, searched.of_set(chosen.position), chosen)
    with replaced_folder(out) as folder:
        stated: Retrieved = write_retrieved(folder, facts, queries.class_ids, rule, table)
        save(config, folder / CONFIG)
        parents = [Parent("retrieve", str(config.folder), content), Parent("model", str(clip.path), clip.sha256)]
        more = {"content_hash": stated.content_hash, "classes": list(queries.class_ids)}
        write_manifest(folder, "shards retrieve", to_dict(config), parents, {"ok": len(chosen), **counts}, {}, more)
    print(f"{out}: {len(chosen)} of {sum(source.images_per_shard)} images, content {stated.content_hash[:16]}")


def _table(source: Source, positions: np.ndarray, chosen: Pairs) -> pa.Table:
    """Return the rows of the index, in the order of the set."""
    order = np.argsort(positions)
    starts = np.cumsum([0, *source.images_per_shard])
    shard = np.searchsorted(starts, positions[order], "right") - 1
    row = positions[order] - starts[shard]
    index, keys = np.empty(len(order), np.int64), [""] * len(order)
    for number in np.unique(shard):
        opened = source.open(int(number))
        for at in np.flatnonzero(shard == number).tolist():
            index[at], keys[at] = opened.index[row[at]], opened.name(int(row[at]))
    columns = [shard, row, index, keys, chosen.query[order], chosen.score[order]]
    return pa.table([pa.array(c, field.type) for c, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def _tell(queries: Queries, chosen: Pairs, counts: dict[str, int]) -> None:
    """Print what was left out and why, and how many each class has."""
    print(", ".join(f"{count} {why.replace('_', ' ')}" for why, count in counts.items()))
    sizes = np.bincount(chosen.query, minlength=len(queries.class_ids))
    print(f"{sizes.min()} to {sizes.max()} images of each of {len(sizes)} classes")
    empty = np.flatnonzero(sizes == 0)
    if len(empty):
        first = one_line(queries.class_ids[empty[0]])
        print(f"synclones: note: classes without an image: {len(empty)}, the first is {first!r}", file=sys.stderr)
