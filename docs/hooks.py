"""What MkDocs asks while it builds the site: pages from the code, links out of it, pages that are still to come.

In: `docs/*.md` and `docs/commands.py`. Out: the site's pages; see `mkdocs.yml` and `make docs`.
"""

import re
import runpy
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

DOCS = Path(__file__).resolve().parent
COMMANDS = runpy.run_path(str(DOCS / "commands.py"))
LIST = "reference/commands.md"
# For developers, and read where they lie: not part of the site.
OUTSIDE = ("design.md", "decisions.md")
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def on_config(config: Any) -> Any:
    """Put the pages of all commands into the navigation, and leave out such as are not written yet."""
    pages: dict[str, dict[str, str]] = COMMANDS["command_pages"]()
    commands = [{stage: [{_title(text): path} for path, text in of_stage.items()]} for stage, of_stage in pages.items()]
    generated = {LIST, *(path for of_stage in pages.values() for path in of_stage)}
    config.nav = _known([*config.nav[:-1], _with(config.nav[-1], commands)], generated)
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that the code writes."""
    pages = {LIST: COMMANDS["list_of_commands"]()}
    for of_stage in COMMANDS["command_pages"]().values():
        pages |= of_stage
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **context: Any) -> str:
    """Turn links to files that are not of the site into their names."""
    return LINK.sub(lambda link: _inside(link, DOCS / page.file.src_uri), markdown)


def on_post_page(output: str, **context: Any) -> str:
    """Give the search, which the theme leaves without one, a name for screen readers."""
    return output.replace('component="search" role="dialog"', 'component="search" role="dialog" aria-label="Search"')


def _inside(link: re.Match[str], page: Path) -> str:
    text, target = link[1], link[2].partition("#")[0]
    if "://" in target or not target:
        return link[0]
    file = (page.parent / target).resolve()
    if file.is_relative_to(DOCS) and file.name not in OUTSIDE:
        return link[0]
    return f"{text} (`{file.relative_to(DOCS.parent)}` of the repository)"


def _with(section: dict[str, list[Any]], commands: list[Any]) -> dict[str, list[Any]]:
    ((title, entries),) = section.items()
    return {title: [*entries, *commands]}


def _known(entries: list[Any], generated: set[str]) -> list[Any]:
    """Return the navigation without the pages that do not exist."""
    kept = []
    for entry in entries:
        ((title, value),) = entry.items()
        if isinstance(value, list):
            kept.append({title: _known(value, generated)})
        elif value in generated or (DOCS / value).exists():
            kept.append(entry)
    return kept


def _title(text: str) -> str:
    return text.splitlines()[0].removeprefix("# ").removeprefix("synclones ")
