"""What is sought: one vector per class, the mean of what its texts or its example images are embedded as.

In: class names with templates, a table of prompts by class, lines of free text, or a set of images with labels; a CLIP
model. Out: `Queries`. Every vector is scaled to length 1 before the mean, and the mean again.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synclones.base.class_texts import SLOT, class_names, template_lines
from synclones.base.errors import InputError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.shards.similarity.embed import Embedder
from synclones.shards.similarity.vectors import Vectors, units
from synclones.shards.sources.rows import RowFile
from synclones.shards.sources.source import Source

PLAIN = ("a photo of a {}.",)
MAX_PROMPTS, MAX_CLASSES = 2**22, 2**20
_TEXTS_PER_PASS = 256
_MAX_ID_CHARS = 256


@dataclass(frozen=True)
class ClassTexts:
    """The texts of each class, before a model has seen them."""

    class_ids: tuple[str, ...]
    names: tuple[str, ...]
    """What captions are searched for; empty where nobody named the classes."""
    texts: tuple[tuple[str, ...], ...]

    def facts(self) -> dict[str, Any]:
        """Return what a result says of them."""
        known_by = [self.class_ids, self.names, self.texts]
        return {"texts": sum(map(len, self.texts)), "sha256": sha256_bytes(canonical_json(known_by))}


@dataclass(frozen=True)
class Queries:
    """Classes and their vectors."""

    class_ids: tuple[str, ...]
    names: tuple[str, ...]
    """What captions are searched for; empty where nobody named the classes."""
    units: np.ndarray
    """float32[classes, d]: units."""
    facts: dict[str, Any]
    """What they were made from."""


def named_classes(classes: Path, templates: str) -> ClassTexts:
    """Put the names of a CSV into templates: a file of sentences, ``imagenet``, or empty for one plain sentence.

    Raises:
        InputError: a class without id or name, an id that repeats, a template without exactly one slot.
    """
    ids, names = class_names(classes)
    _refuse_twice(classes, ids)
    sentences = _templates(templates)
    for sentence in sentences:
        if sentence.count(SLOT) != 1:
            raise InputError(f"--templates: {sentence[:80]!r} has {sentence.count(SLOT)} slots; write {SLOT} once")
    return ClassTexts(ids, names, tuple(tuple(one.replace(SLOT, name) for one in sentences) for name in names))


def _refuse_twice(path: Path, texts: Sequence[str]) -> None:
    twice = next((text for text, count in Counter(texts).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{path}: {twice[:80]!r} appears twice; keep it once")


def _templates(given: str) -> tuple[str, ...]:
    if not given:
        return PLAIN
    if given != "imagenet":
        return template_lines(Path(given))
    import open_clip

    return tuple(template(SLOT) for template in open_clip.OPENAI_IMAGENET_TEMPLATES)


def written_queries(path: Path, classes: Path | None) -> ClassTexts:
    """Read a .txt of free texts, each a class of its own, or a table with ``class_id`` and ``prompt``.

    ``classes``: a CSV that says which classes there are and in which order; those of the table, sorted, by default.

    Raises:
        InputError: no such file, a column that is missing, a class without a prompt.
    """
    if path.suffix.lower() == ".txt":
        if classes is not None:
            raise InputError(f"--queries: {path} holds free texts, and --classes was given; leave one of them out")
        lines = template_lines(path) if path.is_file() else ()
        if not lines:
            raise InputError(f"--queries: no file {str(path)!r}; give a .txt with a text a line, or a table")
        return _free_texts(path, lines)
    prompts = _prompts_by_class(path)
    if classes is None:
        ids = tuple(sorted(prompts))
        return ClassTexts(ids, (), tuple(tuple(prompts[one]) for one in ids))
    ids, names = class_names(classes)
    _refuse_twice(classes, ids)
    lacking = [one for one in ids if one not in prompts]
    if lacking:
        raise InputError(
            f"{path}: no prompt for {len(lacking)} of {len(ids)} classes of {classes}, the first is {lacking[0]!r}; "
            "write one, or leave the class out"
        )
    strange = sorted(set(prompts) - set(ids))
    if strange:
        raise InputError(f"{path}: class {strange[0]!r} is none of {classes}; correct one of them")
    return ClassTexts(ids, names, tuple(tuple(prompts[one]) for one in ids))


def _free_texts(path: Path, lines: Sequence[str]) -> ClassTexts:
    texts = tuple(line.strip() for line in lines)
    _refuse_twice(path, texts)
    for text in texts:
        if not text.isprintable() or len(text) > _MAX_ID_CHARS:
            raise InputError(f"{path}: {text[:60]!r} names a class; expected at most {_MAX_ID_CHARS} characters")
    return ClassTexts(texts, texts, tuple((text,) for text in texts))


def _prompts_by_class(path: Path) -> dict[str, list[str]]:
    file = RowFile(path, "--queries")
    for column in ("class_id", "prompt"):
        if column not in file.names:
            raise InputError(f"--queries: {path} has no column {column!r}, it has {', '.join(file.names[:12])}")
    prompts: dict[str, list[str]] = {}
    rows = 0
    for number in range(file.num_blocks):
        for row in file.block(number, ["class_id", "prompt"]).to_pylist():
            class_id, prompt = ("" if row[key] is None else str(row[key]).strip() for key in ("class_id", "prompt"))
            rows += 1
            if not class_id or not prompt:
                raise InputError(f"--queries: {path}: row {rows} has no class_id or no prompt; complete it")
            prompts.setdefault(class_id, []).append(prompt)
            if rows > MAX_PROMPTS or len(prompts) > MAX_CLASSES:
                raise InputError(f"--queries: {path}: over {MAX_PROMPTS} prompts or {MAX_CLASSES} classes; give fewer")
    if not prompts:
        raise InputError(f"--queries: {path} holds no row; write class_id and prompt")
    return prompts


def text_queries(texts: ClassTexts, embedder: Embedder) -> Queries:
    """Embed the texts of each class, a fixed number at a time, and take their mean.

    Raises:
        InputError: the texts of a class cancel each other out.
    """
    flat = [text for of_class in texts.texts for text in of_class]
    passes = range(0, len(flat), _TEXTS_PER_PASS)
    vectors = np.concatenate([embedder.texts(flat[start : start + _TEXTS_PER_PASS]) for start in passes])
    labels = np.repeat(np.arange(len(texts.texts)), [len(of_class) for of_class in texts.texts])
    return Queries(texts.class_ids, texts.names, class_means([(labels, vectors)], texts.class_ids), texts.facts())


def image_queries(source: Source, vectors: Vectors) -> Queries:
    """Take the mean of the images of each class of a labelled set.

    Raises:
        InputError: the images have no labels, or a class has none.
    """
    labels = np.concatenate([source.open(number).label for number in range(len(source.images_per_shard))])
    blocks = ((labels[first : first + len(block)], block) for first, block in vectors.blocks())
    facts = {"images": len(labels), "sha256": sha256_bytes(canonical_json([source.content_hash(), vectors.sha256]))}
    return Queries(source.class_ids, (), class_means(blocks, source.class_ids), facts)


def class_means(parts: Iterable[tuple[np.ndarray, np.ndarray]], class_ids: Sequence[str]) -> np.ndarray:
    """Return the units of the mean vector of each class, float32[classes, d].

    ``parts``: (class of each, float[n, d]) of vectors of one length each.

    Raises:
        InputError: a class has no vector, or its vectors cancel each other out.
    """
    sums: np.ndarray | None = None
    for labels, vectors in parts:
        # In whole numbers, whose sum no order changes.
        rows = units(vectors).astype(np.float64)
        sums = np.zeros((len(class_ids), rows.shape[1])) if sums is None else sums
        np.add.at(sums, labels, rows)
    means = units(np.zeros((len(class_ids), 1)) if sums is None else sums)
    empty = np.flatnonzero(~means.any(axis=1))
    if len(empty):
        raise InputError(f"class {class_ids[empty[0]]!r}: has no query, or queries that cancel out; give it others")
    return means
