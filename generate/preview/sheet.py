"""The contact sheet of a dataset: a few images per class with their prompts, one self-contained HTML file.

In: a dataset folder with at least one finished shard. Out: ``preview.html``.
"""

import time
from collections import Counter
from html import escape
from pathlib import Path

from synclones.base.files import write_atomic
from synclones.base.json_file import parse_json
from synclones.base.page import SMALL_PX, data_uri, image_figure, image_row, page, table
from synclones.base.units import format_count
from synclones.generate.plan import Plan
from synclones.generate.preview.findings import Extremes, clip_score, extremes, lost_table, lost_words, marked
from synclones.generate.preview.rate import STYLE, rate_svg
from synclones.shards.index import shard_names
from synclones.shards.read import ShardFolder
from synclones.shards.schema import Sample, SampleRow

IMAGES_PER_CLASS = 12
MAX_CLASSES = 40
SHARDS_READ = 8
EVERY_S = 60.0
PREVIEW = "preview.html"
JUMPS = 6
"""Classes that are found without a list of links."""


def write_preview(folder: Path, plan: Plan, names: dict[str, str], shards: ShardFolder | None = None) -> None:
    """Write ``preview.html``; ``names`` maps class ids to names where they are known.

    Args:
        shards: where the images are read when the folder does not hold them itself.
    """
    shards = shards or ShardFolder(folder, plan.split)
    read = [row for shard in shards.shards[:SHARDS_READ] for row in shards.rows(shard)]
    groups, scored = _choose(read), extremes(read)
    shown = groups[:MAX_CLASSES]
    sections = "".join(_section(shards, key, rows, names, scored.get(key)) for key, rows in shown)
    finished = len(shards.shards) == plan.num_shards
    more = f" {len(groups)} classes in the shards read, {MAX_CLASSES} shown." if len(groups) > MAX_CLASSES else ""
    notes = f"{more}{lost_words(read)}".strip()
    # Images first; how fast they were drawn is what a reader asks last.
    body = (
        f'<p class="facts">{notes}</p>' if notes else "",
        _jumps(shards, shown, names),
        _findings(shards, read, groups, names),
        sections,
        _facts(plan, read, len(shards.shards) <= SHARDS_READ),
        rate_svg(folder) if finished else "",
    )
    title = f"{folder.name}: {_count(shards, plan)}"
    write_atomic(folder / PREVIEW, page(title, body, plan.stored_px < SMALL_PX, STYLE))


class GrowingPreview:
    """Writes the contact sheet again while the job runs, when there are new shards, at most every ``every_s``."""

    def __init__(self, folder: Path, plan: Plan, names: dict[str, str], every_s: float = EVERY_S):
        self._folder, self._plan, self._names, self._every_s = folder, plan, names, every_s
        self._written, self._shards = time.monotonic(), 0

    def refresh(self) -> None:
        """Write the sheet when it is due; cheap otherwise."""
        if time.monotonic() - self._written < self._every_s:
            return
        self._written, count = time.monotonic(), len(shard_names(self._folder, self._plan.split))
        if count > self._shards:
            self._shards = count
            write_preview(self._folder, self._plan, self._names)


def _count(shards: ShardFolder, plan: Plan) -> str:
    if len(shards.shards) == plan.num_shards:
        return format_count(shards.num_samples, "image")
    return f"{shards.num_samples} images so far, {plan.num_samples} planned"


