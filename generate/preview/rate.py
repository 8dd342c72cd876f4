"""Images per second over the time of a generation, all processes together, as a small SVG for the contact sheet.

In: the logs of a dataset folder. Out: SVG text. What a killed process had drawn since its last shard is not counted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synclones.base.units import format_duration
from synclones.generate.progress import read_events

MOST_BINS, EVENTS_PER_BIN = 120, 3  # shards end in lumps
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 120, 44, 18
STYLE = "svg.rate{width:640px;max-width:100%;display:block;font-size:12px}"


def rate_svg(folder: Path) -> str:
    """Return the figure; empty when the logs have no finished shard."""
    runs = [run for events in read_events(folder) for run in _runs(events)]
    if not runs:
        return ""
    rates, seconds = rate_over_time(runs)
    return _draw(rates, seconds) if seconds > 0 and rates.max() > 0 else ""


def rate_over_time(runs: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """Return (images per second in each of equal stretches of time, their length together in seconds).

    Args:
        runs: for each start of a process float64[n, 2] of times in seconds and images drawn until then.
    """
    first, last = min(run[0, 0] for run in runs), max(run[-1, 0] for run in runs)
    bins = min(MOST_BINS, max(4, sum(len(run) for run in runs) // EVENTS_PER_BIN))
    edges = np.linspace(first, last, bins + 1)
    drawn = sum(np.interp(edges, run[:, 0], run[:, 1]) for run in runs)
    width = max((last - first) / bins, 1e-9)
    return np.diff(drawn) / width, float(last - first)


def _runs(events: list[dict[str, Any]]) -> list[np.ndarray]:
    """A log's (time, images drawn) from each start on; a start alone draws nothing."""
    runs: list[list[tuple[float, float]]] = []
    for event in events:
        if event.get("event") == "start":
            runs.append([(event["time"], 0.0)])
        elif "drawn" in event and runs:
            runs[-1].append((event["time"], event["drawn"]))
    return [np.array(run, dtype=np.float64) for run in runs if len(run) > 1]


def _draw(rates: np.ndarray, seconds: float) -> str:
    """Steps in grey, with the highest rate and the time written at the axes."""
    top, base = float(rates.max()), HEIGHT - BOTTOM
    x = np.linspace(LEFT, WIDTH - 4, len(rates) + 1)
    y = base - rates / top * (base - 12)
    steps = " ".join(f"H{x[i]:.1f} V{y[i]:.1f}" for i in range(len(rates)))
    path = f"M{LEFT} {base} {steps} H{x[-1]:.1f} V{base} Z"
    label = f"up to {top:.3g} images/s, {format_duration(seconds)} from the first start to the end"
    return (
        "<p>Images per second of all processes, from the first start to the end</p>"
        f'<svg class="rate" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"<title>images per second</title>"
        f'<path d="{path}" style="fill:var(--c0);stroke:var(--c0)" fill-opacity=".35"/>'
        f'<path d="M{LEFT} {base} H{WIDTH - 4}" style="stroke:var(--soft)"/>'
        f'<text x="{LEFT - 6}" y="16" text-anchor="end">{top:.3g}</text>'
        f'<text x="{LEFT - 6}" y="{base}" text-anchor="end">0</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 4}">0 s</text>'
        f'<text x="{WIDTH - 4}" y="{HEIGHT - 4}" text-anchor="end">{format_duration(seconds)}</text></svg>'
    )
