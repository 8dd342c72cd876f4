"""Compares a dataset folder with everything its sidecars promise, and names what is damaged.

In: a finished folder. Out: a `Report`, or VerificationError with the first problem. A tar has no integrity of its own
(readers take a damaged header for the end of the archive), so every byte is checked against a stored hash. The hashes
are checked against each other: shard's json, SHA256SUMS, manifest; whichever was changed alone is found.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synclones.base.errors import SynclonesError, VerificationError
from synclones.base.files import sha256_file
from synclones.base.manifest import MANIFEST_FILE, read_manifest
from synclones.base.progress import BYTES, Progress
from synclones.base.resume import typed
from synclones.shards.column_check import column_problems
from synclones.shards.index import (
    INFO,
    PLAN,
    SIZES,
    SUMS,
    Summary,
    derived_files,
    expected_names,
    own_summary,
    present_split,
    read_checksums,
    read_plan,
)
from synclones.shards.schema import SHARD_PATTERN, SPLITS, ShardFiles, sample_key
from synclones.shards.shard import Shard, opened
from synclones.shards.unfinished import how_far, is_unfinished, resume_command

AtHand = Callable[[ShardFiles], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Report:
    """What a folder holds, and every problem found in it, shards in order."""

    num_shards: int
    num_samples: int
    num_bytes: int
    problems: tuple[str, ...]
    """What is damaged."""
    unfinished: str = ""
    """How far a set is that was begun and never finished, in words; empty for a finished one."""
    damaged: tuple[str, ...] = ()
    """The planned shards of which a problem speaks, by name, in order."""
    strangers: tuple[Path, ...] = ()
    """Files that readers would take for shards, and that are none of this set."""
    stale: tuple[str, ...] = ()
    """Files beside the shards that are missing or differ from what the shards say."""


class _Findings:
    """The problems of a folder while it is looked at."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.damaged: list[str] = []
        self.strangers: list[Path] = []
        self.stale: list[str] = []

    def shard(self, name: str, problem: str) -> None:
        self.problems.append(problem)
        self.damaged += [] if name in self.damaged else [name]

    def file(self, name: str, problem: str) -> None:
        self.problems.append(problem)
        self.stale += [] if name in self.stale else [name]


def verify(folder: Path, *, quick: bool = False, split: str | None = None) -> Report:
    """Check presence, sizes, hashes, indexes; ``quick`` checks presence and sizes only.

    ``split``: read from the folder by default.

    Raises:
        VerificationError: one line with the first problem, naming shard and, where one is hit, sample, and the number
            of problems; or for a set that is sound and unfinished.
    """
    report = inspect(folder, quick=quick, split=split)
    if report.problems:
        others = f" (and {len(report.problems) - 1} more problems)" if len(report.problems) > 1 else ""
        raise VerificationError(f"{report.problems[0]}{others}")
    if report.unfinished:
        raise VerificationError(f"{folder}: unfinished, {report.unfinished}; go on with: {resume_command(folder)}")
    return report


def inspect(folder: Path, *, quick: bool = False, split: str | None = None, at_hand: AtHand = nullcontext) -> Report:
    """Check as `verify` does, and return all problems.

    ``at_hand``: a context in which a shard's tar and Parquet file have their bytes; before it, they have their sizes.
    """
    folder = Path(folder)
    split = split or present_split(folder)
    findings = _Findings()
    samples = size = 0
    plan_id = str(read_plan(folder).get("plan_id", ""))
    names = expected_names(folder, split)
    if not names:
        raise VerificationError(f"{folder}: no shard; give a folder that `synclones generate` made")
    # What was never drawn is no damage, nor are indexes that the last process would have written.
    unfinished = how_far(folder, split) if is_unfinished(folder) else ""
    drawn = [name for name in names if not unfinished or ShardFiles(folder, name).json.exists()]
    with Progress(BYTES, _stated_bytes(folder, drawn), what=f"checking {folder}", shares=1) as progress:
        for name in drawn:
            try:
                summary = _check_shard(ShardFiles(folder, name), plan_id, quick, at_hand)
                samples, size = samples + summary["ok"], size + summary["tar"]["bytes"]
            except VerificationError as error:
                findings.shard(name, str(error))
            progress.add(_stated_bytes(folder, [name]))
    _find_strangers(folder, set(names), findings)
    if not unfinished:
        _check_sums(folder, names, quick, findings)
        if not (quick or findings.problems):  # what follows from damaged files says nothing of the others
            _check_derived(folder, names, split, findings)
    findings.problems += column_problems(folder, names, quick, unfinished=bool(unfinished))
    return Report(
        num_shards=len(names),
        num_samples=samples,
        num_bytes=size,
        problems=tuple(findings.problems),
        unfinished=unfinished,
        damaged=tuple(sorted(findings.damaged, key=names.index)),
        strangers=tuple(findings.strangers),
        stale=tuple(findings.stale),
    )


def _stated_bytes(folder: Path, names: list[str]) -> int:
    """Return how large the tars and Parquet files are, for people; a missing one has no size."""
    paths = (path for name in names for path in (ShardFiles(folder, name).tar, ShardFiles(folder, name).parquet))
    return sum(path.stat().st_size for path in paths if path.is_file())


