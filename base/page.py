"""Build self-contained HTML pages in one style: title, facts, sections, tables, rows of images, at any width.

In: texts, and image bytes. Out: the text of a page that needs no other file. Arguments called ``body``, ``cells`` or
``content`` are HTML already; everything else is text and is escaped here.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape

from synclones.base.page_style import STYLE

SMALL_PX = 94  # below it images are enlarged as they are: smoothed, a reader would see what no model saw

# A reader without a mouse scrolls it by the arrow keys.
_SCROLLED = '<div class="table" role="group" aria-label="table" tabindex="0">'


def page(title: str, body: Iterable[str], small_images: bool = False, style: str = "", nav: str = "") -> bytes:
    """Return the page under a heading.

    Args:
        small_images: show images pixel by pixel.
        style: CSS of its own.
        nav: links to other pages, between heading and body.
    """
    pixelated = "img{image-rendering:pixelated}" if small_images else ""
    links = f"<nav>{nav}</nav>" if nav else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}{pixelated}</style>"
        f"<header><h1>{escape(title)}</h1></header>{links}<main>{''.join(body)}</main></html>\n"
    ).encode()


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = (), numbers: bool = False, first: str = "td") -> str:
    """Return a table that scrolls by itself where it is too wide.

    Args:
        rows: cells as HTML; a cell that begins with ``<td`` is taken as it is.
        head: heading of each column, as text.
        numbers: align all but the first column to the right.
        first: ``th`` for rows that begin with their name.
    """
    lines = ""
    for row in rows:
        cells = (_cell(cell, "td" if number else first) for number, cell in enumerate(row))
        lines += f"<tr>{''.join(cells)}</tr>"
    titles = f"<thead><tr>{''.join(f'<th>{escape(text)}</th>' for text in head)}</tr></thead>" if head else ""
    kind = ' class="numbers"' if numbers else ""
    return f"{_SCROLLED}<table{kind}>{titles}<tbody>{lines}</tbody></table></div>"


def _cell(content: str, tag: str) -> str:
    return content if content.startswith("<td") else f"<{tag}>{content}</{tag}>"


def image_row(figures: Iterable[str]) -> str:
    """Return figures side by side, as many as the width holds."""
    return f'<div class="images">{"".join(figures)}</div>'


def image_figure(uri: str, text: str, tip: str, note: str = "", number: str = "") -> str:
    """Return one image with its caption: a note on it, its text, its number."""
    shown = escape(text, quote=True)
    before, after = f"<i>{escape(note)}</i> " if note else "", f" <b>{escape(number)}</b>" if number else ""
    return (
        f'<figure title="{escape(tip, quote=True)}"><img src="{uri}" alt="{shown}">'
        f"<figcaption>{before}{shown}{after}</figcaption></figure>"
    )


def data_uri(data: bytes, kind: str = "jpeg") -> str:
    """Return encoded image bytes as a URI that a page holds itself."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
