"""The table of parity, printed and written into a Markdown file.

In: rows with both sides' accuracies. Out: lines; a file has them between what explains them.
"""

import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from equivalence import Equivalence
from records import Record
from rows import Row, Settings

Line = tuple[str, Row, Settings, list[list[float]], Equivalence, list[Record]]
BEGIN, END = "<!-- written by benchmarks/parity/run.py -->", "<!-- end -->"
LIBRARIES = ("torch", "timm", "open_clip_torch", "scikit-learn", "webdataset")
HEAD = (
    "| data | row | images seen | ours, % | peer, % | difference, points, 90 % interval | verdict |",
    "|---|---|---|---|---|---|---|",
)


def write_table(lines: Sequence[Line], file: Path | None) -> None:
    """Print the table; put it into ``file`` in the place of the one before."""
    table = [*HEAD, *map(_row, lines)]
    print("\n".join(table))
    if file is None:
        return
    before, _, rest = file.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    installed = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    records = [record for line in lines for record in line[-1]]
    dates, cpus = sorted({record.date for record in records}), sorted({record.cpu for record in records})
    days = " to ".join(sorted({*dates[:1], *dates[-1:]}))
    made = f"`make parity`, {days}, {' and '.join(cpus)}, float32; {installed}."
    file.write_text(f"{before}{BEGIN}\n" + "\n".join([made, "", *table]) + f"\n{END}{after}")


def _row(line: Line) -> str:
    world, row, settings, sides, result, _ = line
    seen = settings["steps"] * settings["batch_size"]
    means = [_side(side) for side in sides]
    interval = f"{result.difference:+.2f} ({result.low:+.2f} to {result.high:+.2f})"
    verdict = f"{result.verdict} within {result.margin:g}" if result.verdict == "equivalent" else result.verdict
    return f"| {world} | {row.name} | {seen:,} | {means[0]} | {means[1]} | {interval} | {verdict} |"


def _side(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f} (one)"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} ({len(values)})"


def cpu_name() -> str:
    """Return what the processor calls itself."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown CPU"