def _check_shard(files: ShardFiles, plan_id: str, quick: bool, at_hand: AtHand) -> Summary:
    summary = own_summary(files)
    if plan_id and summary["plan_id"] != plan_id:
        raise VerificationError(f"{files.json}: belongs to plan {summary['plan_id']}, the folder to plan {plan_id}")
    stated = {files.parquet: summary["parquet"], files.tar: summary["tar"]}
    for path in stated:
        if not path.is_file():
            raise VerificationError(f"{path}: missing; delete {files.json.name} and run the same generate command")
    if quick and all(path.stat().st_size == stated[path]["bytes"] for path in stated):
        return summary
    with at_hand(files):
        for path in stated:
            _check_file(files, path, summary, quick)
    return summary


def _check_file(files: ShardFiles, path: Path, summary: Summary, quick: bool) -> None:
    stated = summary[path.suffix.removeprefix(".")]
    size = path.stat().st_size
    if size != stated["bytes"] or not (quick or sha256_file(path) == stated["sha256"]):
        what = _first_bad_sample(files, summary) if path == files.tar else "differs from the hash in its json"
        raise VerificationError(
            f"{path}: {what} ({size} bytes, {stated['bytes']} stated); "
            f"delete the three files of {files.name} and run the same generate command"
        )


def _first_bad_sample(files: ShardFiles, summary: Summary) -> str:
    """Say which sample of a damaged tar is hit first."""
    try:
        shard = Shard(files, summary)
    except (VerificationError, OSError):
        return "damaged, and so is its parquet"
    with opened(files.tar) as read_range:
        for position in range(len(shard)):
            try:
                shard.read(position, read_range)
            except VerificationError:
                return f"damaged, first in sample {sample_key(int(shard.index[position]))}"
    return "damaged behind its last sample"


def _find_strangers(folder: Path, names: set[str], findings: _Findings) -> None:
    """Find what a reader of ``*.tar``, or of another split's names, would take for a shard of this set."""
    for path in sorted(folder.iterdir()):
        shard = SHARD_PATTERN.fullmatch(path.stem)
        is_named_so = shard is not None and shard["split"] in SPLITS and path.suffix in (".parquet", ".json")
        is_tar = path.suffix == ".tar" and not path.name.startswith(".")
        if (is_tar or is_named_so) and path.stem not in names:
            findings.strangers.append(path)
            findings.problems.append(f"{path}: not a shard of this plan; move it away")


def _check_sums(folder: Path, names: list[str], quick: bool, findings: _Findings) -> None:
    """Check SHA256SUMS against the other files, and against the shards' own jsons."""
    try:
        sums = read_checksums(folder)
    except VerificationError as error:
        findings.file(SUMS, str(error))
        return
    own = [name for name in sums if not SHARD_PATTERN.fullmatch(Path(name).stem)]
    for name in own:
        if not (folder / name).is_file():
            findings.file(name, f"{folder / name}: missing; run the same generate command")
        elif not quick and sha256_file(folder / name) != sums[name]:
            findings.file(name, f"{folder / name}: differs from {SUMS}; run the same generate command")
    # A shard may be sound in itself and of another set; the manifest tells whether it or SHA256SUMS was exchanged.
    blames_sums = _stated_content(folder) not in ("", sha256_file(folder / SUMS))
    for name in names:
        path = folder / f"{name}.json"
        if path.exists() and (path.name not in sums or sha256_file(path) != sums[path.name]):
            problem = f"{path}: differs from {SUMS}; run the same generate command"
            findings.file(SUMS, problem) if blames_sums else findings.shard(name, problem)


def _check_derived(folder: Path, names: list[str], split: str, findings: _Findings) -> None:
    """Check that sound shards have the indexes that follow from them, and the manifest their content hash."""
    # Every file agrees with SHA256SUMS by now, but all of them may have been written for other shards.
    extra = [name for name in read_checksums(folder) if not SHARD_PATTERN.fullmatch(Path(name).stem)]
    extra = [name for name in extra if name not in (PLAN, INFO, SIZES)]
    for name, data in derived_files(folder, names, split, extra).items():
        path = folder / name
        if not (path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data):
            again = typed(["shards", "finish", str(folder)])
            findings.file(name, f"{path}: is not what follows from the shards; run `{again}`")
    stated, content = _stated_content(folder), sha256_file(folder / SUMS)
    if not findings.problems and stated not in ("", content):
        findings.file(
            MANIFEST_FILE,
            f"{folder / MANIFEST_FILE}: states content {stated[:16]}, {SUMS} has {content[:16]}; "
            "files were exchanged: restore them, or run the same generate command into a new folder",
        )


def _stated_content(folder: Path) -> str:
    """Return the content hash that the manifest states; empty where there is none, "damaged" for no manifest."""
    if not (folder / MANIFEST_FILE).exists():
        return ""
    try:
        return str(read_manifest(folder).get("content_hash") or "")
    except SynclonesError:
        return "damaged"
