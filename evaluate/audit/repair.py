"""Writes logs of running means again with the accuracies that they are means of.

In: `Log`s of corruptions. Out: files of the same shape: ``acc`` is the accuracy of each set, ``acc_running_mean`` what
the log had. Nothing is ever overwritten.
"""

from pathlib import Path

from synclones.base.errors import InputError
from synclones.base.files import write_atomic
from synclones.base.json_file import pretty_json
from synclones.evaluate.audit.checks import corrupted
from synclones.evaluate.audit.logs import Log

REPAIRED = ("certain", "likely")


def repairable(logs: list[Log]) -> list[Log]:
    """Return the logs that hold running means."""
    series = [(log, corrupted(log)) for log in logs if log.kind == "corruptions"]
    return [log for log, item in series if item is not None and item.verdict.certainty in REPAIRED]


def repaired(log: Log) -> bytes:
    """Return the text of a log with its running means undone, as precise as the log allows."""
    series = corrupted(log)
    assert series is not None
    entries = [
        entry | {"acc": round(value, series.digits), "acc_running_mean": entry["acc"]}
        for entry, value in zip(log.entries, series.verdict.recovered, strict=True)
    ]
    return pretty_json(entries)


def targets(logs: list[Log], results: Path, out: Path) -> dict[Path, Log]:
    """Return where each log is written: ``out`` itself for a single file, else below it under its own name.

    Raises:
        InputError: when one of them is in the way.
    """
    paths = {out / log.name if results.is_dir() else out: log for log in logs}
    for path in paths:
        if path.exists() or path.is_symlink():
            raise InputError(f"--out: {path} exists already; nothing is overwritten, give another name")
    return paths


def write_repaired(paths: dict[Path, Log]) -> None:
    """Write the logs, each whole."""
    for path, log in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, repaired(log))
