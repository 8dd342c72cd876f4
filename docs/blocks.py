"""Runs the code blocks of documents, and compares or renews what they show as printed.

In: Markdown pages. `console` blocks are commands after `$` (go on after `>`) with what they print; `python` blocks are
scripts; a block with `title="NAME"` is a file. All blocks of a page run in one folder, in order. Out: differences.

    python docs/blocks.py docs/prompts.md                # run and compare
    python docs/blocks.py --renew docs/prompts.md        # run and write what is printed now into the page

Comments say the rest: `<!-- blocks: slow, after other.md -->` at a page's top (the folder begins as that page's),
`<!-- not run: why -->` and `<!-- numbers differ -->` above a block. A line `...` stands for any lines.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(
    r"^(?:<!-- (?P<note>not run: [^>]+|numbers differ) -->\n)?"
    r"```(?P<kind>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
OPTIONS = re.compile(r"^<!-- blocks: (?P<words>[^>]+) -->$", re.MULTILINE)
# What no two runs share: durations, rates, hashes, versions, dates, what the processor can do.
VARYING = re.compile(
    r"\d[\d.,]* ?(?:s|min|h|days|ms|us)\b|\d[\d.,]*(?= ?(?:images|steps)/s\b)|\b(?=\w*\d)[0-9a-f]{8,}\b"
    r"|\b\d+\.\d+\.\d+\w*|\d{4}-\d\d-\d\dT[\d:]+Z|(?<= on cpu ).*"
)
NUMBER = re.compile(r"[-+]?\d[\d.,]*%?")


@dataclass(frozen=True)
class Block:
    """A fenced block: its kind, the file that it is, its text, its place in the page, and what a comment says of it."""

    kind: str
    title: str
    text: str
    start: int
    note: str

    @property
    def runs(self) -> bool:
        return not self.note.startswith("not run") and (bool(self.title) or self.kind in ("console", "python"))


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(match["kind"], match["title"] or "", match["text"], match.start("text"), match["note"] or "")
        for match in FENCE.finditer(text)
    ]


def options_of(page: Path) -> list[str]:
    """Return what a page says of its blocks: ``slow``, ``after OTHER``."""
    match = OPTIONS.search(page.read_text(encoding="utf-8"))
    return match["words"].split(", ") if match else []


def folder_after(page: Path) -> Path | None:
    """Return the page whose folder the blocks of ``page`` begin with."""
    names = [word.removeprefix("after ") for word in options_of(page) if word.startswith("after ")]
    return (page.parent / names[0]).resolve() if names else None


def commands_of(text: str) -> list[tuple[str, str]]:
    """Return (command, what it is shown to print) of a console block."""
    parts: list[tuple[list[str], list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            parts.append(([line[2:]], []))
        elif parts and not parts[-1][1] and (line.startswith("> ") or parts[-1][0][-1].endswith("\\")):
            parts[-1][0].append(line.removeprefix("> "))
        elif parts:
            parts[-1][1].append(line)
    return [("\n".join(command), "\n".join(output)) for command, output in parts]


def run(command: list[str], folder: Path) -> str:
    """Run one command in ``folder`` and return its standard output; progress and notes go elsewhere.

    Raises:
        RuntimeError: it ended with another code than 0.
    """
    cache = {"XDG_CACHE_HOME": str(folder / ".cache"), "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, **cache, "PATH": path}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    if done.returncode:
        raise RuntimeError(f"{command[-1]}\nended with {done.returncode}:\n{done.stdout}\n{done.stderr[-3000:]}")
    return done.stdout.replace(str(folder), ".").replace(str(ROOT), "synclones")


def run_block(block: Block, folder: Path) -> str:
    """Run a block in ``folder`` and return it with what is printed today."""
    if block.title:
        (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
        (folder / block.title).write_text(block.text, encoding="utf-8")
        return block.text
    if block.kind == "python":
        run([sys.executable, "-c", block.text], folder)
        return block.text
    printed = []
    for command, _ in commands_of(block.text):
        lines = command.splitlines()
        continued = ["\n".join([f"$ {lines[0]}", *(_continued(*pair) for pair in zip(lines, lines[1:], strict=False))])]
        output = run(["bash", "-euo", "pipefail", "-c", command], folder)
        printed += continued + ([output.rstrip()] if output.strip() else [])
    return "\n".join(line.rstrip() for line in "\n".join(printed).splitlines()) + "\n"


def _continued(before: str, line: str) -> str:
    return line if before.endswith("\\") else f"> {line}"


def agree(shown: str, printed: str, numbers: bool) -> bool:
    """Return whether what is shown is what is printed, but for what varies; ``numbers`` says whether those count."""
    parts = [part.strip("\n") for part in re.split(r"^\.\.\.$\n?", _plain(shown, numbers), flags=re.MULTILINE)]
    return (
        re.fullmatch(r"(?:\n?.*\n?)?".join(map(re.escape, parts)), _plain(printed, numbers).strip("\n"), re.DOTALL)
        is not None
    )


def _plain(text: str, numbers: bool) -> str:
    text = VARYING.sub("#", text)
    text = text if numbers else NUMBER.sub("#", text)
    return "\n".join(re.sub(r"\s+", " ", line).strip() for line in text.splitlines())


def differences(page: Path, folder: Path, renew: bool = False) -> list[str]:
    """Run the blocks of a page in ``folder`` and return those whose output is not what the page shows.

    Args:
        renew: write what is printed into the page, but for blocks that leave out lines.
    """
    wrong, text, moved = [], page.read_text(encoding="utf-8"), 0
    for block in blocks_of(page):
        if not block.runs:
            continue
        today = run_block(block, folder)
        same = agree(block.text, today, block.note != "numbers differ")
        wrong += [] if same else [f"{page.name} shows\n{block.text}\nprinted is\n{today}"]
        if renew and block.kind == "console" and "\n...\n" not in block.text:
            at = block.start + moved
            text = text[:at] + today + text[at + len(block.text) :]
            moved += len(today) - len(block.text)
    if renew:
        page.write_text(text, encoding="utf-8")
    return wrong


class Folders:
    """The folders that pages leave; each page runs once, after the one that it goes on from."""

    def __init__(self, root: Path) -> None:
        self.root, self.wrong = root, dict[Path, list[str]]()

    def run(self, page: Path, renew: bool = False) -> list[str]:
        """Run a page's blocks, unless that was done, and return the differences."""
        if page not in self.wrong:
            before, folder = folder_after(page), self.folder(page)
            if before is not None:
                if not self.folder(before).exists():
                    self.run(before)
                shutil.copytree(self.folder(before), folder)
            folder.mkdir(parents=True, exist_ok=True)
            self.wrong[page] = differences(page, folder, renew)
        return self.wrong[page]

    def folder(self, page: Path) -> Path:
        """Return the folder of a page's blocks."""
        return self.root / page.parent.name / page.stem


def main(argv: list[str]) -> None:
    """Run the pages that are named."""
    renew = "--renew" in argv
    with tempfile.TemporaryDirectory(prefix="synclones-docs-") as root:
        folders = Folders(Path(os.environ.get("DOCS_FOLDER", root)))
        for name in argv:
            if name != "--renew":
                print("\n".join(folders.run(Path(name).resolve(), renew)) or f"{name}: as shown")


if __name__ == "__main__":
    main(sys.argv[1:])
