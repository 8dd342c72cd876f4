"""How the report of a grid says things: numbers with their spread, differences, and the verdict in two sentences.

In: a `Study`. Out: text without markup; names in it are as somebody else chose them, and are escaped where written.
"""

from collections.abc import Iterable

from synclones.ablate.arms import Arm, Pair, size_axis, size_of
from synclones.ablate.columns import Column
from synclones.ablate.comparisons import Difference, Spread, verdict
from synclones.ablate.study import Study

NONE = "–"


def value(fraction: float) -> str:
    """Return a fraction in percent or points, with one decimal."""
    return f"{100 * fraction:.1f}"


def signed(fraction: float) -> str:
    """Return a difference in points, with its sign."""
    return f"{100 * fraction:+.1f}".replace("-", "\N{MINUS SIGN}")


def spread(own: Spread | None) -> str:
    """Return mean and half of the t interval; of one training the mean alone."""
    if own is None:
        return NONE
    return value(own.mean) + ("" if own.half is None else f" ± {value(own.half)}")


def beside(arm: Arm, column: Column) -> str:
    """Return the interval of a single training, and the paper's value and how far ours is from it, where known."""
    paper, own = arm.paper.get(column.name), arm.spread(column.name)
    interval = arm.interval(column.name) if own is not None and own.half is None else None
    parts = [] if interval is None else [f"{value(interval[0])} to {value(interval[1])}"]
    if paper is not None:
        parts.append(f"paper {value(paper)}" + ("" if own is None else f", {signed(own.mean - paper)}"))
    return "; ".join(parts)


def heading(column: Column) -> str:
    """Return a column's heading with its direction and unit."""
    return f"{column.heading} {column.arrow}, {column.unit}"


def difference(pair: Pair) -> str:
    """Return a difference with its interval in points; the reason where it is not known."""
    item = pair.difference
    if isinstance(item, str):
        return item
    if item.p is None:
        return f"{signed(item.value)}, nothing varies"
    return f"{signed(item.value)} ({signed(item.low)} to {signed(item.high)})"


def said(pair: Pair) -> str:
    """Return what may be said of a difference."""
    item = pair.difference
    if isinstance(item, str):
        return "cannot be told"
    word = verdict(item, pair.adjusted)
    return f"{word} (these trainings)" if item.seeds == 1 and word != "cannot be told" else word


def counted(items: Iterable[str]) -> dict[str, int]:
    """Return how often each text is there, in the order of their first."""
    counts: dict[str, int] = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return counts


def verdict_of(study: Study) -> str:
    """Return two sentences: how much is measured and what is best; what holds, and how far from the paper it is."""
    return f"{_first(study)} {_second(study)}"


def _first(study: Study) -> str:
    total = len(study.results.cells)
    if not study.measured:
        return f"None of {total} trainings is measured yet."
    start = "All" if study.measured == total else f"{study.measured} of"
    opening = f"{start} {total} trainings are measured"
    column = study.columns[0]
    ranked = [(own.mean, arm) for arm in study.arms if (own := arm.spread(column.name)) is not None]
    if not ranked:
        return f"{opening}; none has the column {column.heading}."
    best = max(ranked, key=lambda item: column.sign() * item[0])[1]
    compared = [pair for pair in study.pairs if pair.column is column and best in (pair.first, pair.second)]
    clear = sum(said(pair).startswith("differs") for pair in compared)
    apart = f", told apart from {clear} of the {len(compared)} that differ from it in one axis" if compared else ""
    shown = f"{spread(best.spread(column.name))} {column.unit}"
    return f"{opening}; the best {column.heading} is that of {best.sentence_name}, {shown}{apart}."


def _second(study: Study) -> str:
    if study.sentences:
        counts = counted(item.answer for item in study.sentences)
        parts = [f"{counts[answer]} {_plural(answer, counts[answer])}" for answer in _ANSWERS if answer in counts]
        opening = f"Of {len(study.sentences)} observations of papers {_list(parts)}"
    else:
        known = [pair for pair in study.pairs if pair.column is study.columns[0]]
        apart = sum(
            isinstance(p.difference, Difference) and verdict(p.difference, p.adjusted) == "differs" for p in known
        )
        opening = f"Of {len(known)} comparisons in {study.columns[0].heading} {apart} differ by more than the noise"
    gap = distance(study, study.columns[0])
    if gap is None:
        return f"{opening}."
    way = "above" if gap > 0 else "below"
    heading = study.columns[0].heading
    return f"{opening}; {heading} is {value(abs(gap))} points {way} the paper's on the mean over its cells."


_ANSWERS = ("holds", "does not hold", "cannot be told")


def _plural(answer: str, count: int) -> str:
    return answer if count == 1 else {"holds": "hold", "does not hold": "do not hold"}.get(answer, answer)


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def distance(study: Study, column: Column) -> float | None:
    """Return the mean of ours less the paper's over the cells that both have; None where there is none."""
    gaps = [
        own.mean - arm.paper[column.name]
        for arm in study.arms
        if column.name in arm.paper and (own := arm.spread(column.name)) is not None
    ]
    return sum(gaps) / len(gaps) if gaps else None


def facts(study: Study) -> list[str]:
    """Return what a reader knows first: the question, who asked it, in which world and at which scale it was run."""
    results = study.results
    size, axis = f"scale {results.scale}", size_axis(results)
    if axis in results.scaled and results.scale != 1:  # a row says 1M, as in the paper
        size += ": " + ", ".join(f"{name} is {size_of(results, name):,.0f} here" for name in results.axes[axis])
    source = f"Source: {results.source}" if results.source else ""
    return [fact for fact in (results.question, source, f"world {results.world}, {size}", *results.notes) if fact]


def noise_note(study: Study) -> str:
    """Return what the intervals are about."""
    if study.results.seeds > 1:
        return (
            f"Mean of {study.results.seeds} trainings ± half the 95 % t interval over them, on the same test images. "
            "Differences count the choice of test images as well."
        )
    return (
        "One training each: intervals are over test images alone, and a training with another seed varies as well, so "
        "that nothing here tells kinds of data apart, only these trainings."
    )


def missing(study: Study) -> dict[str, list[str]]:
    """Return why numbers are missing -> of which arms, each with its columns unless it lacks all."""
    reasons: dict[str, list[str]] = {}
    for arm in study.arms:
        of_arm: dict[str, list[str]] = {}
        for column in study.columns:
            if column.name in arm.missing:
                of_arm.setdefault(arm.missing[column.name], []).append(column.heading)
        for reason, headings in of_arm.items():
            columns = "" if len(headings) == len(study.columns) else f" ({', '.join(headings)})"
            reasons.setdefault(reason, []).append(arm.name + columns)
    return reasons
