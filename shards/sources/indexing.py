"""Makes, finds and renews the index of a set that others made: by need, by one process at a time, told to the user.

In: a `Collection`. Out: an `Index`, which describes the set as it is now. It lies in ``SET/.synclones/``, or below the
user's cache where the set cannot be written or another reader would take the folder for data.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from synclones.base import machine
from synclones.base.errors import InputError, VerificationError
from synclones.base.files import remove_dead_temporaries, sha256_bytes, sha256_file, write_atomic
from synclones.base.json_file import canonical_json, pretty_json, read_json
from synclones.base.units import format_set
from synclones.shards.kept import kept_folders, note, writable_folder
from synclones.shards.lock import claim
from synclones.shards.sources.class_lists import Labels
from synclones.shards.sources.files import PassedOver
from synclones.shards.sources.listing import (
    FORMAT,
    Collection,
    Facts,
    SourceFile,
    as_facts,
    hashed,
    write_part,
)

_INDEX = "index.json"
_THREADS = 8


@dataclass(frozen=True)
class Index:
    """What is known of a set.

    Attributes:
        root: the folder that names of files are below.
        where: the folder of the index.
        shards: what is known of each, in order.
        sources: the files that decide whether it is current.
    """

    root: Path
    where: Path
    kind: str
    rule: str
    listing: str
    sources: tuple[SourceFile, ...]
    shards: tuple[Facts, ...]
    class_names: tuple[str, ...]
    label_counts: Mapping[str, int]

    @property
    def num_images(self) -> int:
        """How many images the set has."""
        return sum(facts.images for facts in self.shards)

    def labels(self) -> Labels:
        """Count the labels of all shards.

        Raises:
            InputError: numbers in some shards, texts in others.
        """
        kinds = {facts.numbers for facts in self.shards} - {None}
        if len(kinds) > 1:
            raise InputError(f"{self.where}: labels are numbers in some shards and texts in others; choose another key")
        first = next((facts.first_missing for facts in self.shards if facts.missing), "")
        missing = sum(facts.missing for facts in self.shards)
        return Labels(self.label_counts, kinds == {True}, missing, first, self.class_names)

    def passed(self) -> PassedOver:
        """Return what was passed over in all shards."""
        passed = PassedOver()
        for kind, first, count in (entry for facts in self.shards for entry in facts.passed):
            passed.add(kind, first, count)
        return passed


def open_index(path: object, collection: Collection, name: str, command: str) -> Index:
    """Return the index of a set, made now if there is none, renewed if files were touched and are the same.

    ``path``: the set in messages; ``name``: of the selection that is indexed; ``command``: what makes it again.

    Raises:
        InputError: the set cannot be used, or files were added or removed.
        VerificationError: a file is no longer what it was.
    """
    indexes = [_read(collection.root, location) for location in _folders(collection, name)]
    known = [index for index in indexes if index is not None]
    if not known:
        return make_index(path, collection, name, command)
    current = next((index for index in known if _is_current(index, collection)), None)
    if current is not None:
        return current
    # The last is the one that was renewed, where the set itself cannot be written.
    index = known[-1]
    names = {source.name for source in collection.sources()}
    strange = sorted(names ^ {file.name for file in index.sources})
    if index.listing != collection.listing() or strange:
        first = f" ({strange[0]})" if strange else ""
        raise InputError(
            f"{path}: files were added or removed since it was indexed{first}; if that is right: {command}"
        )
    # The same bytes under another time, as after a copy: only reading them tells.
    return make_index(path, collection, name, command, same_as=index)


def _is_current(index: Index, collection: Collection) -> bool:
    """Tell whether the set is what the index describes, by names, sizes and times."""
    now, before = ([file.state() for file in files] for files in (collection.sources(), index.sources))
    return now == before and index.listing == collection.listing()


def make_index(
    path: object, collection: Collection, name: str, command: str, *, same_as: Index | None = None, anew: bool = False
) -> Index:
    """Index a set; shards that were indexed and did not change are kept.

    ``same_as``: refuse what is no longer as it was there. ``anew``: what another process made meanwhile is no excuse.

    Raises:
        InputError: the set cannot be used.
        VerificationError: a file is no longer what it was, or changes just now.
    """
    where = writable_folder(_folders(collection, name), collection.root, "index")
    with claim(where, "index", wait=True) or _no_claim(where):
        made = None if anew else _read(collection.root, where)
        if made is not None and _is_current(made, collection):
            return made  # by another process, while this one waited
        # Shards first, each whole or absent: a kill costs one, and the next command goes on behind the others.
        remove_dead_temporaries(where)
        start = time.monotonic()
        note(f"{path}: {'reading again' if same_as else 'indexing'}, once; kept in {where}")
        before = {facts.name: facts.sha256 for facts in same_as.shards} if same_as else {}
        shards, counts = _write_parts(collection, where, before, command), Counter[str]()
        for facts in shards:
            counts.update(facts.labels)
        # Then what they are together, which makes them an index.
        index = Index(
            root=collection.root,
            where=where,
            kind=collection.kind,
            rule=collection.rule(),
            listing=collection.listing(),
            sources=_sources(collection, shards),
            shards=tuple(replace(facts, labels={}) for facts in shards),
            class_names=collection.class_names(),
            label_counts=counts,
        )
        _check(path, index)
        _keep(index)
        note(f"{path}: {format_set(index.num_images, len(shards))}, {time.monotonic() - start:.1f} s")
    return index


def _no_claim(where: Path) -> Any:
    raise InputError(f"{where}: another process writes the index; wait for it")


def _write_parts(collection: Collection, where: Path, before: dict[str, str], command: str) -> list[Facts]:
    parts, text = collection.parts(), collection.has_text_labels

    with ThreadPoolExecutor(min(_THREADS, machine.cores()), thread_name_prefix="index") as pool:
        jobs: list[Future[Facts]] = [
            pool.submit(write_part, part, where, text_labels=text, expected=before.get(part.name), command=command)
            for part in parts
        ]
        try:
            shards = [job.result() for job in jobs]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    kept = {f"{facts.name}.parquet" for facts in shards}
    for old in where.glob("*.parquet"):
        if old.name not in kept:
            old.unlink(missing_ok=True)
    return shards


def _sources(collection: Collection, shards: Sequence[Facts]) -> tuple[SourceFile, ...]:
    """Return the files that decide whether the index is current: hashed with their shards, or now."""
    known = tuple(SourceFile(**file) for facts in shards for file in facts.files)
    return known or tuple(hashed(collection.root, collection.root / source.name) for source in collection.sources())


def _check(path: object, index: Index) -> None:
    index.labels()
    passed = index.passed()
    if not index.num_images:
        more = f" ({passed.text(Path(str(path)))})" if passed.counts() else ""
        raise InputError(f"{path}: no image in it{more}; give a set of images")
    passed.tell(Path(str(path)))


def _keep(index: Index) -> None:
    labels = index.labels()
    stated = {
        "format": FORMAT,
        "kind": index.kind,
        "rule": index.rule,
        "listing_sha256": index.listing,
        "images": index.num_images,
        "images_without_label": labels.missing,
        "sources": [file.stated() for file in index.sources],
        "shards": [asdict(facts) for facts in index.shards],
        "class_names": list(index.class_names),
        "labels": dict(index.label_counts),
        "passed_over": index.passed().counts(),
    }
    write_atomic(index.where / _INDEX, pretty_json(stated))


def _read(root: Path, where: Path) -> Index | None:
    """Return the index in a folder, or None where there is none that this version can use."""
    try:
        stated = read_json(where / _INDEX, max_bytes=2**30)
        if stated["format"] != FORMAT:
            return None
        texts = [stated["kind"], stated["rule"], stated["listing_sha256"], *stated["class_names"]]
        sources = tuple(SourceFile(**file) for file in stated["sources"])
        counts = stated["labels"]
        if not all(type(text) is str for text in texts) or not all(map(_is_sound, sources)):
            return None
        if not all(type(count) is int and count > 0 for count in counts.values()):
            return None
        shards = tuple(as_facts(value) for value in stated["shards"])
        if not all(_is_sound(SourceFile(**file)) for facts in shards for file in facts.files):
            return None
        numbers = any(facts.numbers for facts in shards)
        if numbers and not all(text.isascii() and text.isdigit() and len(text) <= 12 for text in counts):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Index(root, where, texts[0], texts[1], texts[2], sources, shards, tuple(texts[3:]), counts)


def _is_sound(file: SourceFile) -> bool:
    """Tell whether this is the name of a file below a root, with numbers."""
    numbers = type(file.size) is int and type(file.mtime_ns) is int and file.size >= 0
    texts = all(type(text) is str for text in (file.name, file.sha256, file.version))
    return numbers and texts and is_below(file.name)


def is_below(name: str) -> bool:
    """Tell whether a name leads to a file below the folder that it is put behind."""
    return bool(name) and not name.startswith("/") and ".." not in name.split("/") and "\0" not in name


def selection_name(**chosen: str | None) -> str:
    """Return the name of an index: of one selection of files, read in one way."""
    digest = sha256_bytes(canonical_json({key: value for key, value in chosen.items() if value is not None}))
    return f"{chosen.get('split') or 'all'}-{digest[:12]}"


def _folders(collection: Collection, name: str) -> list[Path]:
    return kept_folders(collection.root, name, beside=collection.keeps_index)


def changed_files(index: Index, *, contents: bool) -> Iterator[VerificationError]:
    """Yield what differs of the files that hold many images each."""
    for file in index.sources:
        path = index.root / file.name
        try:
            size = path.stat().st_size
        except OSError:
            yield VerificationError(f"{path}: missing; fetch it again")
            continue
        if size != file.size:
            yield VerificationError(f"{path}: has {size} bytes, was indexed with {file.size}; fetch it again")
        elif contents and file.sha256 and sha256_file(path) != file.sha256:
            yield VerificationError(f"{path}: other bytes than when it was indexed; fetch it again")
