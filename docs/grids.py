"""Writes a page for each grid that was run in the lab: what its report says, without commands and single comparisons.

In: a store of `synclones ablate run GRID --world lab --out STORE`, whose reports are there. Out: a page in
`docs/grids` for each, and `overview.md` with what papers observed, of all pages.

    python docs/grids.py STORE
"""

import argparse
import json
import platform
import re
import shlex
from datetime import date
from pathlib import Path

from synclones.ablate.grid import read_grid

PAGES = Path(__file__).resolve().parent / "grids"
DROPPED = ("Missing", "Comparisons", "Commands", "Costs", "Images")


def sections(report: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the text before the first heading of a report, and its (heading, text)s."""
    head, *rest = re.split(r"^## ", report, flags=re.MULTILINE)
    return head, [(one.partition("\n")[0], one.partition("\n")[2]) for one in rest]


def processor() -> str:
    """Return the processor's name and how many cores there are."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    names = re.findall(r"^model name\s*: (.*)$", info, flags=re.MULTILINE)
    return f"{names[0].strip() if names else platform.machine()}, {len(names)} cores"


def core_hours(folder: Path) -> float:
    """Return the process hours of all steps behind a report, each step once."""
    cells = json.loads((folder / "cells.json").read_text(encoding="utf-8"))["cells"]
    outs = {out for cell in cells for command in cell["commands"] for out in re.findall(r"--out (\S+)", command)}
    records = [Path(re.sub(r"\.(parquet|csv)$", "", out) + ".step.json") for out in outs]
    texts = [record.read_text(encoding="utf-8") for record in records if record.exists()]
    return sum(json.loads(text)["process_seconds"] for text in texts) / 3600


def chosen(grid: str, folder: Path) -> str:
    """Return the flags that choose a part of a grid's values or seeds; empty where the report has all of them."""
    cells, whole = json.loads((folder / "cells.json").read_text(encoding="utf-8")), read_grid(grid)
    axes, seeds = cells["axes"], "" if cells["seeds"] == whole.seeds else f" --seeds {cells['seeds']}"
    plain = {axis: given.plain() for axis, given in whole.axes.items()}
    given = {axis: values for axis, values in plain.items() if not isinstance(values, str)}  # others are of the world
    parts = [f"{axis}={','.join(axes[axis])}" for axis, values in given.items() if len(axes[axis]) < len(values)]
    return seeds + (f" --only {shlex.join(parts)}" if parts else "")


def page(grid: str, folder: Path) -> str:
    """Return the page of one grid."""
    head, parts = sections((folder / "report.md").read_text(encoding="utf-8"))
    title, _, head = head.partition("\n")
    cost = f"{processor()}, {core_hours(folder):.1f} core-hours"
    flags = f"{grid} --world lab --scale {folder.name.rpartition('-')[2].replace('of', '/')}{chosen(grid, folder)}"
    command = f"`synclones ablate run {flags}`, {date.today()}, {cost}."
    again = f"\nBy `synclones ablate report {flags}`.\n"
    kept = "".join(f"## {name}\n{again}{text}" for name, text in parts if name not in DROPPED)
    return f"{title}: in the lab\n\n{command}\n{head}{kept}".rstrip() + "\n"


ABOUT = """# The papers' experiments in the lab

`python docs/grids.py STORE` writes these pages from the reports of `synclones ablate run GRID --world lab --out
STORE`: the grids of the papers, on ten digits of 32 px (537 for the test), three trainings of each arm on 2 cores.
A sentence *holds* where every comparison that it is about goes its way with an interval without 0, *does not hold*
where one clearly goes the other way, and else *cannot be told* ([how](../ablate_statistics.md)).

What holds here was measured on digits and says that the code shows such an effect where there is one; it does not say
that the paper is right. What does not hold here says as little against it: the lab's generator was trained on the
very kind of its test images, so that plain class names are its best prompts. What cannot be told would take more test
images, or more trainings than three; each page says how many.

The rate and the length of `transfer`'s tuning were raised after a first run in which no layer moved, and after trials
on the lab's test digits: what its sentences say now is an illustration, no independent test ([why](../decisions.md)).
"""


def overview() -> str:
    """Return the page of all pages: what papers observed, and what is so here."""
    parts = [ABOUT]
    for file in sorted(path for path in PAGES.glob("*.md") if path.stem != "overview"):
        text = file.read_text(encoding="utf-8")
        rows = re.findall(r"^\| (?!observation|---)(.*?) \| (\*\*.*?\*\*) \| (.*?) \|.*$", text, flags=re.MULTILINE)
        title, how = text.partition("\n")[0].removeprefix("# "), re.search(r"`synclones ablate run [^`]*`", text)[0]
        parts.append(f"## [{title.partition(':')[0]}]({file.name})\n\n{how}\n")
        lines = [f"| {says} | {answer} | {why} |" for says, answer, why in rows]
        head = ["| observation | here | comparisons |", "|---|---|---|"]
        table = [*head, *lines] if lines else ["No sentence of the paper is compared here."]
        parts.append("\n".join(table) + "\n")
    return "\n".join(parts)


def main() -> None:
    """Write the pages of all reports in a store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    for folder in sorted((parser.parse_args().store / "reports").glob("*-lab*")):
        grid = re.sub(r"-lab.*$", "", folder.name)
        (PAGES / f"{grid}.md").write_text(page(grid, folder), encoding="utf-8")
        print(PAGES / f"{grid}.md")
    (PAGES / "overview.md").write_text(overview(), encoding="utf-8")


if __name__ == "__main__":
    main()
