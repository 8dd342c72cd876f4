"""The contact sheet of a dataset: a few images per class with their prompts, one self-contained HTML file.

In: a dataset folder with at least one finished shard. Out: ``preview.html``.
"""

import time
from html import escape
from pathlib import Path

from synclones.base.files import write_atomic
from synclones.base.json_file import parse_json
from synclones.base.page import SMALL_PX, data_uri, image_figure, image_row, page
from synclones.generate.plan import Plan
from synclones.generate.preview.findings import Extremes, clip_score, extremes, lost_table, lost_words, marked
from synclones.generate.preview.rate import rate_svg
from synclones.shards.index import shard_names
from synclones.shards.read import ShardFolder
from synclones.shards.schema import Sample, SampleRow

IMAGES_PER_CLASS = 12
MAX_CLASSES = 40
SHARDS_READ = 8
EVERY_S = 60.0
PREVIEW = "preview.html"
FACTS = ("model_name", "scheduler", "num_inference_steps", "guidance_scale", "drawn_px", "stored_px", "dtype", "seed")


def write_preview(folder: Path, plan: Plan, names: dict[str, str], shards: ShardFolder | None = None) -> None:
    """Write ``preview.html``; ``names`` maps class ids to names where they are known.

    ``shards``: where the pictures are read when the folder does not hold them itself.
    """
    shards = shards or ShardFolder(folder, plan.split)
    read = [row for shard in shards.shards[:SHARDS_READ] for row in shards.rows(shard)]
    groups, scored = _choose(read), extremes(read)
    sections = "".join(_section(shards, key, rows, names, scored.get(key)) for key, rows in groups[:MAX_CLASSES])
    finished = len(shards.shards) == plan.num_shards
    facts = ", ".join(f"{name.replace('_', ' ')} {getattr(plan, name)}" for name in FACTS)
    more = f" {len(groups)} classes in the shards read, {MAX_CLASSES} shown." if len(groups) > MAX_CLASSES else ""
    body = (
        f'<p class="facts">{escape(facts)}. Plan {plan.plan_id}.{more}{lost_words(read)}</p>',
        rate_svg(folder) if finished else "",
        _findings(shards, read, groups, names),
        sections,
    )
    write_atomic(folder / PREVIEW, page(f"{folder.name}: {_count(shards, plan)}", body, plan.stored_px < SMALL_PX))


class GrowingPreview:
    """Writes the contact sheet again while the job runs, when new shards are there, at most every ``every_s``."""

    def __init__(self, folder: Path, plan: Plan, names: dict[str, str], every_s: float = EVERY_S):
        self._folder, self._plan, self._names, self._every_s = folder, plan, names, every_s
        self._written, self._shards = time.monotonic(), 0

    def refresh(self) -> None:
        """Cheap when there is nothing to do."""
        if time.monotonic() - self._written < self._every_s:
            return
        self._written, count = time.monotonic(), len(shard_names(self._folder, self._plan.split))
        if count > self._shards:
            self._shards = count
            write_preview(self._folder, self._plan, self._names)


def _count(shards: ShardFolder, plan: Plan) -> str:
    if len(shards.shards) == plan.num_shards:
        return f"{shards.num_samples} images"
    return f"{shards.num_samples} images so far, {plan.num_samples} planned"


def _findings(
    shards: ShardFolder, read: list[SampleRow], groups: list[tuple[int, list[SampleRow]]], names: dict[str, str]
) -> str:
    """What the gates found: images that were kept with a mark, and rows without an image."""
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
    section = f"<h2>{escape(title)}</h2>{_row(shards, rows)}"
    if scored is None or not scored.best:
        return section
    best = f"<div><h3>Best CLIP scores</h3>{_row(shards, scored.best)}</div>"
    worst = f"<div><h3>Worst CLIP scores</h3>{_row(shards, scored.worst)}</div>"
    return f'{section}<div class="beside">{best}{worst}</div>'


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
