"""Where what is derived from a set is kept: hidden beside it, or below the user's cache where it cannot be written.

In: the folder of a set. Out: the folder to look in or to write to, for an index or what else can be made anew.
"""

import os
import sys
from pathlib import Path

from synclones.base import machine
from synclones.base.errors import InputError, one_line
from synclones.base.files import sha256_bytes

OWN = ".synclones"  # what this project keeps beside a set: no part of it, and nothing that is missed
_WRITE_BITS = 0o222
_NOTED: set[str] = set()


def user_cache() -> Path:
    """Return this project's folder in the user's cache: ``$XDG_CACHE_HOME/synclones``, or below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "synclones"


def kept_folders(root: Path, name: str, *, beside: bool = True) -> list[Path]:
    """List the folders in which ``name`` may be kept for the set in ``root``, the preferred one first.

    ``beside``: whether a hidden folder in the set disturbs no other reader of it.
    """
    elsewhere = user_cache() / "index" / sha256_bytes(os.fsencode(root.resolve()))[:24] / name
    return [root / OWN / name, elsewhere] if beside else [elsewhere]


def writable_folder(folders: list[Path], root: Path, what: str) -> Path:
    """Return the first of `kept_folders` that can be written, made if need be; ``what`` is kept there, such as index.

    Raises:
        InputError: a link lies there, or none can be written.
        OSError: from the disk.
    """
    for location in folders:
        for folder in (location.parent, location):
            if folder.is_symlink():
                raise InputError(f"{folder}: a link, where the {what} of a set is kept; remove it")
        try:
            # Root may write anywhere; a set that nobody has leave to write to is respected all the same.
            if location is folders[-1] or root.stat().st_mode & _WRITE_BITS:
                location.mkdir(parents=True, exist_ok=True)
                if os.access(location, os.W_OK):
                    return location
        except OSError:
            if location is folders[-1]:
                raise
        if location is not folders[-1]:
            note_once(f"{root}: cannot be written; its {what} is kept in {folders[-1]}")
    raise InputError(f"{folders[-1]}: cannot be written; set XDG_CACHE_HOME to a folder that can")


def note_once(text: str) -> None:
    """Tell the user something about a set, the first time that this process has it to say."""
    if text not in _NOTED:
        _NOTED.add(text)
        note(text)


def note(text: str) -> None:
    """Print a line to standard error, by one process of each machine."""
    if machine.local_rank() == 0:
        print(f"synclones: note: {one_line(text)}", file=sys.stderr, flush=True)
