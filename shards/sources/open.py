"""Opens any set as a `Source`: a folder of this project, or what others made, told apart by what lies there.

In: a folder, a file, or a pattern of files (``data/train-*.tar``, ``data/{00000..00004}.tar``). Out: a `Source`. A set
that others made is read where it lies; its index is made when it is opened for the first time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError
from synclones.base.manifest import find_parent
from synclones.base.resume import typed
from synclones.shards.index import PLAN
from synclones.shards.kept import note_once
from synclones.shards.schema import SHARD_PATTERN
from synclones.shards.sources.cache import CACHE_GB, FileCache, open_remote
from synclones.shards.sources.class_lists import CLASS_LIST, Classes, classes_of
from synclones.shards.sources.dataset import DatasetSource
from synclones.shards.sources.decode import IMAGE_SUFFIXES
from synclones.shards.sources.files import PassedOver, plain_text, sorted_names, walk_names
from synclones.shards.sources.first import FirstImages
from synclones.shards.sources.foreign_tars import TarCollection
from synclones.shards.sources.huggingface import ParquetCollection, image_columns
from synclones.shards.sources.image_files import FolderCollection, TableCollection
from synclones.shards.sources.indexed import IndexedSource
from synclones.shards.sources.indexing import Index, make_index, open_index, selection_name
from synclones.shards.sources.listing import Collection
from synclones.shards.sources.remote import RemoteFiles
from synclones.shards.sources.remote_set import NoSums, RemoteSource
from synclones.shards.sources.remote_tars import RemoteTarCollection, RemoteTarSource, collect_tars
from synclones.shards.sources.retrieved import is_retrieved, read_retrieved, retrieved_source
from synclones.shards.sources.source import Source
from synclones.shards.sources.splits import is_pattern, matching_files, of_split, split_folder
from synclones.shards.stores.store import store_url

_TABLES = (".csv", ".tsv")
_KINDS = (
    "tars, images in folders of classes, a .csv or .tsv of paths, Parquet files with a column of images, or a folder "
    "that `synclones generate` made"
)


@dataclass(frozen=True)
class _Selection:
    """Which files, and how they are read: what an index is of."""

    path: Path | str
    split: str | None
    label_key: str | None
    caption_key: str | None

    def command(self) -> str:
        """Return the command that makes the index."""
        words = ["shards", "index", store_url(self.path) or str(self.path)]
        for flag, value in (
            ("--split", self.split),
            ("--label-key", self.label_key),
            ("--caption-key", self.caption_key),
        ):
            words += [flag, value] if value is not None else []
        return typed(words)

    def name(self, collection: Collection) -> str:
        """Return the name of the index."""
        # A file or a pattern selects by its own name; a folder is where the index lies.
        pattern = None if Path(self.path).is_dir() else Path(self.path).name
        return selection_name(
            kind=collection.kind,
            pattern=pattern,
            split=self.split,
            label_key=self.label_key,
            caption_key=self.caption_key,
        )


def open_source(
    path: Path | str,
    *,
    classes: Path | str | None = None,
    label_key: str | None = None,
    caption_key: str | None = None,
    split: str | None = None,
    own_split: str | None = None,
    first: int = 0,
    cache_gb: float = CACHE_GB,
    explain: bool = True,
) -> Source:
    """Open a set of images; what kind it is is told by what lies at ``path``.

    Args:
        classes: a class list that says what numbers mean, or in which order ids are counted.
        label_key: key of the samples' json, or column, that holds the label.
        caption_key: the same for the caption.
        split: of a set whose names tell splits apart, such as ``train``.
        own_split: the same for a set of this project where ``split`` names none.
        first: only the images below this number, of a set of this project on this disk; 0 for all.
        cache_gb: how much of a set in a store or on the hub is kept on this disk at once, in 10^9 bytes.
        explain: whether the user is told what the labels of a set on this disk are taken for, where nobody said so.

    Raises:
        InputError: no set, one whose files are of several splits, or labels that the class list does not fit.
        VerificationError: a file is no longer what it was when the set was indexed.
    """
    selection = _Selection(path, split, label_key, caption_key)
    if first and (is_remote(path) or not is_ours(Path(path))):
        raise InputError(
            f"--data: {path}: first={first} is said of folders that `synclones generate` made, on this disk; write "
            f"count={first} for a seeded choice"
        )
    if is_remote(path):
        return _open_remote(selection, classes, own_split, cache_gb)
    if is_ours(Path(path)):
        _refuse_given(selection, classes)
        return FirstImages(path, first, split or own_split) if first else DatasetSource(path, split or own_split)
    if is_retrieved(Path(path)):
        _refuse_given(selection, classes)
        if split is not None:
            raise InputError(f"{path}: retrieved images are of the split they were retrieved from; leave split out")
        return _open_retrieved(Path(path), cache_gb)
    collection = _collect(selection)
    index = open_index(path, collection, selection.name(collection), selection.command())
    meaning = meaning_of(path, index, classes)
    if meaning.note and explain:
        note_once(meaning.note)
    return IndexedSource(Path(path), collection, index, meaning, selection.command())


def _open_retrieved(folder: Path, cache_gb: float) -> Source:
    stated = read_retrieved(folder)
    facts = stated.set_facts
    stays = is_remote(facts["path"]) or is_pattern(facts["path"])
    path = facts["path"] if stays else find_parent(folder, facts["path"])
    if path is None:
        raise InputError(f"{folder}: the set {facts['path']!r} that its images are of is gone; put it back")
    # Its own labels are of no interest here: what they mean is neither asked nor told.
    keys: dict[str, Any] = {key: facts[key] or None for key in ("split", "label_key", "caption_key")}
    return retrieved_source(folder, stated, open_source(path, cache_gb=cache_gb, explain=False, **keys))


def meaning_of(path: Path | str, index: Index, classes: Path | str | None) -> Classes:
    """Find what the labels of an indexed set mean, by a class list that is given or lies beside the data.

    Raises:
        InputError: the list does not fit the labels.
    """
    return classes_of(path, index.labels(), None if classes is None else Path(classes), index.root / CLASS_LIST)


def index_set(
    path: Path | str, *, label_key: str | None = None, caption_key: str | None = None, split: str | None = None
) -> Index:
    """Make the index of a set that others made, or renew it: what is there now is taken for right.

    Raises:
        InputError: no such set, or one that cannot be used.
    """
    selection = _Selection(path, split, label_key, caption_key)
    if is_ours(Path(path)):
        raise InputError(f"{path}: a folder of synclones, which has its own index; use it as it is")
    collection = _collect_remote(selection, CACHE_GB) if is_remote(path) else _collect(selection)
    if collection is None:
        raise InputError(f"{store_url(path)}: no tars of others in it; give a place that has some, and nothing of ours")
    return make_index(path, collection, selection.name(collection), selection.command(), anew=True)


def is_remote(path: Path | str) -> bool:
    """Tell whether this is a place in a store or on the hub."""
    return store_url(path) is not None


def is_ours(path: Path) -> bool:
    """Tell whether this is a folder of this project."""
    if not path.is_dir():
        return False
    shards = (file for file in path.glob("*.json") if SHARD_PATTERN.fullmatch(file.stem))
    return (path / PLAN).is_file() or any(file.with_suffix(".parquet").is_file() for file in shards)


def _refuse_given(selection: _Selection, classes: Path | str | None) -> None:
    given = {"a class list": classes, "a label key": selection.label_key, "a caption key": selection.caption_key}
    for what, value in given.items():
        if value is not None:
            raise InputError(
                f"{selection.path}: a folder of synclones has its own classes and captions; leave out {what}"
            )


def _open_remote(
    selection: _Selection, classes: Path | str | None, own_split: str | None, cache_gb: float
) -> RemoteSource | RemoteTarSource:
    """Open a set of this project by its SHA256SUMS; without one, the tars of others that lie there."""
    remote, path = open_remote(selection.path), selection.path
    try:
        source = RemoteSource(path, selection.split or own_split, cache_gb=cache_gb, remote=remote)
    except NoSums:
        collection = _collect_remote(selection, cache_gb, remote)
        if collection is None:
            raise
    else:
        _refuse_given(selection, classes)
        return source
    command = selection.command()
    index = open_index(remote.url, collection, selection.name(collection), command)
    meaning = meaning_of(remote.url, index, classes)
    if meaning.note:
        note_once(meaning.note)
    return RemoteTarSource(path, collection, index, meaning, command)


def _collect_remote(
    selection: _Selection, cache_gb: float, remote: RemoteFiles | None = None
) -> RemoteTarCollection | None:
    cache = FileCache(remote or open_remote(selection.path), cache_gb=cache_gb)
    return collect_tars(cache, selection.split, selection.label_key, selection.caption_key)


def _collect(selection: _Selection) -> Collection:
    """Find the files of a selection.

    Raises:
        InputError: there are none, or of several kinds or splits.
    """
    path, text = Path(selection.path), str(selection.path)
    if is_pattern(text):
        files = matching_files(text)
        return _of_files(selection, files[0].parent, files)
    if path.is_file():
        return _of_files(selection, path.parent, [path])
    if not path.is_dir():
        raise InputError(f"{path}: no such folder or file; give {_KINDS}")
    return _of_folder(selection, path)


def _of_files(selection: _Selection, root: Path, files: list[Path]) -> Collection:
    suffixes = {file.suffix.lower() for file in files}
    if len(suffixes) == 1:
        suffix = suffixes.pop()
        if suffix in _TABLES and len(files) == 1:
            return _table(selection, files[0])
        if suffix == ".tar":
            return _tars(selection, root, files)
        if suffix == ".parquet":
            _refuse_without_images(files)
            return _parquet(selection, root, files)
    raise InputError(f"{selection.path}: is {files[0].name!r}{' and more' if len(files) > 1 else ''}; give {_KINDS}")


def _of_folder(selection: _Selection, path: Path) -> Collection:
    # One walk: what the files are by their names.
    passed = PassedOver()
    names = sorted_names(walk_names(path, passed))
    tars = [path / name for name in names if name.endswith(".tar")]
    parquet = [path / name for name in names if name.endswith(".parquet")]
    images = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]
    # Beside tars Parquet files are notes of whoever made them, and images are previews: but not beside each other.
    if tars:
        for name in images:
            passed.add("beside the tars", plain_text(name))
        collection = _tars(selection, path, tars)
    elif parquet and not images:
        _refuse_without_images(parquet)
        collection = _parquet(selection, path, parquet)
    elif parquet and image_columns(parquet[0]):
        raise InputError(f"{path}: holds images and Parquet files of images; give one of both, such as {parquet[0]}")
    elif images:
        for name in names:
            if not name.lower().endswith(IMAGE_SUFFIXES):
                passed.add("no image by its name", plain_text(name))
        collection = _folder(selection, path, images)
    else:
        more = f" ({passed.text(path)})" if passed.counts() else ""
        first = f"; the first of {len(names)} files is {names[0]!r}" if names else ""
        raise InputError(f"{path}: no set of images{first}{more}; give {_KINDS}")
    passed.tell(path)
    return collection


def _tars(selection: _Selection, root: Path, tars: list[Path]) -> Collection:
    return TarCollection(root, _of_split(selection, root, tars), selection.label_key, selection.caption_key)


def _parquet(selection: _Selection, root: Path, files: list[Path]) -> Collection:
    return ParquetCollection(root, _of_split(selection, root, files), selection.label_key, selection.caption_key)


def _table(selection: _Selection, table: Path) -> Collection:
    if selection.split is not None:
        raise InputError(f"{table}: a table is of one split; leave split={selection.split} out")
    return TableCollection(table, selection.label_key, selection.caption_key)


def _of_split(selection: _Selection, root: Path, files: list[Path]) -> list[Path]:
    names = [file.relative_to(root).as_posix() for file in files]
    return [root / name for name in of_split(selection.path, names, selection.split)]


def _folder(selection: _Selection, path: Path, images: list[str]) -> Collection:
    """Take images in folders of classes, below folders of splits or not.

    Raises:
        InputError: splits that were not chosen between, or keys, which folders do not have.
    """
    if selection.label_key is not None or selection.caption_key is not None:
        raise InputError(f"{path}: a folder of images, whose labels are its folders; leave label and caption key out")
    tops = {name.partition("/")[0] for name in images if "/" in name}
    splits = {top for top in tops if split_folder(top)}
    several = len({split_folder(top) for top in splits}) > 1
    all_are = splits == tops and bool(tops) and all("/" in name for name in images)
    has_classes = any(name.count("/") > 1 for name in images)
    # One folder named "train" beside others may be a class; "train" and "val" are splits, or nobody can tell.
    if not (several or (all_are and has_classes)):
        if selection.split is not None:
            raise InputError(f"{path}: has no folder of the split {selection.split!r}; leave split out, or correct it")
        return FolderCollection(path, images)
    if not all_are:
        raise InputError(f"{path}: holds {', '.join(sorted(splits))} beside other folders or images; give one of them")
    (chosen, *more) = of_split(path, sorted(splits), selection.split, split_folder)
    if more:
        raise InputError(f"{path}: holds {chosen} and {more[0]}, of one split; give one of them")
    start = f"{chosen}/"
    return FolderCollection(path / chosen, [name.removeprefix(start) for name in images if name.startswith(start)])


def _refuse_without_images(files: list[Path]) -> None:
    if not image_columns(files[0]):
        raise InputError(f"{files[0]}: no Parquet file with a column of images, struct<bytes, path>; give {_KINDS}")
