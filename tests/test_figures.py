"""Every figure in README and docs has a command or a source beside it: in its own paragraph or a near one."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
UNITS = r"%|images/s|points?\b|[TG]FLOP|[GM]B\b|[mu]s\b|s an image|dollars|GPU-hours|A100 hours|times (?:the|as|faster)"
FIGURE = re.compile(rf"\d[\d.,]* ?(?:{UNITS})")
COMMAND = r"^\$ |`(?:python|make|pytest|synclones|accelerate|pip|du) |`make|benchmarks?\]|benchmarks/|tests/|\.py`"
SOURCE = re.compile(rf"{COMMAND}|arXiv|et al\.|as reported|data sheet|[Cc]ard\b", re.MULTILINE)
PAGES = [
    "README.md",
    "benchmarks/README.md",
    "lab/generator/README.md",
    *(str(f.relative_to(ROOT)) for f in (ROOT / "docs").rglob("*.md")),
]


def unsourced(text: str) -> list[str]:
    """Return figures of a Markdown text that no command and no source stands beside."""
    # What a command prints stands with it, blank lines or not.
    text = re.sub(r"^```console$.*?^```$", lambda block: re.sub(r"\n\s*\n", "\n", block[0]), text, flags=re.M | re.S)
    blocks = re.split(r"\n\s*\n", text)
    lonely = []
    for number, block in enumerate(blocks):
        if not SOURCE.search(" ".join(blocks[max(0, number - 2) : number + 2])):
            lonely += [block[max(0, figure.start() - 60) : figure.end()] for figure in FIGURE.finditer(block)]
    return lonely


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_figure_of_a_page_has_a_command_or_a_source_beside_it(page):
    assert unsourced((ROOT / page).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("folder", ["generate/presets", "train/recipes"])
def test_every_cost_of_a_preset_has_one(folder):
    for file in sorted((ROOT / folder).glob("*.yaml")):
        header = "\n".join(line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
        assert unsourced(header.replace("#", "")) == [], file.name
        costs = re.search(r"Cost:.*?(?=\n# (?:Licence|$)|\Z)", header, re.DOTALL)
        if costs and "TFLOP" in costs[0]:
            assert "benchmarks/operations.py" in costs[0], file.name


def test_a_figure_alone_is_found():
    assert unsourced("# A\n\nIt is 3 times as fast.\n\nAnd good.") == ["It is 3 times as"]
    assert unsourced("It draws 5 images/s (`python benchmarks/x.py`).") == []
