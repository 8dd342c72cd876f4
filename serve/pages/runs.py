"""Training runs side by side: where each stands, its curves, and in which settings they differ.

In: run folders, finished or not. Out: HTML.
"""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError
from synclones.base.json_file import read_json
from synclones.base.manifest import read_manifest
from synclones.base.page import table
from synclones.base.resume import CONFIG, by_settings
from synclones.base.yaml_file import read_yaml
from synclones.serve.folders import LOG, Folder, Folders
from synclones.serve.pages.curves import curve, key
from synclones.serve.pages.frame import (
    HOME,
    Parameters,
    Shown,
    command,
    folder_link,
    framed,
    is_below,
    made_from,
    renewing,
)
from synclones.shards.index import PLAN
from synclones.train.progress import logged

MOST_RUNS, MOST_FIGURES = 18, 60
NO_CURVE = ("step", "samples")
LAST = ("learning_rate", "gradient_norm")


def runs_page(runs: Sequence[Folder], folders: Folders, parameters: Parameters) -> Shown:
    """Return the page of one run or of several; ``parameters``: of its address.

    Raises:
        InputError: too many were chosen.
        VerificationError: the log of one is no file.
    """
    if len(runs) > MOST_RUNS:
        raise InputError(f"folder: {len(runs)} runs were chosen, at most {MOST_RUNS} fit into a figure")
    logs = {run.name: logged(run.path / LOG) if (run.path / LOG).exists() else [] for run in runs}
    manifests = {run.name: _manifest(run.path) for run in runs}
    unfinished = [run for run in runs if not manifests[run.name]]
    note, refresh = _unfinished(unfinished, parameters) if unfinished else ("", "")
    lines = [_line(run, logs[run.name], manifests[run.name]) for run in runs]
    states = table(lines, ("run", "state", "last numbers"), first="th")
    origin = made_from(runs[0], folders) if len(runs) == 1 else ""
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} training runs"
    return Shown(framed(title, [note, states, _curves(runs, logs), _settings(runs), origin], [HOME]), refresh)


def _manifest(run: Path) -> dict[str, Any]:
    try:
        return read_manifest(run)
    except InputError:
        return {}


def _unfinished(runs: Sequence[Folder], parameters: Parameters) -> tuple[str, str]:
    """Return which runs are not finished and how they go on, and when their page is asked for again."""
    resumed = "".join(command(*words) for words in (by_settings(["train"], run.path) for run in runs) if words)
    go_on = f"<p>If nothing trains any more, this goes on:</p>{resumed}" if resumed else ""
    note, refresh = renewing(f"Unfinished: {', '.join(run.name for run in runs)}.", parameters)
    return note + go_on, refresh


def _line(run: Folder, log: list[dict[str, float]], manifest: dict[str, Any]) -> list[str]:
    last: dict[str, float] = {}
    for record in log[-20:]:  # what is validated now and then has lines of its own
        last |= record
    seen = last.get("samples", 0)
    state = f"{'finished' if manifest else 'unfinished'}, {seen:,} images seen" if log else "nothing logged so far"
    numbers = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in last.items() if name not in NO_CURVE)
    return [folder_link(run), escape(state), escape(numbers)]


def _curves(runs: Sequence[Folder], logs: dict[str, list[dict[str, float]]]) -> str:
    names = {name for log in logs.values() for record in log for name in record}
    ordered = sorted(
        names - {*NO_CURVE}, key=lambda name: (name in LAST, "loss" not in name, "accuracy" not in name, name)
    )
    drawn = []
    for name in ordered[:MOST_FIGURES]:
        lines = {run: _points(log, name) for run, log in logs.items()}
        drawn.append(curve(name.replace("_", " "), lines, "images seen"))
    if not any(drawn):
        return ""
    whose = key([folder_link(run) for run in runs]) if len(runs) > 1 else ""
    return f'<h2>Curves</h2>{whose}<div class="curves">{"".join(drawn)}</div>'


def _points(log: list[dict[str, float]], name: str) -> list[tuple[float, float]]:
    """Return (images seen, value) of each line that has the value; where images are not counted, steps are."""
    points = [(float(record.get("samples", record["step"])), float(record[name])) for record in log if name in record]
    return [(x, y) for x, y in points if math.isfinite(x) and x >= 0]


def _settings(runs: Sequence[Folder]) -> str:
    """Return the settings of one run, or those in which several differ."""
    settings = [_stated(run.path) for run in runs]
    names = list(dict.fromkeys(name for each in settings for name in each))
    if len(runs) > 1:
        names = [name for name in names if len({str(each.get(name)) for each in settings}) > 1]
    lines = [[escape(name), *(escape(str(each.get(name, ""))) for each in settings)] for name in names]
    if not lines:
        return ""
    title = "Settings" if len(runs) == 1 else "Settings in which they differ"
    return f"<h2>{title}</h2>{table(lines, ('', *(run.name for run in runs)), first='th')}"


def _stated(run: Path) -> dict[str, Any]:
    """Return the settings that a run was started with, else what its plan states."""
    given, planned = run / CONFIG, run / PLAN
    try:
        stated = read_yaml(given) if is_below(given, run) else {}
    except (InputError, OSError):
        stated = {}
    if stated:
        return {name: value.plain() for name, value in stated.items() if value.plain() not in ("", None)}
    try:
        plan = read_json(planned) if is_below(planned, run) else {}
    except (ValueError, OSError):
        return {}
    return plan if isinstance(plan, dict) else {}
