"""What the contact sheet says of the quality gates: best and worst CLIP scores, what was marked, what has no image.

In: rows of the shards that the sheet reads. Out: chosen rows, and HTML.
"""

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from typing import Any

from synclones.base.json_file import parse_json
from synclones.base.page import table
from synclones.shards.schema import SampleRow

SHOWN, MARKED_SHOWN, LOST_SHOWN = 6, 12, 20


@dataclass
class Extremes:
    """The rows of one label with the highest and the lowest CLIP scores, each sorted from the end it stands for."""

    best: list[SampleRow] = field(default_factory=list)
    worst: list[SampleRow] = field(default_factory=list)


def clip_score(row: SampleRow) -> float | None:
    """The CLIP score of a row, -1 to 1, or None where none was recorded."""
    found = (value for name, value in _recorded(row).items() if name.startswith("clip:"))
    return next((float(value) for value in found if type(value) in (int, float)), None)


def extremes(rows: Iterable[SampleRow]) -> dict[int, Extremes]:
    """Label -> its best and worst stored images; no label twice the same image, none without a score."""
    scored: dict[int, list[tuple[float, int, SampleRow]]] = {}
    for row in rows:
        score = clip_score(row) if row.status == "ok" else None
        if score is not None:
            scored.setdefault(row.label, []).append((score, row.index, row))
    found = {}
    for label, entries in scored.items():
        count = min(SHOWN, len(entries) // 2)
        best, worst = heapq.nlargest(count, entries), heapq.nsmallest(count, entries)
        found[label] = Extremes([row for _, _, row in best], [row for _, _, row in worst])
    return found


def marked(rows: Iterable[SampleRow]) -> list[SampleRow]:
    """The first stored images in which a gate found something."""
    return [row for row in rows if row.status == "ok" and row.reason][:MARKED_SHOWN]


def lost_words(rows: Iterable[SampleRow]) -> str:
    """How many planned images have none, and why; empty when all have one."""
    reasons = Counter(f"{row.status}: {row.reason}" for row in rows if row.status != "ok")
    told = ", ".join(f"{count} {escape(reason)}" for reason, count in reasons.most_common(5))
    return f" Without an image: {told}." if told else ""


def lost_table(rows: Iterable[SampleRow], names: dict[int, str]) -> str:
    """The first planned images that have none, with reason, attempts and scores; ``names`` by label."""
    lost = [row for row in rows if row.status != "ok"]
    if not lost:
        return ""
    rows_shown = [
        (f"#{row.index}", names.get(row.label, ""), row.status, row.reason, str(row.attempt + 1), _scores(row))
        for row in lost[:LOST_SHOWN]
    ]
    more = f", the first {LOST_SHOWN} of {len(lost)}" if len(lost) > LOST_SHOWN else ""
    head = ("image", "class", "status", "reason", "attempts", "scores")
    return f"<h3>Without an image{more}</h3>{table([[escape(text) for text in row] for row in rows_shown], head)}"


def _scores(row: SampleRow) -> str:
    return ", ".join(f"{name} {value}" for name, value in _recorded(row).items())


def _recorded(row: SampleRow) -> dict[str, Any]:
    """The scores of a row; none where they are no JSON object."""
    try:
        scores = parse_json(row.scores or "{}")
    except ValueError:
        return {}
    return scores if isinstance(scores, dict) else {}
