"""Which images a class gets: of its candidates those near enough, of no test set, not better placed in another class.

In: `Pairs` of class and image, or captions and names; rules. Out: the chosen pairs, each image once, and counts of
what was left out and why. In this order: the lowest score, test images, the better class, the best share, the most of
each class.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synclones.shards.similarity.neighbours import Pairs, in_order, ranks

_APART = re.compile(r"[\s_-]+")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How many of the candidates stay."""

    min_score: float = -1.0
    """Lowest cosine that counts."""
    top_share: float = 1.0
    """Share of each class's candidates, the best first."""
    per_class: int = 0
    """At most so many of each class; 0 for all."""


def choose(candidates: Pairs, near_test: np.ndarray, choice: Choice) -> tuple[Pairs, dict[str, int]]:
    """Return what is chosen, by class and the best first, and how many pairs each rule left out.

    ``near_test``: positions, int64[m], of images that nearly are one of a test set.
    """
    counts = {"candidates": len(candidates)}

    def keep(pairs: Pairs, why: str, stays: np.ndarray) -> Pairs:
        counts[why] = len(pairs) - int(np.count_nonzero(stays))
        return pairs.take(stays)

    pairs = in_order(candidates)
    pairs = keep(pairs, "below_min_score", pairs.score >= choice.min_score)
    pairs = keep(pairs, "near_test", ~np.isin(pairs.position, near_test))
    pairs = keep(pairs, "better_in_another_class", _is_of_its_best_class(pairs))
    # Shares are of what a class has left, in whole images: 0.3 of 15 are 5, half a one is one.
    sizes = np.bincount(pairs.query) if len(pairs) else np.zeros(1, np.int64)
    pairs = keep(pairs, "beyond_top_share", ranks(pairs) < np.floor(choice.top_share * sizes + 0.5)[pairs.query])
    if choice.per_class:
        pairs = keep(pairs, "beyond_per_class", ranks(pairs) < choice.per_class)
    return pairs, counts | {"chosen": len(pairs)}


def _is_of_its_best_class(pairs: Pairs) -> np.ndarray:
    """Tell of each pair whether its image scores higher in no other class; of equal scores the first class has it."""
    order = np.lexsort((pairs.query, -pairs.score, pairs.position))
    is_first = np.zeros(len(pairs), bool)
    is_first[order] = np.diff(pairs.position[order], prepend=-1) != 0
    return is_first


def plain_words(text: str) -> str:
    """Return a text as captions are searched: folded case, one space for any run of spaces, ``-`` and ``_``."""
    return _APART.sub(" ", text.casefold()).strip()


def named_in_captions(
    captions: Iterable[tuple[int, Sequence[str]]], names: Sequence[str], *, whole_words: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Find the images whose caption contains a class's name: (class, position), int64[m] each.

    Args:
        captions: position of the first, and captions, shard after shard.
        whole_words: the name must begin and end where words do.
    """
    sought = [plain_words(name) for name in names]
    classes, positions = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for first, texts in captions:
        column = pa.array([plain_words(text) for text in texts], pa.string())
        for number, name in enumerate(sought):
            if whole_words:
                pattern = rf"(^|\W){re.escape(name)}(\W|$)"
                hits = pc.match_substring_regex(column, pattern)
            else:
                hits = pc.match_substring(column, name)
            rows = np.flatnonzero(hits.to_numpy(zero_copy_only=False))
            classes.append(np.full(len(rows), number, np.int64))
            positions.append(first + rows)
    return np.concatenate(classes), np.concatenate(positions)
