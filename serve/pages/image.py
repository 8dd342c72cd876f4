"""One image of a set: its prompt, seed and scores, its neighbours, and the command that draws it again.

In: a `Dataset` and a number. Out: HTML.
"""

from html import escape
from typing import Any

import numpy as np

from synclones.base.errors import SynclonesError, VerificationError
from synclones.base.json_file import parse_json
from synclones.base.page import table
from synclones.base.resume import CONFIG
from synclones.serve.dataset import Dataset, Piece, scores_of
from synclones.serve.folders import Folder
from synclones.serve.pages.frame import HOME, address, command, framed, link
from synclones.serve.pages.images import card, is_small
from synclones.shards.columns import SideColumns
from synclones.shards.schema import Sample
from synclones.shards.unfinished import MADE_BY

NEIGHBOURS = 5  # on each side
COLUMN_BYTES = 1 << 25
Rows = list[tuple[Piece, dict[str, Any]]]
SHOWN_KINDS = ("text", "texts", "number")


def image_page(folder: Folder, dataset: Dataset, index: int) -> bytes:
    """Return the page of one planned sample, with an image or without.

    Raises:
        InputError: the set has none of this number so far.
        VerificationError: it is damaged.
    """
    piece, row = dataset.row(index)
    sample = dataset.sample(index) if row["status"] == "ok" else None
    row["prompt"] = sample.txt if sample else dataset.shown_texts(piece, [row])[0]
    facts, around = table(_facts(folder, dataset, piece, row, sample), first="th"), _around(dataset, piece, index)
    body = [
        f'<div class="one">{_figure(folder, row)}<div><p class="prompt">{escape(row["prompt"])}</p>{facts}</div></div>',
        _redraw(folder, dataset, piece, row),
        _neighbours(folder, dataset, around, index),
    ]
    links = [HOME, link("images", "/images", folder=folder.name), *_beside(folder, around, index)]
    return framed(f"{folder.name}: image {index}", body, links, is_small(dataset))


def _figure(folder: Folder, row: dict[str, Any]) -> str:
    if row["status"] != "ok":
        return f'<figure><div class="lost">{escape(row["status"])}: {escape(row["reason"])}</div></figure>'
    source = escape(address("/image.jpg", folder=folder.name, index=row["index"]))
    return f'<figure><img src="{source}" alt="{escape(row["prompt"])}"></figure>'


def _facts(
    folder: Folder, dataset: Dataset, piece: Piece, row: dict[str, Any], sample: Sample | None
) -> list[list[str]]:
    stated = _stated(sample)
    label, name = row["label"], dataset.class_of(row["label"]) or str(stated.get("class_id", ""))
    words = link(f"{label} {name}".strip(), "/images", folder=folder.name, class_=label) if label >= 0 else "none"
    # A list: a score or a side column may be called as one of these facts is.
    lines = [
        ("class", words),
        ("seed", f"{row['seed']} <small>attempt {row['attempt']}</small>"),
        ("status", escape(" ".join(filter(None, [row["status"], row["reason"]])))),
        *((escape(score), f"{value:.4g}") for score, value in scores_of(row["scores"]).items()),
        ("shard", escape(piece.files.name) + ("" if piece.summary is not None else " (being drawn, or stopped)")),
    ]
    if sample is not None:
        lines += [
            ("stored", f"{len(sample.jpg):,} bytes at {row['jpg_offset']:,} of the tar"),
            ("caption id", escape(str(stated["caption_id"])) if "caption_id" in stated else ""),
            *_columns(dataset, piece, row["index"]).items(),
        ]
    return [[name, text] for name, text in lines if text]


def _stated(sample: Sample | None) -> dict[str, Any]:
    try:
        value = parse_json(sample.json) if sample else {}
    except ValueError:
        value = {}
    return value if isinstance(value, dict) else {}


def _columns(dataset: Dataset, piece: Piece, index: int) -> dict[str, str]:
    """Return what the side columns of a finished shard say of an image: texts and numbers."""
    if piece.summary is None or dataset.shards is None:
        return {}
    columns, shown = SideColumns(dataset.folder, dataset.split, cache_bytes=COLUMN_BYTES), dict[str, str]()
    shard = dataset.shards.shards.index(piece.files.name)
    for name in columns.names:
        try:
            column = columns.column(name)
            if column.type.kind not in SHOWN_KINDS:
                continue
            position = int(np.searchsorted(column.index(shard), index))
            value = column.read(shard, position)[0].as_py()
        except (SynclonesError, OSError, IndexError) as error:
            shown[escape(name)] = f'<span class="warning">{escape(str(error))}</span>'
            continue
        texts = value if isinstance(value, list) else [] if value is None else [value]
        shown[escape(name)] = "<br>".join(escape(str(text)) for text in texts)
    return shown


def _redraw(folder: Folder, dataset: Dataset, piece: Piece, row: dict[str, Any]) -> str:
    title = "<h2>Draw it again</h2>"
    maker = dataset.plan.get(MADE_BY)
    if maker or not (folder.path / CONFIG).is_file():
        how = f"`synclones shards {maker}` made this set" if maker else "Nothing here says how this set was drawn"
        return f'{title}<p class="note">{escape(how)}: draw the image again in the set that it comes from.</p>'
    if row["status"] != "ok":
        return f'{title}<p class="note">There is no image to compare with.</p>'
    if piece.summary is None:
        return f'{title}<p class="note">As soon as its shard is finished.</p>'
    again = command("generate", "redraw", folder.name, "--index", str(row["index"]), "--out", f"{row['index']}.jpg")
    return f"{title}<p>The same bytes on a CPU; compared with what is stored:</p>{again}"


def _nearby(piece: Piece, index: int) -> list[dict[str, Any]]:
    """Return the rows of a shard around a number."""
    rows = piece.rows()
    position = int(np.searchsorted(rows["index"].to_numpy(), index))
    first = max(0, position - NEIGHBOURS)
    near: list[dict[str, Any]] = rows.slice(first, position - first + NEIGHBOURS + 1).to_pylist()
    return near


def _around(dataset: Dataset, piece: Piece, index: int) -> Rows:
    """Return the rows around a number, with those of the shards before and after where it stands at an edge."""
    number = dataset.pieces.index(piece)
    around: Rows = []
    for each in dataset.pieces[max(0, number - 1) : number + 2]:
        try:
            around += [(each, row) for row in _nearby(each, index)]
        except VerificationError:  # of a shard beside it, whose own page says so
            if each is piece:
                raise
    before = [item for item in around if item[1]["index"] < index][-NEIGHBOURS:]
    after = [item for item in around if item[1]["index"] >= index][: NEIGHBOURS + 1]
    return before + after


def _neighbours(folder: Folder, dataset: Dataset, around: Rows, index: int) -> str:
    cards = []
    for own, row in around:
        try:
            row["prompt"] = dataset.shown_texts(own, [row])[0]
        except VerificationError as error:  # the tar of the shard beside it
            row["prompt"] = str(error)
        cards.append(card(folder, dataset, row, this=row["index"] == index))
    return f'<h2>Its neighbours in the set</h2><div class="strip">{"".join(cards)}</div>'


def _beside(folder: Folder, around: Rows, index: int) -> list[str]:
    numbers = [row["index"] for _, row in around]
    at = numbers.index(index)
    links = [link(f"← {numbers[at - 1]}", "/image", folder=folder.name, index=numbers[at - 1])] if at else []
    if at + 1 < len(numbers):
        links.append(link(f"{numbers[at + 1]} →", "/image", folder=folder.name, index=numbers[at + 1]))
    return links
