"""Draws the damaged shards of a set again: they are moved aside, and the command that made the set fills the gaps.

In: a dataset folder. Out: the same folder, sound, where its generator or its parents are at hand; else only the damaged
files in ``quarantine/``. Sound shards are never touched. Killed anywhere, the same command goes on: a shard whose json
is gone is not complete, and an unfinished set with a quarantine is one whose repair was begun.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from synclones.base.errors import InputError, SynclonesError, VerificationError, one_line
from synclones.base.files import sync
from synclones.base.manifest import MANIFEST_FILE, read_manifest
from synclones.base.process import childs_environment, shell_code
from synclones.base.resume import CONFIG, typed
from synclones.base.units import format_count
from synclones.base.yaml_file import read_yaml
from synclones.shards.index import INFO, PLAN, SIZES, SUMS, content_hash, finish_folder, read_plan
from synclones.shards.lock import claim, remove_locks
from synclones.shards.schema import ShardFiles
from synclones.shards.stores.store import refuse_store
from synclones.shards.unfinished import MADE_BY, resume_arguments, resume_command
from synclones.shards.verify import Report, inspect

QUARANTINE = "quarantine"
# What another process would take for its own launcher's: a command that repairs is a job of its own.
_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class RepairConfig:
    """Draw the damaged shards of a set again, with the same bytes; what was damaged moves to its quarantine folder."""

    folder: Path = field(kw_only=False)
    """The dataset folder."""
    quarantine: bool = False
    """Only move the damaged files aside, and draw nothing: for sets whose generator is not at hand."""
    delete: bool = False
    """Remove the damaged files instead of moving them to the quarantine folder."""
    dry_run: bool = False
    """Say what is damaged and what would be done, and change nothing."""


def repair(config: RepairConfig) -> None:
    """Move damaged files aside, run the command that made the set, and verify the outcome.

    Raises:
        InputError: no such folder, or a set that cannot be made here again; nothing was moved.
        VerificationError: the plan is damaged, or the set is still damaged afterwards.
        SystemExit: the command failed; its own line says why.
    """
    folder = config.folder
    refuse_store(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that `synclones generate` made")
    report = inspect(folder)
    begun = bool(report.unfinished) and (folder / QUARANTINE).is_dir()
    if not report.problems and (config.quarantine or not begun):
        step = f"; unfinished: go on with `{resume_command(folder)}`" if report.unfinished else ""
        print(f"{folder}: {format_count(report.num_shards, 'shard')}, nothing is damaged{step}")
        return
    for problem in report.problems:
        print(one_line(problem), file=sys.stderr)
    _refuse_what_drawing_cannot_mend(folder, report)

    # Everything that could stop the drawing is asked before a file is moved.
    must_run = bool(report.damaged) or MANIFEST_FILE in report.stale or begun
    arguments = _checked_arguments(folder) if must_run and not config.quarantine else []
    if config.dry_run:
        print(_would_do(folder, report, config, arguments))
        return
    before = _identity(folder) or _identity(folder / QUARANTINE)
    _set_aside(folder, report, config.delete)
    if report.damaged and config.quarantine:
        print(f"{folder}: {_counted(report)} set aside; draw them again with: {resume_command(folder)}")
        return
    if report.stale and not report.damaged:
        finish_folder(folder)
    if arguments and (code := _called(arguments)):
        raise SystemExit(code)
    _say_outcome(folder, report, before)


def _refuse_what_drawing_cannot_mend(folder: Path, report: Report) -> None:
    """Refuse a set whose plan or manifest the rest contradicts: by a wrong plan every shard would be damaged.

    Raises:
        VerificationError: it is such a set.
    """
    of_another_plan = sum("belongs to plan" in problem for problem in report.problems)
    if PLAN in report.stale or of_another_plan == report.num_shards:
        raise VerificationError(f"{folder / PLAN}: damaged, and it says what is drawn; restore this file, then repair")
    if MANIFEST_FILE in report.stale and _identity(folder):
        raise VerificationError(report.problems[-1])


def _identity(folder: Path) -> str:
    """Return the content hash that the set had when it was finished, or nothing."""
    try:
        return str(read_manifest(folder).get("content_hash") or "")
    except SynclonesError:  # none, or a damaged one
        return ""


def _checked_arguments(folder: Path) -> list[str]:
    """Return the arguments of the command that makes the set, when it finds its generator and inputs.

    Raises:
        InputError: it does not, or the set has no settings.
    """
    aside = typed(["shards", "repair", str(folder), "--quarantine"])
    only = f"`{aside}` only moves the damaged files aside"
    arguments = resume_arguments(folder)
    if not read_plan(folder) or not arguments:
        raise InputError(f"{folder}: cannot be made again, {PLAN} or {CONFIG} is missing; {only}")
    uploads = read_yaml(folder / CONFIG).get("push_to_hub")
    if uploads is not None and uploads.value:
        raise InputError(f"{folder / CONFIG}: push_to_hub is set, and a repair uploads nothing; remove that line")
    trial = "--dry-run" if MADE_BY in read_plan(folder) else "--plan-only"
    if _called([*arguments, trial], quiet=True):
        raise InputError(f"{folder}: cannot be made again here, as the line above says; nothing was moved. {only}")
    return arguments


def _called(arguments: Sequence[str], quiet: bool = False) -> int:
    """Run another command of ours alone: it must not believe to be one of several ranks. Return its exit code."""
    environment = {
        name: value
        for name, value in childs_environment().items()
        if name not in _LAUNCHER and not name.startswith("TORCHELASTIC")
    }
    output = subprocess.DEVNULL if quiet else None
    command = [sys.executable, "-m", "synclones.cli", *arguments]
    return shell_code(subprocess.run(command, env=environment, stdout=output).returncode)


def _set_aside(folder: Path, report: Report, delete: bool) -> None:
    """Move away what is damaged, and what says that the set is whole; first what says so, then each shard's json."""
    for name in (MANIFEST_FILE, SUMS, INFO, SIZES) if report.damaged else report.stale:
        _move(folder / name, delete)
    for name in report.damaged:
        files = ShardFiles(folder, name)
        held = claim(folder, name)
        if held is None:
            raise InputError(f"{folder}: {name} is being drawn; stop that command, or let it end, then repair")
        with held:
            for path in (files.json, files.tar, files.parquet):
                _move(path, delete)
    for path in report.strangers:
        _move(path, delete)
    remove_locks(folder)


