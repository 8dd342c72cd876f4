"""Which files of a set are meant: those of one split, told by their names, and those that a pattern names.

In: what a user wrote, and names of files. Out: files. Images of a test split never get among those of training
unseen: a choice that the names leave open is refused.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from synclones.base.errors import InputError
from synclones.shards.schema import MAX_SHARDS

_WORDS = {
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **{"val": "val", "valid": "val", "validation": "val", "dev": "val"},
}
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")


def split_in(name: str) -> str:
    """Return the split that a file's name, folders included, speaks of: train, val, test, several joined, or none."""
    words = re.split(r"[^a-z]+", name.lower())
    return "-".join(sorted({_WORDS[word] for word in words if word in _WORDS}))


def split_folder(name: str) -> str:
    """Return the split that a folder is named after, or an empty text."""
    return _WORDS.get(name.lower(), "")


def of_split(
    path: object, names: Sequence[str], split: str | None, speaks_of: Callable[[str], str] = split_in
) -> list[str]:
    """Return the names of one split; all of them when none is asked for and they are of one.

    Raises:
        InputError: they are of several splits, or none is of the one that is asked for.
    """
    splits = [speaks_of(name) for name in names]
    known = sorted({name for name in splits if name})
    if split is not None:
        chosen = [name for name, its in zip(names, splits, strict=True) if its == _WORDS.get(split, split)]
        if not chosen:
            raise InputError(
                f"{path}: no file of the split {split!r}; names speak of {', '.join(known) or 'no split'}, "
                f"the first is {names[0]!r}; give another split, or the files by their names"
            )
        return chosen
    # Beside test images, files that say nothing may be anything.
    if len(known) > 1 or (set(known) - {"train"} and "" in splits):
        more = " and of no split" if "" in splits else ""
        raise InputError(
            f"{path}: holds files of {', '.join(known)}{more}; choose one, as split={known[-1]}, or by a pattern of "
            f"names such as {names[splits.index(known[-1])]!r}"
        )
    return list(names)


def is_pattern(text: str) -> bool:
    """Tell whether a path names several files: by ``*``, ``?``, ``[...]`` or braces."""
    return any(character in text for character in "*?[{") and not Path(text).exists()


def matching_files(text: str) -> list[Path]:
    """List the files that a pattern names, all in one folder, sorted; each part in braces must match something.

    Raises:
        InputError: nothing matches, or files of several folders do.
    """
    files: set[Path] = set()
    for pattern in _expanded(text):
        path = Path(pattern)
        base = Path(path.anchor) if path.is_absolute() else Path()
        try:
            matches = {match for match in base.glob(str(path.relative_to(path.anchor))) if match.is_file()}
        except ValueError as error:
            raise InputError(f"{text}: no pattern of files ({error}); write one such as data/train-*.tar") from None
        if not matches:
            raise InputError(f"{text}: no file {pattern!r}; correct the pattern, or fetch the file")
        files |= matches
    folders = sorted({str(file.parent) for file in files})
    if len(folders) > 1:
        raise InputError(f"{text}: names files in {folders[0]!r} and {folders[1]!r}; give files of one folder")
    return sorted(files)


def _expanded(text: str) -> Iterator[str]:
    """Yield the patterns that braces stand for, ``{a,b}`` or ``{000..012}``, one after the other.

    Raises:
        InputError: braces of neither form, or of very many patterns.
    """
    waiting, given = [text], 0
    while waiting:
        pattern = waiting.pop()
        braces = _BRACES.search(pattern)
        if braces is None:
            given += 1
            if given > MAX_SHARDS:
                raise InputError(f"{text}: stands for over {MAX_SHARDS} names; write fewer, or *")
            yield pattern
            continue
        parts = _parts(text, braces[1])
        if len(waiting) + len(parts) > MAX_SHARDS:
            raise InputError(f"{text}: stands for over {MAX_SHARDS} names; write fewer, or *")
        waiting += [pattern[: braces.start()] + part + pattern[braces.end() :] for part in reversed(parts)]


def _parts(text: str, inside: str) -> list[str]:
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        if "," not in inside:
            raise InputError(f"{text}: {{{inside}}} is no range, expected {{00000..00012}} or {{a,b}}")
        return inside.split(",")
    first, last = int(numbers[1]), int(numbers[2])
    if not first <= last < first + MAX_SHARDS:
        raise InputError(f"{text}: {{{inside}}} is no range of at most {MAX_SHARDS} ascending numbers")
    width = len(numbers[1]) if numbers[1].startswith("0") else 0
    return [f"{number:0{width}d}" for number in range(first, last + 1)]
