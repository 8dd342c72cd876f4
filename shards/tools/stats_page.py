"""The page of a set's statistics: a table of all classes with bars, histograms, reasons, captions that repeat.

In: counted `Stats`. Out: one self-contained HTML page in the style of the others, for any width.
"""

from collections import Counter
from html import escape

import numpy as np

from synclones.base.page import page, table
from synclones.base.units import format_count, format_set
from synclones.shards.tools.counting import Stats, histogram

MAX_CLASSES, MAX_REASONS, MAX_SIDES = 1000, 50, 10
_WIDTH, _HEIGHT, _LEFT, _BASE, _TOP = 330, 150, 8, 124, 16


def stats_page(made: Stats) -> bytes:
    """Return the page."""
    unfinished = f" Unfinished: {made.unfinished}." if made.unfinished else ""
    facts = (
        f"{format_count(made.num_planned, 'sample')} planned, {format_set(made.num_images, made.num_shards)}, "
        f"{made.image_bytes.sum() / 1e6:.1f} MB of JPEG.{unfinished}"
    )
    body = (
        f'<p class="facts">{escape(facts)}</p>',
        "<h2>Samples</h2>",
        _statuses(made),
        "<h2>Images</h2>",
        _images(made),
        _scores(made),
        "<h2>Captions</h2>",
        _captions(made),
        _classes(made),
    )
    return page(f"{made.name}: statistics", body)


def _statuses(made: Stats) -> str:
    """Every status with its reasons below it."""
    rows = []
    for status in ("ok", "failed", "dropped"):
        rows.append([f"<b>{status}</b>", "", f"{made.statuses[status]}"])
        reasons = [(reason, n) for (of, reason), n in made.reasons.most_common(MAX_REASONS) if of == status]
        rows += [["", escape(reason), f"{number}"] for reason, number in reasons]
    return table(rows, ("status", "reason", "samples"))


def _images(made: Stats) -> str:
    if not made.num_images:
        return "<p>None.</p>"
    sides = made.sides.most_common(MAX_SIDES)
    rows = [[f"{width} x {height}" if width else "not stated", f"{number}"] for (width, height), number in sides]
    more = (
        f"<p>{len(made.sides)} sizes, the {MAX_SIDES} most frequent are shown.</p>"
        if len(made.sides) > MAX_SIDES
        else ""
    )
    figure = histogram_svg(made.image_bytes / 1000, "kB of an image")
    return f'<div class="figures">{figure}</div>{table(rows, ("pixels", "images"), numbers=True)}{more}'


def _scores(made: Stats) -> str:
    if not made.scores:
        return ""
    figures = "".join(histogram_svg(values, name) for name, values in made.scores.items())
    note = '<p class="note">Of all rows with the score, images that were dropped for it included.</p>'
    return f'<h2>Scores</h2><div class="figures">{figures}</div>{note}'


def _captions(made: Stats) -> str:
    shared = f"{made.images_repeating} images share theirs with another image"
    text = f"<p>{made.num_captions} different captions; {shared}.</p>"
    rows = [[escape(caption[:300]), f"{number}"] for caption, number in made.repeated.items()]
    return text + (table(rows, ("most frequent", "images"), numbers=True) if rows else "")


def _classes(made: Stats) -> str:
    """Return the table of classes, each with a bar as long as its share of the largest one."""
    if set(made.classes) <= {-1}:
        return ""
    counts = {label: made.per_class.get(label, Counter[str]()) for label in made.classes}
    most = max(1, *(count["ok"] for count in counts.values()))
    rows = []
    for label, count in list(counts.items())[:MAX_CLASSES]:
        name = "unlabelled" if label < 0 else f"{label} {made.classes[label]}"
        lost = ", ".join(f"{count[status]} {status}" for status in ("failed", "dropped") if count[status])
        rows.append([escape(name), f"{count['ok']}", _bar(count["ok"] / most), lost])
    more = f"<p>{len(counts)} classes, the first {MAX_CLASSES} are shown.</p>" if len(counts) > MAX_CLASSES else ""
    return f"<h2>Classes</h2>{more}{table(rows, ('class', 'images', '', 'missing'))}"


def _bar(share: float) -> str:
    return (
        '<svg width="80" height="12" aria-hidden="true">'
        f'<rect width="{max(share, 0) * 80:.1f}" height="12" style="fill:var(--c0)" fill-opacity=".6"/></svg>'
    )


def histogram_svg(values: np.ndarray, label: str) -> str:
    """Return a histogram as SVG, with its range at the axis and the highest count above."""
    counts, _ = histogram(values)
    most, width = max(1, int(counts.max())), (_WIDTH - 2 * _LEFT) / len(counts)
    bars = "".join(
        f'<rect x="{_LEFT + number * width:.1f}" y="{_BASE - (_BASE - _TOP) * count / most:.1f}" '
        f'width="{max(width - 1, 0.5):.1f}" height="{(_BASE - _TOP) * count / most:.1f}"/>'
        for number, count in enumerate(counts.tolist())
        if count
    )
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    words = f"{label}: {len(values)} values from {low} to {high}"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(words, quote=True)}" '
        f'font-size="12"><title>{escape(label)}</title><g style="fill:var(--c0)" fill-opacity=".6">{bars}</g>'
        f'<path d="M{_LEFT} {_BASE} H{_WIDTH - _LEFT}" style="stroke:var(--soft)"/>'
        f'<text x="{_LEFT}" y="11">up to {most} images</text>'
        f'<text x="{_LEFT}" y="{_BASE + 13}">{low}</text>'
        f'<text x="{_WIDTH / 2}" y="{_BASE + 24}" text-anchor="middle">{escape(label[:50])}</text>'
        f'<text x="{_WIDTH - _LEFT}" y="{_BASE + 13}" text-anchor="end">{high}</text></svg>'
    )