def _move(path: Path, delete: bool) -> None:
    """Bring a file out of the set; in the quarantine nothing is overwritten, not even an earlier damaged one."""
    if not (path.exists() or path.is_symlink()):
        return
    if delete and not path.is_dir():
        path.unlink()
        return
    quarantine = path.parent / QUARANTINE
    quarantine.mkdir(exist_ok=True)
    target, number = quarantine / path.name, 1
    while target.exists() or target.is_symlink():
        number += 1
        target = quarantine / f"{path.name}.{number}"
    path.rename(target)
    sync(quarantine)
    sync(path.parent)


def _say_outcome(folder: Path, report: Report, before: str) -> None:
    """Verify again, and say whether the set is the one that it was.

    Raises:
        VerificationError: a problem is left.
    """
    after = inspect(folder)
    if after.problems or after.unfinished:
        problem = after.problems[0] if after.problems else f"{folder}: unfinished, {after.unfinished}"
        hint = ""
        if read_plan(folder).get("retries"):
            hint = "; this set shares shards with its earlier version: repair that one first"
        raise VerificationError(f"{problem}{hint}")
    same = "content as before" if content_hash(folder) == before else f"content {content_hash(folder)[:16]}"
    print(
        f"{folder}: {_counted(report) or 'what was set aside'} made again; all {after.num_shards} shards verify, {same}"
    )


def _counted(report: Report) -> str:
    parts = [f"{len(report.damaged)} of {report.num_shards} shards"] if report.damaged else []
    parts += [f"{format_count(len(report.strangers), 'file')} foreign to the set"] if report.strangers else []
    parts += [f"{', '.join(report.stale)}"] if report.stale and not report.damaged else []
    return " and ".join(parts)


def _would_do(folder: Path, report: Report, config: RepairConfig, arguments: list[str]) -> str:
    way = "delete" if config.delete else f"move to {folder / QUARANTINE}"
    names = [*report.damaged, *(path.name for path in report.strangers), *report.stale]
    step = f"\nthen       {resume_command(folder)}" if arguments else ""
    return f"would {way}: {', '.join(names) or 'nothing more'}{step}"
