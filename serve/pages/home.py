"""The first page: every folder that is looked at, with how far it is.

In: `Folders`. Out: HTML; of each folder no more is read than its manifest, or how many of its shards are complete.
"""

from html import escape
from typing import Any

from synclones.base.errors import InputError, SynclonesError
from synclones.base.manifest import read_manifest
from synclones.base.page import table
from synclones.base.units import format_count
from synclones.evaluate.stored.results import CELL_NAME
from synclones.serve.folders import LOG, RESULTS, RUN, SET, Folder, Folders
from synclones.serve.pages.frame import ADDRESSES, folder_link, framed
from synclones.shards.unfinished import how_far, is_unfinished
from synclones.train.progress import last_logged

TITLES = {SET: "Sets of images", RUN: "Training runs", RESULTS: "Results of evaluations"}


def home_page(folders: Folders) -> bytes:
    """Return the page of all folders; runs and results can be chosen to stand side by side."""
    body = "".join(_section(kind, title, folders.of_kind(kind)) for kind, title in TITLES.items())
    return framed("synclones", [body or "<p>The folders are empty now.</p>"])


def _section(kind: str, title: str, folders: list[Folder]) -> str:
    if not folders:
        return ""
    lines = [_line(folder, len(folders) > 1 and kind != SET) for folder in folders]
    if kind == SET or len(folders) == 1:
        return f"<h2>{title}</h2>{table(lines, first='th')}"
    button = "<p><button>Show the chosen ones side by side</button></p>"
    return f'<h2>{title}</h2><form action="{ADDRESSES[kind]}">{table(lines, first="th")}{button}</form>'


def _line(folder: Folder, is_chosen: bool) -> list[str]:
    name = escape(folder.name, quote=True)
    box = f'<input type="checkbox" name="folder" value="{name}" aria-label="choose {name}">' if is_chosen else ""
    first = f'<span class="pick">{box}{folder_link(folder)}</span>'
    try:
        state, when = _state(folder)
    except (SynclonesError, OSError) as error:
        return [first, f'<span class="warning">{escape(str(error))}</span>', ""]
    return [first, escape(state), f'<td class="when">{escape(when)}</td>']


def _state(folder: Folder) -> tuple[str, str]:
    """Return how far a folder is and when it was finished, in words."""
    try:
        manifest = read_manifest(folder.path)
    except InputError:
        manifest = {}
    counts, when = manifest.get("counts", {}), str(manifest.get("written", ""))[:16].replace("T", " ")
    if folder.kind == RESULTS:
        numbers = sum(bool(CELL_NAME.fullmatch(path.name)) for path in folder.path.glob("*.json"))
        return f"{numbers:,} numbers" if numbers else "no numbers so far", when
    if folder.kind == RUN:
        return _run_state(folder, manifest), when
    if is_unfinished(folder.path):
        return f"unfinished: {how_far(folder.path)}", ""
    lost = [f"{_count(counts, status):,} {status}" for status in ("failed", "dropped") if _count(counts, status)]
    images = format_count(_count(counts, "ok"), "image") if "ok" in counts else how_far(folder.path)
    return ", ".join([images, *lost]), when


def _count(counts: dict[str, Any], name: str) -> int:
    value = counts.get(name)
    return value if type(value) is int else 0


def _run_state(folder: Folder, manifest: dict[str, Any]) -> str:
    lines = last_logged(folder.path / LOG) if (folder.path / LOG).is_file() else []
    last = {name: value for line in lines for name, value in line.items()}
    words = [f"{name} {last[name]:.4g}" for name in ("loss", "accuracy") if name in last]
    begin = [] if manifest else ["unfinished"]
    return ", ".join([*begin, f"{last.get('samples', 0):,} images seen", *words])
