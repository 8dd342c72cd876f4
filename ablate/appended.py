"""Prompt tables that begin with an earlier one: what `synclones generate --extend` lets a set grow by.

In: a table, rows of another. Out: a table whose first rows are the earlier table's, and whose further ones order more.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from synclones.base.errors import InputError, VerificationError
from synclones.base.json_file import parse_json
from synclones.base.manifest import find_parent, read_manifest
from synclones.prompts.schema import SCHEMA
from synclones.prompts.table import PromptTable, write_table


def prompts_of(folder: Path) -> PromptTable:
    """Return the table that a drawn set was drawn from, as its manifest names it.

    Raises:
        InputError: the manifest names none, or it is no longer there.
        VerificationError: it has other rows by now.
    """
    stated = [parent for parent in read_manifest(folder).get("parents", []) if parent["name"] == "prompts"]
    path = find_parent(folder, stated[0]["path"]) if stated else None
    if path is None:
        named = f"{stated[0]['path']}, which is not here" if stated else "none"
        raise InputError(f"{folder}: its manifest names as prompt table {named}; bring it back")
    table = PromptTable(path)
    if table.check() != stated[0]["content_hash"]:
        raise VerificationError(f"{path}: has other rows than {folder} was drawn from; bring the table back")
    return table


def append_prompts(out: Path, earlier: PromptTable, more: PromptTable, rows: Sequence[int]) -> str:
    """Write a table of the earlier one's rows and then those of ``more`` with these numbers; return its hash.

    Numbers go on where the earlier table ends, and so do those of captions; a new row's ``detail`` says which row of
    ``more`` it was.

    Raises:
        InputError: the tables have other classes.
    """
    if earlier.class_ids() != more.class_ids():
        raise InputError(f"{more.path}: has other classes than {earlier.path}; build both with the same --classes")
    sources = {"earlier": earlier.check(), "candidates": more.check(), **_sources(earlier)}
    known = {key: value for key, value in earlier.metadata.items() if key not in ("num_rows", "content_sha256")}
    return write_table(out, _blocks(earlier, more, rows), known | {"sources": sources})


def _sources(table: PromptTable) -> dict[str, object]:
    sources = table.metadata.get("sources", {})
    return {key: value for key, value in sources.items() if key not in ("earlier", "candidates")}


def _blocks(earlier: PromptTable, more: PromptTable, rows: Sequence[int]) -> Iterator[pa.Table]:
    captions = 0
    for _, block in earlier.blocks():
        captions = max(captions, max(block["caption_id"].to_pylist()) + 1)
        yield block.cast(SCHEMA)
    first, made = earlier.num_rows, []
    for number, row in enumerate(rows):
        (order,) = more.rows(row, row + 1)
        try:
            detail = parse_json(order.detail) if order.detail else {}
        except ValueError:
            detail = {"detail": order.detail}  # a user's own table may say anything there
        detail = {**detail, "candidate": row} if isinstance(detail, dict) else {"detail": detail, "candidate": row}
        changed = {
            "index": first + number,
            "caption_id": captions + max(order.caption_id, 0),
            "detail": json.dumps(detail, sort_keys=True, ensure_ascii=False),
        }
        made.append({name: changed.get(name, getattr(order, name)) for name in SCHEMA.names})
    if made:
        yield pa.Table.from_pylist(made, schema=SCHEMA)
