"""Build self-contained HTML pages in one style: title, facts, sections, tables, rows of images, at any width.

In: texts, and image bytes. Out: the text of a page that needs no other file. Arguments called ``body``, ``cells`` or
``content`` are HTML already; everything else is text and is escaped here.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape

SMALL_PX = 94  # below it images are enlarged as they are: smoothed, a reader would see what no model saw

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1180px;padding:0 1rem}
body{color:#1c1c1f;background:#fafaf8;overflow-wrap:anywhere}
h1{font-size:1.45rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{max-width:76ch}
h3{font-size:.85rem;font-weight:500;color:#666;margin:.9rem 0 .4rem}
.facts,.note{color:#666}p.facts{max-width:none}
.table{overflow-x:auto}table{border-collapse:collapse;margin:.6rem 0;font-size:14px;overflow-wrap:normal}
th,td{padding:.35rem .9rem .35rem 0;text-align:left;vertical-align:top;border-bottom:1px solid #e4e4e0}
th{font-weight:600}thead th{border-bottom:2px solid #bbb;vertical-align:bottom}
.numbers th:not(:first-child),.numbers td:not(:first-child){text-align:right}
td small{color:#888;white-space:nowrap;display:block;line-height:1.2}td.noise{color:#888}td.real{font-weight:600}
.images{display:grid;grid-template-columns:repeat(auto-fill,minmax(84px,1fr));gap:10px;margin-bottom:.6rem}
.beside{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:10px}
.figures{display:flex;flex-wrap:wrap;gap:1rem}.figures svg{width:330px;max-width:100%;height:auto}
figure{margin:0}img{width:100%;aspect-ratio:1;border-radius:4px;display:block;background:#ddd}
figcaption{font-size:11px;line-height:1.3;color:#555;margin-top:3px}
figcaption b{font-weight:400;color:#999}figcaption i{font-style:normal;color:#8a4b08}
.warning,td small.warning{color:#a01c1c;font-weight:600}
dt{font-weight:600}dd{margin:0 0 .6rem;max-width:76ch}
svg.rate{width:640px;max-width:100%;display:block;font-size:11px;fill:#666}
"""


def page(title: str, body: Iterable[str], small_images: bool = False, style: str = "") -> bytes:
    """Return the page under a heading; ``small_images`` are shown pixel by pixel, ``style`` is CSS of its own."""
    pixelated = "img{image-rendering:pixelated}" if small_images else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}{pixelated}</style><h1>{escape(title)}</h1>{''.join(body)}</html>\n"
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
    return f'<div class="table"><table{kind}>{titles}<tbody>{lines}</tbody></table></div>'


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
