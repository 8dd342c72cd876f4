"""Which images of a set a mixture shows, by a file of their numbers: only these, or all but these.

In: a text file with the number (or key) of an image a line, a set. Out: the same set without what is not shown.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from synclones.base.errors import InputError
from synclones.base.json_file import read_regular
from synclones.shards.sources.labelled import LabelledSource

MAX_BYTES = 2**30


def read_numbers(path: Path | str, where: str) -> np.ndarray:
    """Read the numbers of images: a whole number on each line, zeros in front as in keys, or nothing, or ``# words``.

    Returns:
        int64[m], ascending.

    Raises:
        InputError: no such file, no number in it, or a line that is none or stands in it twice; after ``where``.
    """
    try:
        lines = read_regular(Path(path), MAX_BYTES).decode().splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: cannot read {str(path)!r} ({error}); give a text file of numbers") from None
    numbers = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text and not (text.isascii() and text.isdecimal() and len(text) <= 18):
            raise InputError(f"{path}:{number}: {line[:40]!r} is no number of an image; write one on each line")
        numbers += [int(text)] if text else []
    if not numbers:
        raise InputError(f"{where}: {path} names no image; write the number of one on each line")
    if len(set(numbers)) < len(numbers):
        twice = next(number for number, times in Counter(numbers).items() if times > 1)
        raise InputError(f"{where}: {path} names image {twice} twice; keep one")
    return np.sort(np.array(numbers, dtype=np.int64))


def chosen(source: LabelledSource, only: str, without: str, where: str) -> LabelledSource:
    """Return the set as it is shown: the images of the file ``only`` alone, or all but those of the file ``without``.

    Raises:
        InputError: the set has no image of a number, or none is left.
    """
    if not only and not without:
        return source
    path, key = (only, "only") if only else (without, "without")
    numbers = read_numbers(path, f"{where}: {key}")
    _, index = source.all_labels_and_indices()
    if (unknown := np.setdiff1d(numbers, index)).size:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise InputError(f"{where}: {key}: {path} names image {unknown[0]}{more}, which {source.folder} has not")
    named = np.isin(index, numbers)
    return source.excluding(np.flatnonzero(named if without else ~named))
