"""What all pages of the browser have in common: the frame, links with quoted addresses, and where a folder came from.

In: texts that anybody may have written. Out: HTML in which they are texts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from synclones.base.errors import InputError
from synclones.base.manifest import find_parent, read_manifest
from synclones.base.page import page
from synclones.base.resume import typed
from synclones.serve.folders import RESULTS, RUN, SET, Folder, Folders
from synclones.serve.pages.style import STYLE

RENEWED_S = 15
HOME = '<a href="/">all folders</a>'
ADDRESSES = {SET: "/images", RUN: "/runs", RESULTS: "/results"}
STILL = "still"
"""The parameter of a page that does not renew itself."""
Parameters = Sequence[tuple[str, str]]


def address(path: str, **parameters: Any) -> str:
    """Return an address with its parameters, those left out that are empty or None; lists stand several times."""
    given = {name.rstrip("_"): value for name, value in parameters.items() if value not in ("", None)}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def link(text: str, path: str, **parameters: Any) -> str:
    """Return a link; a parameter may end in ``_`` where Python has the word for itself."""
    return f'<a href="{escape(address(path, **parameters))}">{escape(text)}</a>'


def framed(title: str, body: Iterable[str], links: Sequence[str] = (), small_images: bool = False) -> bytes:
    """Return a page under its ``links``, which are HTML."""
    return page(title, body, small_images, STYLE, "".join(links))


def folder_link(folder: Folder) -> str:
    """Return the link to what a folder holds; a path may break behind a slash, so that a telephone shows the rest."""
    where = escape(address(ADDRESSES[folder.kind], folder=folder.name))
    return f'<a href="{where}">{escape(folder.name).replace("/", "/<wbr>")}</a>'


def command(*words: str) -> str:
    """Return a command to copy."""
    return f"<pre>{escape(typed(words))}</pre>"


@dataclass(frozen=True)
class Shown:
    """A page, its status, and when the browser asks again: ``15``, ``0; url=...`` for another one, never when empty."""

    page: bytes
    refresh: str = ""
    status: int = 200


def renewing(why: str, parameters: Parameters) -> tuple[str, str]:
    """Return the note of a page about what is not finished, and its `Shown.refresh`.

    Args:
        why: what is not finished.
        parameters: of the page's address; one of them may say that it shall stay as it is.
    """
    own = [(name, value) for name, value in parameters if name != STILL]
    is_still = len(own) < len(parameters)
    target = escape(urlencode(own if is_still else [*own, (STILL, "1")]))
    words = (
        f'This page stays as it is; <a href="?{target}">renew it every {RENEWED_S} s</a>.'
        if is_still
        else f'This page renews itself every {RENEWED_S} s; <a href="?{target}">stop that</a>.'
    )
    return f'<p class="note">{escape(why)} {words}</p>', "" if is_still else str(RENEWED_S)


def made_from(folder: Folder, folders: Folders) -> str:
    """Return what the manifest of a folder names as its origin, with links to what is looked at here."""
    try:
        parents = read_manifest(folder.path).get("parents", [])
    except InputError:
        return ""
    shown = {each.path.resolve(): each for each in folders.all().values()} if parents else {}
    items = []
    for parent in parents:
        path = find_parent(folder.path, parent["path"])
        target = shown.get(path.resolve()) if path else None
        name = folder_link(target) if target else escape(parent["path"])
        items.append(f"<li>{escape(parent['name'])} {name} <small>{escape(parent['content_hash'][:16])}</small></li>")
    return f"<h2>Made from</h2><ul>{''.join(items)}</ul>{command('trace', folder.name)}" if items else ""


def problem_page(status: int, message: str) -> bytes:
    """Return the page that says in one line why there is no other."""
    titles = {404: "Not here", 400: "That cannot be asked", 405: "Nothing is changed here"}
    return framed(titles.get(status, "This could not be read"), [f'<p class="warning">{escape(message)}</p>'], [HOME])


def is_below(path: Path, folder: Path) -> bool:
    """Return whether a file lies in a folder itself, and is no link that leads out of it."""
    return path.parent == folder and path.is_file() and not path.is_symlink()
