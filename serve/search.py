"""Finds samples of a set by class, status, prompt and score: a page at a time, within a bounded time and memory.

In: a `Dataset`, what is wanted, and the number to begin at. Out: at most a page of rows, and the number to go on from.
Shards are read one after the other. Those whose json says that they lack a status, or whose prompts in the table lack a
text, are not read at all; when the time is over, the search ends where it is, and the next page begins there.
"""

import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synclones.serve.dataset import Dataset, Piece
from synclones.serve.prompt_texts import holds

SECONDS = 0.5
"""Of one search: the first page of 16 M images is there within a second, however rare what is wanted is."""
STEP, SLOW_STEP = 20_000, 500
"""Rows between two looks at the clock; fewer when each costs a read of the tar."""
_NEEDED = ("index", "status", "reason", "label", "seed", "attempt", "scores", "txt_offset", "txt_size")


@dataclass(frozen=True)
class Wanted:
    """What samples are sought; a field with its default asks for nothing.

    Attributes:
        label: class number.
        status: ok, failed or dropped.
        text: the prompt holds it, in whatever case.
        score: name of the score that is between ``low`` and ``high``.
    """

    label: int | None = None
    status: str = ""
    text: str = ""
    score: str = ""
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class Hits:
    """One page of a search.

    Attributes:
        rows: of the samples, as in a shard's Parquet file, each with its ``prompt``.
        next_index: where to go on; None at the end of the set.
        is_full: whether the page is; else time was over, or the set has no more.
    """

    rows: list[dict[str, Any]]
    next_index: int | None
    is_full: bool


def search(dataset: Dataset, wanted: Wanted, start: int, count: int, seconds: float = SECONDS) -> Hits:
    """Return up to ``count`` samples from number ``start`` on.

    Raises:
        VerificationError: a shard is damaged.
    """
    ends, rows = time.monotonic() + seconds, list[dict[str, Any]]()
    for piece, part, following in _parts(dataset, wanted, start):
        room = count - len(rows)
        kept = part.slice(0, room + 1).to_pylist()  # one more says whether there is another page
        for row, prompt in zip(kept[:room], dataset.shown_texts(piece, kept[:room]), strict=True):
            rows.append(row | {"prompt": prompt})
        if len(kept) > room:
            return Hits(rows, kept[room]["index"], True)
        if time.monotonic() > ends and following is not None and following > start:
            return Hits(rows, following, False)
    return Hits(rows, None, len(rows) == count)


def _parts(dataset: Dataset, wanted: Wanted, start: int) -> Iterator[tuple[Piece, pa.Table, int | None]]:
    """Yield (shard, rows that are wanted, number to go on from) for stretches of the set; rows may be none."""
    pieces = (piece for piece in dataset.from_index(start) if not (wanted.status and piece.lacks(wanted.status)))
    piece = next(pieces, None)
    while piece is not None:
        follower = next(pieces, None)
        yield from _of_piece(dataset, wanted, piece, start, None if follower is None else follower.span.start)
        piece = follower


def _of_piece(
    dataset: Dataset, wanted: Wanted, piece: Piece, start: int, following: int | None
) -> Iterator[tuple[Piece, pa.Table, int | None]]:
    by_table = None
    if wanted.text and dataset.prompts:
        by_table = dataset.prompts.matching(wanted.text, range(max(start, piece.span.start), piece.span.stop))
        if not len(by_table):
            yield piece, pa.table({"index": pa.array([], pa.int64())}), following
            return
    rows = piece.rows(_NEEDED)
    rows = rows.filter(_cheap_mask(rows, wanted, start, by_table))
    step = SLOW_STEP if wanted.text and by_table is None else STEP
    for begin in range(0, max(len(rows), 1), step):
        part = rows.slice(begin, step)
        if wanted.text and by_table is None:
            part = _with_stored_text(piece, part, wanted.text)
        rest = rows["index"][begin + step].as_py() if begin + step < len(rows) else following
        yield piece, part, rest


def _cheap_mask(rows: pa.Table, wanted: Wanted, start: int, numbers: np.ndarray | None) -> Any:
    mask = pc.greater_equal(rows["index"], start)
    if wanted.label is not None:
        mask = pc.and_(mask, pc.equal(rows["label"], wanted.label))
    if wanted.status:
        mask = pc.and_(mask, pc.equal(rows["status"], wanted.status))
    if wanted.score:
        mask = pc.and_(mask, _in_range(rows["scores"], wanted))
    if numbers is not None:
        mask = pc.and_(mask, pc.is_in(rows["index"], pa.array(numbers)))
    return mask


def _in_range(scores: pa.ChunkedArray, wanted: Wanted) -> Any:
    """Return which rows have the score between its limits: read by a pattern, forty times faster than JSON."""
    name = re.escape(json.dumps(wanted.score, ensure_ascii=False))
    fields = pc.extract_regex(scores, f"{name}: ?(?P<value>-?[0-9]+(?:\\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
    values = pc.struct_field(fields, "value").cast(pa.float64())
    inside = pc.and_(pc.greater_equal(values, wanted.low), pc.less_equal(values, wanted.high))
    return pc.fill_null(inside, False)


def _with_stored_text(piece: Piece, rows: pa.Table, text: str) -> pa.Table:
    rows = rows.filter(pc.equal(rows["status"], "ok"))
    texts = piece.texts(rows["txt_offset"].to_pylist(), rows["txt_size"].to_pylist()) if len(rows) else []
    return rows.filter(holds(pa.array(texts, pa.string()), text))
