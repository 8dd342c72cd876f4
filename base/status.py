"""What ``synclones status`` says of a folder, whichever room made it: planned, done, failed, rate, holders, next step.

In: a folder or file. Out: a `Status`, as lines or as JSON. Each room that makes something has a file ``status.py`` with
``status(path)``, which returns one, or None where the path is none of its own: adding a room adds a file.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from synclones.base.errors import InputError, one_line
from synclones.base.manifest import MANIFEST_FILE, read_manifest
from synclones.base.progress import Beat, read_beats
from synclones.base.resume import typed
from synclones.base.units import format_duration, format_rate

SCHEMA_VERSION = 1
SHOWN_HOLDERS = 8
State = Literal["planned", "running", "unfinished", "finished", "damaged"]


@dataclass(frozen=True)
class Holder:
    """Who works on a part of a folder."""

    what: str
    host: str
    pid: int
    since_s: float
    """How long ago it took it, or was last seen."""
    alive: bool | None
    """None where that cannot be known from this machine."""

    def line(self) -> str:
        """Return it in words."""
        doubts = {True: "", False: "; it does not answer any more"}
        doubt = doubts.get(self.alive, "; another machine, so whether it lives is not known here")  # type: ignore[arg-type]
        return f"{self.what} by {self.host} process {self.pid}, for {format_duration(self.since_s)}{doubt}"


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far something is."""

    kind: str
    """What it is, such as ``dataset`` or ``training``."""
    path: str
    state: State
    unit: str
    planned: int | None = None
    """None where that is not known."""
    done: int = 0
    failed: int = 0
    dropped: int = 0
    rate_per_s: float | None = None
    """Of all processes that work on it now, or over the whole job when it is finished."""
    eta_s: float | None = None
    holders: Sequence[Holder] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    """What else there is to say, by short headings."""
    problems: Sequence[str] = ()
    next: str = ""
    """The command to run next; empty where nothing is to do."""
    look: str = ""
    """A file to open."""

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values; fields are added and never change their meaning."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    def lines(self) -> list[str]:
        """Return it for people."""
        planned = "" if self.planned is None else f" of {self.planned:,}"
        without = "".join(
            f", {count:,} {name}" for name, count in (("failed", self.failed), ("dropped", self.dropped)) if count
        )
        rows = [("", f"{self.path}: {self.kind}, {self.state}")]
        rows.append(("done", f"{self.done:,}{planned} {self.unit}{without}"))
        if self.rate_per_s is not None:
            eta = "" if self.eta_s is None else f", ETA {format_duration(self.eta_s)}"
            rows.append(("rate", f"{format_rate(self.rate_per_s)} {self.unit}/s{eta}"))
        rows += [(heading, str(value)) for heading, value in self.facts.items()]
        rows += [("held", holder.line()) for holder in self.holders[:SHOWN_HOLDERS]]
        if len(self.holders) > SHOWN_HOLDERS:
            rows.append(("", f"           and {len(self.holders) - SHOWN_HOLDERS} more"))
        rows += [("problem", problem) for problem in self.problems]
        rows += [(name, text) for name, text in (("look", self.look), ("next", self.next)) if text]
        return [one_line(f"{heading:<10} {text}" if heading else text) for heading, text in rows]


def nobody_s(path: Path) -> Status:
    """Return what the manifest of a folder says that no room has a status of.

    Raises:
        InputError: it has none.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give one that a synclones command made")
    if not (path / MANIFEST_FILE).is_file():
        if (now := pace(path)).last is not None:
            return _begun(path, now, now.last)
        raise InputError(
            f"{path}: nothing that a synclones command made (no plan, manifest or prompt table); give a dataset, a "
            "run, a folder of results, a store of grids or a prompt table"
        )
    manifest = read_manifest(path)
    counts = {str(name): value for name, value in manifest.get("counts", {}).items()}
    number = next((value for value in counts.values() if type(value) is int), 0)
    unit = next(iter(counts), "files")
    return Status(
        kind=str(manifest["stage"]),
        path=str(path),
        state="finished",
        unit=unit,
        planned=number,
        done=number,
        facts=counts,
        next=typed(["trace", str(path)]),
    )


def _begun(path: Path, now: "Pace", last: Beat) -> Status:
    """Return how far a folder is that nothing but the progress of its processes tells of."""
    return Status(
        kind=last.what or "folder",
        path=str(path),
        state="running" if now.is_running else "unfinished",
        unit=last.unit,
        planned=last.total,
        done=last.done,
        rate_per_s=now.rate_per_s,
        eta_s=now.eta_s(last.total - last.done) if now.is_running else None,
    )


@dataclass(frozen=True)
class Pace:
    """How fast the processes are that work in a folder now, and where the last one was."""

    rate_per_s: float | None
    last: Beat | None
    is_running: bool

    def eta_s(self, left: int | None) -> float | None:
        """Return how long ``left`` takes, None where that is not known."""
        return left / self.rate_per_s if self.rate_per_s and left is not None else None


def pace(folder: Path, unit: str = "") -> Pace:
    """Return how fast the processes are that work in ``folder``; of one ``unit`` where others do other work there."""
    beats = [beat for beat in read_beats(folder) if unit in ("", beat.unit)]
    alive = [beat for beat in beats if beat.is_alive]
    rate = sum(beat.rate for beat in alive) or None
    return Pace(rate, beats[-1] if beats else None, bool(alive))
