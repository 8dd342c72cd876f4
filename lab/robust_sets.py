"""The lab's robustness sets as a folder: miniatures of benchmarks, each in the layout of the real one.

In: the real test digits, never those that anything was trained on. Out: 7,000 small images below one folder, the same
bytes for the same seed and versions, and a ``manifest.json`` whose presence says that all are there:

    lab-val, -R, -A/CLASS/*                ImageNet, -R, -A    lab-cue-conflict/SHAPE/SHAPE3-TEXTURE8.png
    lab-C/CORRUPTION/SEVERITY/CLASS/*.png  ImageNet-C          lab-IN9/VARIANT/val/00_GROUP/*.png
    lab-OOD/KIND/images/*.png              outliers            lab-FOCUS/annotations.db, CLASS-SETTING/*.jpg
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synclones.base.differences import differences
from synclones.base.errors import InputError, one_line
from synclones.base.files import replaced_folder, sha256_bytes, sync_disks
from synclones.base.json_file import pretty_json
from synclones.base.manifest import MANIFEST_FILE, read_manifest, write_manifest
from synclones.lab.digits import load_split
from synclones.lab.robust_images import CORRUPTION_TABLE, as_they_are, corrupted, hard_digits, outliers, renditions
from synclones.lab.robust_scenes import backgrounds, cue_conflict, focus

STAGE_NAME = "lab robustness sets"
FORMAT = 1
"""Of the drawing: another number, other images."""
_LIBRARIES = ("numpy", "scipy", "pillow", "torch", "scikit-learn", "simplejpeg", "matplotlib")

SETS: dict[str, Callable[[np.ndarray, np.ndarray, int], Iterator[tuple[str, bytes]]]] = {
    "lab-val": as_they_are,
    "lab-C": corrupted,
    "lab-R": renditions,
    "lab-A": hard_digits,
    "lab-OOD": outliers,
    "lab-cue-conflict": cue_conflict,
    "lab-IN9": backgrounds,
    "lab-FOCUS": focus,
}


def write_robust_sets(folder: Path, seed: int = 0) -> Path:
    """Write the lab's robustness sets, whole or not at all; return ``folder``.

    One that is there already is kept; one that another version made is made again, which is said.

    Raises:
        InputError: ``folder`` holds something else.
    """
    folder, started = Path(folder), time.monotonic()
    plan = _plan(seed)
    if _is_finished(folder, plan):
        return folder
    strokes, labels = load_split("test")
    hashes: list[str] = []
    counts: dict[str, int] = {}
    with _one_thread(), replaced_folder(folder) as temporary:
        for name, draw in SETS.items():
            written = [_write(temporary, f"{name}/{path}", data) for path, data in draw(strokes, labels, seed)]
            hashes += written
            counts[name] = len(written)
        # The corrupted set says that it is no released one, as those of `synclones evaluate corrupt` do.
        settings = {"generated": True, "data": "lab-val", "seed": seed, "table": CORRUPTION_TABLE}
        hashes.append(_write(temporary, "lab-C/corrupted.json", pretty_json(settings)))
        sync_disks()  # at once; file by file it would take longer than drawing them
        content = sha256_bytes("".join(sorted(hashes)).encode())
        times = {"seconds": round(time.monotonic() - started, 1)}
        write_manifest(temporary, STAGE_NAME, plan, [], counts, times, {"content_hash": content})
    return folder


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Draw with one thread: several spend most of their time waiting for each other over images of 32 px."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _plan(seed: int) -> dict[str, Any]:
    """Return what decides the bytes."""
    return {"format": FORMAT, "seed": seed, "versions": {name: metadata.version(name) for name in _LIBRARIES}}


def _is_finished(folder: Path, plan: dict[str, Any]) -> bool:
    """Return whether the folder is there as asked.

    Raises:
        InputError: it holds what is not ours to replace.
    """
    if not folder.exists():
        return False
    if folder.is_dir() and not any(folder.iterdir()):
        return False
    try:
        record = read_manifest(folder)
    except (InputError, NotADirectoryError):
        record = {"stage": ""}
    if record["stage"] != STAGE_NAME:
        raise InputError(f"{folder}: holds something else than the lab's robustness sets; move it away")
    if record.get("config") == plan:
        return True
    changed = differences(record.get("config", {}), plan, ("then", "now"))
    print(one_line(f"{folder}: {changed}; it is made again"), file=sys.stderr)
    return False


def _write(folder: Path, name: str, data: bytes) -> str:
    """Write a file and return the line that stands for it in the identity of all."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:  # a name that is drawn twice is a mistake of ours
        file.write(data)
    return f"{sha256_bytes(data)}  {name}\n"


def identity(folder: Path) -> str:
    """Return the identity that the files in a folder of robustness sets have, as its manifest should state it."""
    files = (path for path in Path(folder).rglob("*") if path.is_file() and path.name != MANIFEST_FILE)
    lines = [f"{sha256_bytes(path.read_bytes())}  {path.relative_to(folder).as_posix()}\n" for path in files]
    return sha256_bytes("".join(sorted(lines)).encode())
