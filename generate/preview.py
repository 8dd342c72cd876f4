"""The contact sheet of a dataset: a few images per class with their prompts, one self-contained HTML file.

In: a dataset folder with at least one finished shard. Out: ``preview.html``.
"""

import base64
import json
import time
from collections import Counter
from html import escape
from pathlib import Path

from synclones.generate.plan import Plan
from synclones.manifest import write_atomic
from synclones.shards.index import shard_names
from synclones.shards.read import Row, ShardFolder
from synclones.shards.schema import Sample

IMAGES_PER_CLASS = 12
MAX_CLASSES = 40
SHARDS_READ = 8
EVERY_S = 60.0
FACTS = ("model_name", "scheduler", "num_inference_steps", "guidance_scale", "drawn_px", "stored_px", "dtype", "seed")

_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1280px;padding:0 1rem}
body{color:#1c1c1f;background:#fafaf8}
h1{font-size:1.4rem;margin:0}p.facts{color:#666;margin:.3rem 0 1.6rem}h2{font-size:1rem;margin:1.4rem 0 .5rem}
.row{display:grid;grid-template-columns:repeat(12,1fr);gap:10px}
figure{margin:0}img{width:100%;aspect-ratio:1;image-rendering:auto;border-radius:4px;display:block;background:#ddd}
figcaption{font-size:11px;line-height:1.3;color:#555;margin-top:3px;overflow-wrap:anywhere}
figcaption b{font-weight:400;color:#999}
"""


def write_preview(folder: Path, plan: Plan, names: dict[str, str]) -> None:
    """Write ``preview.html``; ``names`` maps class ids to names where they are known."""
    shards = ShardFolder(folder, plan.split)
    groups = _choose(shards)
    sections = "".join(_section(shards, key, rows, names) for key, rows in groups[:MAX_CLASSES])
    facts = ", ".join(f"{name.replace('_', ' ')} {getattr(plan, name)}" for name in FACTS)
    more = f" {len(groups)} classes in the shards read, {MAX_CLASSES} shown." if len(groups) > MAX_CLASSES else ""
    pixelated = "img{image-rendering:pixelated}" if plan.stored_px < 94 else ""
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(folder.name)}</title>'
        f"<style>{_STYLE}{pixelated}</style><h1>{escape(folder.name)}: {_count(shards, plan)}</h1>"
        f'<p class="facts">{escape(facts)}. Plan {plan.plan_id}.{more}{_lost(shards)}</p>{sections}</html>\n'
    )
    write_atomic(folder / "preview.html", page.encode())


class GrowingPreview:
    """Writes the contact sheet again while the job runs, when new shards are there, at most every ``every_s``."""

    def __init__(self, folder: Path, plan: Plan, names: dict[str, str], every_s: float = EVERY_S):
        self._folder, self._plan, self._names, self._every_s = folder, plan, names, every_s
        self._written, self._shards = time.monotonic(), 0

    def look(self) -> None:
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


def _lost(shards: ShardFolder) -> str:
    """How many pictures of the shards read have no image, and why."""
    rows = (row for shard in shards.shards[:SHARDS_READ] for row in shards.rows(shard) if row["status"] != "ok")
    reasons = Counter(f"{row['status']}: {row['reason']}" for row in rows)
    told = ", ".join(f"{count} {escape(reason)}" for reason, count in reasons.most_common(5))
    return f" Without an image: {told}." if told else ""


def _choose(shards: ShardFolder) -> list[tuple[int, list[Row]]]:
    """The first images of each label in the first shards, labels in order."""
    groups: dict[int, list[Row]] = {}
    for shard in shards.shards[:SHARDS_READ]:
        for row in shards.rows(shard):
            chosen = groups.setdefault(row["label"], [])
            if row["status"] == "ok" and len(chosen) < IMAGES_PER_CLASS:
                chosen.append(row)
    return sorted(groups.items())


def _section(shards: ShardFolder, label: int, rows: list[Row], names: dict[str, str]) -> str:
    samples = [shards.get(row["index"]) for row in rows]
    if not samples:
        return ""
    class_id = _class_id(samples[0])
    name = names.get(class_id, class_id)
    title = f"{label} {name}" if name != class_id else f"{label} {class_id}"
    heading = f"<h2>{escape(title)}</h2>" if label >= 0 else "<h2>unlabelled</h2>"
    return f'{heading}<div class="row">{"".join(_figure(sample) for sample in samples)}</div>'


def _class_id(sample: Sample) -> str:
    return str(json.loads(sample.json).get("class_id", ""))


def _figure(sample: Sample) -> str:
    data = base64.b64encode(sample.jpg).decode()
    tip = escape(f"index {sample.index}, seed {sample.seed}, attempt {sample.attempt}", quote=True)
    text = escape(sample.txt, quote=True)
    return (
        f'<figure title="{tip}"><img src="data:image/jpeg;base64,{data}" alt="{text}">'
        f"<figcaption>{text} <b>#{sample.index}</b></figcaption></figure>"
    )
