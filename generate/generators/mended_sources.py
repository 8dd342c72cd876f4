"""What a file of ``--images`` was when a set was planned, of files that turned out unusable while the set was drawn.

In: the dataset folder. Out: ``mended_sources.json`` in it. The plan names the content of all source images; of a file
that gave no image it is kept here, so that mending that file, and no other, leaves the plan as it is.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError
from synclones.base.files import write_atomic
from synclones.base.json_file import pretty_json, read_json
from synclones.shards.lock import claim

RECORD = "mended_sources.json"


def planned_sources(folders: Sequence[Path | None], source: str) -> tuple[str, dict[str, str]]:
    """Return (source hash, file name -> SHA-256) as they were planned: ``source`` and nothing without a record.

    Raises:
        InputError: for a record that is none.
    """
    files: dict[str, str] = {}
    for folder in folders:
        record = {} if folder is None else _read(folder / RECORD)
        if record:
            source, files = record["source"], files | record["files"]
    return source, files


def keep_as_planned(folder: Path, source: str, name: str, sha256: str) -> None:
    """Record what a file was when the set in ``folder`` was planned; nothing where no set was begun.

    ``source``: the hash of all names and sizes then, which keys of images begin with.
    """
    if not folder.is_dir():
        return
    held = claim(folder, "sources", wait=True)
    assert held is not None, "a claim that waits is always granted"
    with held:
        files = (_read(folder / RECORD) or {"files": {}})["files"]
        write_atomic(folder / RECORD, pretty_json({"source": source, "files": files | {name: sha256}}))


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        record = read_json(path)
        texts = [record["source"], *record["files"], *record["files"].values()]
    except (ValueError, KeyError, TypeError, AttributeError):
        texts = [None]
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"{path}: not a record of synclones; put it back, or choose a new --out")
    known: dict[str, Any] = record
    return known