def _facts(plan: Plan, read: list[SampleRow], all_read: bool) -> str:
    """Return how the images are drawn and how evenly they are spread, with links to what says more."""
    counts = Counter(row.label for row in read if row.status == "ok" and row.label >= 0)
    few, most = min(counts.values(), default=0), max(counts.values(), default=0)
    per_class = f"{few:,}" if few == most else f"{few:,} to {most:,}"
    of_read = "" if all_read else f" in the first {SHARDS_READ} shards"
    megabytes = sum(row.nbytes for row in read) / 1e6
    rows = [
        ("generator", escape(plan.model_name)),
        ("sampling", escape(f"{plan.scheduler}, {plan.num_inference_steps} steps, guidance {plan.guidance_scale:g}")),
        ("size", f"drawn at {plan.drawn_px} px, stored at {plan.stored_px} px"),
        ("number format, seed", f"{escape(plan.dtype)}, {plan.seed}"),
        ("images", f"{sum(row.status == 'ok' for row in read):,}{of_read}, {megabytes:,.1f} MB"),
        *([("of each class", f"{per_class}{of_read}")] if counts else []),
        ("all else", f'<a href="README.md">data card</a>, <a href="plan.json">plan {escape(plan.plan_id)}</a>'),
    ]
    return f"<h3>How these were drawn</h3>{table(rows, first='th')}"


def _jumps(shards: ShardFolder, groups: list[tuple[int, list[SampleRow]]], names: dict[str, str]) -> str:
    """Return links to the classes, where there are more than one sees."""
    if len(groups) <= JUMPS:
        return ""
    links = (
        f'<a href="#class{label}">{escape(_title(shards.get(rows[0].index), label, names))}</a>'
        for label, rows in groups
        if rows
    )
    return f'<nav class="jumps" aria-label="classes">{" ".join(links)}</nav>'


def _findings(
    shards: ShardFolder, read: list[SampleRow], groups: list[tuple[int, list[SampleRow]]], names: dict[str, str]
) -> str:
    """Return what the gates have found: images that were kept with a mark, and rows without an image."""
    titles = {label: _title(shards.get(rows[0].index), label, names) for label, rows in groups if rows}
    kept = marked(read)
    marks = f"<h3>Marked by the quality gates</h3>{_row(shards, kept)}" if kept else ""
    return marks + lost_table(read, titles)


def _choose(read: list[SampleRow]) -> list[tuple[int, list[SampleRow]]]:
    """The first images of each label in the rows read, labels in order."""
    groups: dict[int, list[SampleRow]] = {}
    for row in read:
        chosen = groups.setdefault(row.label, [])
        if row.status == "ok" and len(chosen) < IMAGES_PER_CLASS:
            chosen.append(row)
    return sorted(groups.items())


def _section(
    shards: ShardFolder, label: int, rows: list[SampleRow], names: dict[str, str], scored: Extremes | None
) -> str:
    if not rows:
        return ""
    title = _title(shards.get(rows[0].index), label, names)
    section = f'<section id="class{label}"><h2>{escape(title)}</h2>{_row(shards, rows)}'
    if scored is None or not scored.best:
        return f"{section}</section>"
    best = f"<div><h3>Best CLIP scores</h3>{_row(shards, scored.best)}</div>"
    worst = f"<div><h3>Worst CLIP scores</h3>{_row(shards, scored.worst)}</div>"
    return f'{section}<div class="beside">{best}{worst}</div></section>'


def _title(sample: Sample, label: int, names: dict[str, str]) -> str:
    class_id = _class_id(sample)
    return f"{label} {names.get(class_id, class_id)}" if label >= 0 else "unlabelled"


def _row(shards: ShardFolder, rows: list[SampleRow]) -> str:
    return image_row(_figure(shards.get(row.index), clip_score(row)) for row in rows)


def _class_id(sample: Sample) -> str:
    try:
        facts = parse_json(sample.json)
    except ValueError:
        return ""
    return str(facts.get("class_id", "")) if isinstance(facts, dict) else ""


def _figure(sample: Sample, score: float | None) -> str:
    tip = f"index {sample.index}, seed {sample.seed}, attempt {sample.attempt}"
    facts = [fact for fact in ("" if score is None else f"CLIP {score:.4f}", sample.reason) if fact]
    return image_figure(data_uri(sample.jpg), sample.txt, tip, ", ".join(facts), f"#{sample.index}")
