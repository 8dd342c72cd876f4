"""Show what is in a prompt table: an overview of all rows, or an explanation of one.

In: a `PromptTable`. Out: lines for the terminal, or a page.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError
from synclones.base.files import write_atomic
from synclones.base.json_file import parse_json
from synclones.prompts.characters import printable
from synclones.prompts.overview import Overview, Summary, lines, markdown, page
from synclones.prompts.recipe import load_recipe
from synclones.prompts.table import PromptRow, PromptTable, class_names

SUFFIXES = (".html", ".md")


def summarise(table: PromptTable) -> Summary:
    """Read all rows once."""
    overview = Overview(table.num_rows, len(table.metadata.get("class_ids", [])))
    for _, block in table.blocks():
        overview.update(block)
    return overview.finish()


def overview_lines(table: PromptTable, summary: Summary) -> list[str]:
    """Return what built the table, then what is in it."""
    content = str(table.metadata.get("content_sha256", "unstated"))[:16]
    return [f"{table.path}, content {content}", *lines(_with_origin(table, summary))]


def _with_origin(table: PromptTable, summary: Summary) -> Summary:
    """Return the summary with what built the table before its other facts."""
    names = ("recipe", "classes", "seed", "images_per_caption")
    origin = {name.replace("_", " "): str(table.metadata[name]) for name in names if name in table.metadata}
    return replace(summary, facts=origin | _sources(table) | summary.facts)


def write_overview(path: Path, table: PromptTable, summary: Summary) -> None:
    """Write the overview as HTML or Markdown, by the file's suffix.

    Raises:
        InputError: for another suffix.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"--out: {path} ends in {path.suffix!r}, expected {' or '.join(SUFFIXES)}")
    title = f"Prompts: {table.path.name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    summary = _with_origin(table, summary)
    is_html = path.suffix == ".html"
    write_atomic(path, page(title, summary) if is_html else markdown(title, summary).encode())


def overview_values(table: PromptTable, summary: Summary) -> dict[str, Any]:
    """Return what is in a table as JSON values."""
    examples = [{"index": n, "class_id": class_id, "prompt": prompt} for n, class_id, prompt in summary.examples]
    longest = [{"tokens": tokens, "prompt": prompt} for tokens, prompt in summary.longest]
    content = str(table.metadata.get("content_sha256", ""))
    facts = {"path": str(table.path), "rows": table.num_rows, "content_sha256": content}
    facts |= {"facts": _with_origin(table, summary).facts, "share_cut": summary.share_cut}
    return {**facts, "examples": examples, "longest": longest}


def row_values(row: PromptRow) -> dict[str, Any]:
    """Return a row as JSON values, its ``detail`` as the object that it is."""
    try:
        detail = parse_json(row.detail or "{}")
    except ValueError:
        detail = row.detail
    return {**asdict(row), "detail": detail}


def explain_row(table: PromptTable, row: PromptRow) -> list[str]:
    """Explain how a row came about, a line for each choice."""
    facts = [("index", str(row.index)), ("prompt", row.prompt), ("class", _class_words(table, row))]
    facts += [("recipe", f"{row.recipe}{_text_of(row.recipe)}"), *_details(row.detail)]
    m = int(table.metadata.get("images_per_caption", 1))
    copy = f", image {row.index % m + 1} of {m} of it" if m > 1 else ""
    captions = _sources(table).get("captions")
    facts.append(("caption_id", f"{row.caption_id}{copy}" + (f", row of {captions}" if captions else "")))
    facts.append(("source_key", row.source_key or "none: no real sample behind it"))
    return [f"{name:<11} {printable(value)}" for name, value in facts]


def _class_words(table: PromptTable, row: PromptRow) -> str:
    name = class_names(table.metadata).get(row.class_id, "")
    number = "no label" if row.label < 0 else f"label {row.label}"
    return ", ".join(filter(None, (name, row.class_id, number)))


def _text_of(recipe: str) -> str:
    try:
        return f": {load_recipe(recipe).text}"
    except InputError:
        return ""  # a user's own table


def _details(detail: str) -> list[tuple[str, str]]:
    try:
        facts: Any = parse_json(detail or "{}")
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        return [("detail", detail)]
    origin = f" (of {facts['synset']} in WordNet)" if "synset" in facts else " (from the class file)"
    return [
        (str(name), f"{value}{origin if name in ('hypernym', 'definition') else ''}")
        for name, value in facts.items()
        if name != "synset"
    ]


def _sources(table: PromptTable) -> dict[str, str]:
    sources = table.metadata.get("sources")
    return {str(role): str(source) for role, source in sources.items()} if isinstance(sources, dict) else {}
