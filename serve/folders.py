"""Which folders are looked at, and of which kind each is: a set of images, a training run, or results of evaluations.

In: the paths of the command line. Out: `Folder`s by their names, looked up again while the server runs, so that what
another command begins meanwhile is seen. Nothing outside these folders has a name, so nothing else can be asked for.
"""

import heapq
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synclones.base.errors import InputError, VerificationError
from synclones.base.json_file import read_json
from synclones.base.manifest import MANIFEST_FILE
from synclones.evaluate.stored.results import CELL_NAME
from synclones.shards.index import INFO, PLAN, present_split, shard_names
from synclones.shards.stores.store import refuse_store

DEPTH = 3
"""How far below a given folder others are sought: `runs/seed-0/NAME`, or `lab-results/results/seed-0`."""
MOST_FOLDERS = 2000  # that are looked into; a folder of images has thousands, none of ours
RENEWED_S = 2.0
DEFAULTS = ("data", "runs", "results")
SET, RUN, RESULTS = "set", "run", "results"
LOG, LOGITS = "metrics.jsonl", "logits"


class NotServed(InputError):
    """A folder that is none of those looked at was asked for, or an image that its set has not."""


@dataclass(frozen=True)
class Folder:
    """A folder that is looked at.

    Attributes:
        name: its path as it was given, or as it lies below one that was: what addresses hold.
        kind: set, run or results.
    """

    name: str
    path: Path
    kind: str


class Folders:
    """The folders that a server shows. Safe to use from several threads."""

    def __init__(self, given: Sequence[Path]):
        """Look into the folders.

        Raises:
            InputError: one is missing, or there is nothing of ours in it.
        """
        self._given = list(given) or [Path(name) for name in DEFAULTS if Path(name).is_dir()]
        if not self._given:
            raise InputError(
                f"no folder {', '.join(DEFAULTS)} here; give folders, as in `synclones serve data/x runs/x`"
            )
        for path in self._given:
            _check(path)
        self._lock, self._looked, self._folders = threading.Lock(), float("-inf"), dict[str, Folder]()

    def all(self) -> dict[str, Folder]:
        """Return name -> folder, in the order given, as of at most two seconds ago."""
        with self._lock:
            if time.monotonic() > self._looked + RENEWED_S:
                listed = (folder for path in self._given for folder in below(path))
                self._folders = {folder.name: folder for folder in listed}
                self._looked = time.monotonic()
            return self._folders

    def get(self, name: str, kind: str) -> Folder:
        """Return the folder of a name.

        Raises:
            NotServed: it is none of those that are looked at.
            InputError: it is of another kind.
        """
        folder = self.all().get(name)
        if folder is None:
            raise NotServed(f"{name[:200]!r} is none of the folders that are looked at here")
        if folder.kind != kind:
            words = {SET: "a set of images", RUN: "a training run", RESULTS: "results of evaluations"}
            raise InputError(f"{name}: holds {words[folder.kind]}, not {words[kind]}")
        return folder

    def of_kind(self, kind: str) -> list[Folder]:
        """Return the folders of a kind, in the order given."""
        return [folder for folder in self.all().values() if folder.kind == kind]


def _check(path: Path) -> None:
    refuse_store(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give a set, a run, results, or a folder with some of them")
    if not below(path):
        raise InputError(
            f"{path}: neither a set of images, a training run nor results, and none lies in it; "
            "give a folder that a synclones command made"
        )


def below(path: Path) -> list[Folder]:
    """Return the folder itself if it is of ours, else those of ours below it, in alphabetic order."""
    # The first children of all folders before the later ones of any: one with thousands hides none of the others.
    waiting, ours, looked = [(0, 0, path)], list[Folder](), 0
    while waiting and looked < MOST_FOLDERS:
        rank, depth, folder = heapq.heappop(waiting)
        looked += 1
        kind = kind_of(folder)
        if kind:
            ours.append(Folder(str(folder), folder, kind))
        elif depth < DEPTH:
            for number, child in enumerate(_children(folder)):
                heapq.heappush(waiting, (max(rank, number), depth + 1, child))
    return sorted(ours, key=lambda folder: folder.path.parts)


def _children(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _is_shown(entry.name) and entry.is_dir()]
    except OSError:  # not ours to read
        return []
    return [folder / name for name in sorted(names)]


def _is_shown(name: str) -> bool:
    """Whether a folder may be listed: not hidden, and of a name that an address and a page can hold."""
    return not name.startswith(".") and not any("\udc80" <= character <= "\udcff" for character in name)


def kind_of(folder: Path) -> str:
    """Return set, run or results, by what lies in the folder; empty when it is none of them."""
    stage, plan = _stated(folder / MANIFEST_FILE).get("stage"), _stated(folder / PLAN)
    if stage in ("train", "evaluate"):
        return RUN if stage == "train" else RESULTS
    if "num_shards" in plan:
        return SET
    if (folder / LOG).is_file() or {"data", "batch_size", "seed"} <= plan.keys():
        return RUN
    try:
        if (folder / INFO).is_file() or shard_names(folder, present_split(folder)):
            return SET
        has_numbers = any(CELL_NAME.fullmatch(path.name) for path in folder.glob("*.json"))
    except OSError:
        return ""
    return RESULTS if has_numbers or (folder / LOGITS).is_dir() else ""


def _stated(path: Path) -> dict[str, object]:
    """Return the object in a JSON file; empty when there is none that can be read."""
    try:
        value = read_json(path)
    except (OSError, ValueError, VerificationError):
        return {}
    return value if isinstance(value, dict) else {}
