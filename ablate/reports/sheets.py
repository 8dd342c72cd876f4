"""Contact sheets: a few images of every set that a grid trained on, with their prompts, as figures of a page.

In: the `Cell.images` of a grid. Out: HTML. What cannot be read is said and shown as missing.
"""

from html import escape
from pathlib import Path

from synclones.ablate.arms import Arm
from synclones.base.errors import SynclonesError
from synclones.base.page import data_uri, image_figure, image_row
from synclones.shards.read import ShardFolder
from synclones.shards.schema import Sample

IMAGES = 8
MOST_SHEETS = 16
MOST_BYTES = 400_000
"""Of one image: a report stays a file that can be sent."""
_MAGIC = {b"\xff\xd8\xff": "jpeg", b"\x89PNG": "png", b"RIFF": "webp"}


def section(kinds: dict[str, list[Arm]]) -> str:
    """Return a sheet per kind of data and set of images; nothing where no cell says what it was trained on."""
    sheets, shown = [], set[Path]()
    for kind, arms in kinds.items():
        for name, folder in _sets(arms).items():
            if folder not in shown and len(sheets) < MOST_SHEETS:
                shown.add(folder)
                sheets.append(_sheet(f"{kind}: {name}", folder))
    if not sheets:
        return ""
    return (
        f"<h2>What the images look like</h2><p>The first {IMAGES} images of different classes of each set, with their "
        f"prompts.</p>{''.join(sheets)}"
    )


def _sets(arms: list[Arm]) -> dict[str, Path]:
    """Return the sets of images of the last arm that has some: it has the most."""
    for arm in reversed(arms):
        for cell in arm.cells:
            if cell.images:
                return cell.images
    return {}


def _sheet(title: str, folder: Path) -> str:
    try:
        samples = first_samples(folder)
    except (SynclonesError, OSError) as error:
        return f'<h3>{escape(title)}</h3><p class="note">cannot be shown: {escape(str(error))}</p>'
    figures = [_figure(sample) for sample in samples]
    left = sum(len(sample.jpg) > MOST_BYTES for sample in samples)
    note = f'<p class="note">{left} of them are too large to be shown here.</p>' if left else ""
    return f"<h3>{escape(title)}</h3>{image_row(f for f in figures if f)}{note}"


def first_samples(folder: Path) -> list[Sample]:
    """Return the first samples of the first shard, of as many different classes as there are, `IMAGES` at most.

    Raises:
        SynclonesError: the folder cannot be read.
    """
    shards = ShardFolder(folder)
    rows = [row for row in shards.rows(shards.shards[0]) if row.status == "ok"]
    # One of each class first, then the next ones.
    seen: dict[int, int] = {}
    ranked = []
    for row in rows:
        seen[row.label] = seen.get(row.label, -1) + 1
        ranked.append((seen[row.label], row.index))
    return [shards.get(index) for _, index in sorted(ranked)[:IMAGES]]


def _figure(sample: Sample) -> str:
    kind = next((kind for magic, kind in _MAGIC.items() if sample.jpg.startswith(magic)), None)
    if kind is None or len(sample.jpg) > MOST_BYTES:
        return ""
    text = sample.txt if len(sample.txt) <= 60 else f"{sample.txt[:59]}…"
    return image_figure(data_uri(sample.jpg, kind), text, sample.txt, number=str(sample.index))
