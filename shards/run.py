"""Checks, shows, mends, divides and hands on dataset folders; most verbs have their file in ``tools/``.

synclones shards verify data/lab
synclones shards show s3://bucket/prefix --index 7 --out seven.jpg
synclones shards stats data/lab --out stats.html
synclones shards index data/imagenet/train
synclones shards mix --data data/lab data/real:3
synclones shards annotate data/lab --from captions.parquet --columns caption
synclones shards retrieve data/laion --model clip --classes classes.csv --out data/retrieved
synclones shards repair data/lab
synclones shards subset data/lab --per-class 50 --out data/small
synclones shards export data/lab --to imagefolder --out data/folders
synclones shards push data/lab OWNER/NAME
"""

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError, VerificationError, one_line
from synclones.base.files import write_atomic
from synclones.base.output import is_quiet, print_json, wants_json
from synclones.base.process import run_main
from synclones.base.resume import typed
from synclones.base.stage import Stage, Verb
from synclones.base.units import format_bytes, format_count
from synclones.shards.column_files import column_names, open_column
from synclones.shards.index import finish_folder, present_split, shard_names
from synclones.shards.mirror import LocalSet, open_set
from synclones.shards.read import ShardFolder
from synclones.shards.stores.store import refuse_store, store_url
from synclones.shards.tools.annotate import AnnotateConfig, annotate
from synclones.shards.tools.duplicates import DedupConfig, dedup
from synclones.shards.tools.export import ExportConfig, export
from synclones.shards.tools.foreign_index import IndexConfig, index
from synclones.shards.tools.leftovers import GcConfig, remove_leftovers
from synclones.shards.tools.merge import MergeConfig, merge
from synclones.shards.tools.missing import MissingConfig, print_missing
from synclones.shards.tools.mix import MixConfig, mix
from synclones.shards.tools.repair import RepairConfig, repair
from synclones.shards.tools.retrieve import retrieve
from synclones.shards.tools.retrieve_settings import RetrieveConfig
from synclones.shards.tools.stats import StatsConfig, stats
from synclones.shards.tools.subset import SubsetConfig, subset
from synclones.shards.unfinished import how_far, is_unfinished
from synclones.shards.verify import inspect


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Compare every byte of a dataset folder with its hashes; exit 3 and name shard and sample when one differs."""

    folder: Path = field(kw_only=False)
    """The dataset folder, or s3://bucket/prefix: of a store, one shard at a time is brought to this disk."""
    quick: bool = False
    """Check presence and sizes only."""


@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """Show what a dataset folder holds, or one of its samples."""

    folder: Path = field(kw_only=False)
    """The dataset folder, or s3://bucket/prefix."""
    index: int = -1
    """Sample to show; a summary by default."""
    out: Path | None = None
    """File for the sample's image."""


@dataclass(frozen=True, kw_only=True)
class FinishConfig:
    """Write the indexes and hashes of a folder whose shards are all complete, as the last process of a job does."""

    folder: Path = field(kw_only=False)
    """The dataset folder."""


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """Upload a finished and sound dataset folder to the Hugging Face Hub; the same command goes on after a kill."""

    folder: Path = field(kw_only=False)
    """The dataset folder."""
    name: str = field(kw_only=False)
    """OWNER/NAME of the dataset repository, which is made if it is not there."""
    public: bool = False
    """Let everybody read it; private by default."""


def main(argv: list[str]) -> None:
    """Run one verb; ``verify`` when none is given."""
    STAGE.main(argv)


def _check_folder(folder: Path) -> None:
    refuse_store(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that `synclones generate` made")


def _verify(config: VerifyConfig) -> None:
    with open_set(config.folder) as opened:
        report = inspect(opened.folder, quick=config.quick, at_hand=opened.at_hand)
        problems = [one_line(opened.named(problem)) for problem in report.problems]
        is_local = store_url(config.folder) is None
        mend = typed(["shards", "repair", str(config.folder)]) if report.damaged and is_local else ""
        step = mend or (opened.resume_command() if report.unfinished else "")
        if wants_json():
            facts: dict[str, Any] = {
                "shards": report.num_shards,
                "samples": report.num_samples,
                "bytes": report.num_bytes,
            }
            facts |= {"ok": not (problems or report.unfinished), "unfinished": report.unfinished, "next": step}
            damaged = {"problems": problems, "damaged": list(report.damaged)}
            print_json({"folder": str(config.folder), "quick": config.quick, **facts, **damaged})
        for problem in problems[1:]:
            print(f"synclones: warning: {problem}" if is_quiet() else problem, file=sys.stderr)
        if mend:
            print(f"{config.folder}: draw what is damaged again: {mend}", file=sys.stderr)
        if report.problems:
            raise VerificationError(report.problems[0])
        if report.unfinished:
            raise VerificationError(
                f"{opened.named(str(opened.folder))}: unfinished, {report.unfinished} and sound; "
                f"go on with: {opened.resume_command()}"
            )
    counted = f"{format_count(report.num_shards, 'shard')}, {format_count(report.num_samples, 'sample')}"
    print(f"ok: {counted}, {format_bytes(report.num_bytes)}")


def _finish(config: FinishConfig) -> None:
    _check_folder(config.folder)
    digest = finish_folder(config.folder)
    print(f"{config.folder}: indexes and hashes written, content {digest[:16]}")


def _push(config: PushConfig) -> None:
    from synclones.shards.tools.hub import push

    _check_folder(config.folder)
    print(f"{config.folder}: is at {push(config.folder, config.name, config.public)}")


def _show(config: ShowConfig) -> None:
    with open_set(config.folder) as opened:
        if config.index < 0:
            _show_set(opened)
            return
        sample = opened.shards().get(config.index)
    if config.out is not None:
        write_atomic(config.out, sample.jpg)
    if wants_json():
        names = ("index", "seed", "attempt", "label", "reason")
        facts: dict[str, Any] = {name: getattr(sample, name) for name in names}
        facts |= {"prompt": sample.txt, "json": sample.json.decode("utf-8", "replace"), "bytes": len(sample.jpg)}
        print_json({"folder": str(config.folder), **facts})
        return
    print(f"index {sample.index}  seed {sample.seed}  attempt {sample.attempt}  label {sample.label}")
    print(f"prompt  {one_line(sample.txt)}\njson    {one_line(sample.json.decode('utf-8', 'replace'))}")
    print(f"image   {format_bytes(len(sample.jpg))}")
    if config.out is not None:
        print(f"wrote   {config.out}")


def _show_set(opened: LocalSet) -> None:
    """Print how far a set is, and what its samples are."""
    step, name = "", opened.named(str(opened.folder))
    shards = None
    if is_unfinished(opened.folder):
        step = opened.resume_command()
        print(f"{name}: unfinished, {how_far(opened.folder)}\nnext    {step}")
    if not step or shard_names(opened.folder, present_split(opened.folder)):
        shards = opened.shards()
    summary = _Summary(shards)
    if wants_json():
        print_json({"folder": name, "unfinished": bool(step), "next": step, **summary.values()})
    elif shards is not None:
        print(opened.named("\n".join(summary.lines(shards))))


class _Summary:
    """What the samples of a set are, counted; of none where no shard is whole."""

    def __init__(self, shards: ShardFolder | None):
        self.status, self.labels, self.reasons = Counter[str](), Counter[int](), Counter[str]()
        self.shards = 0 if shards is None else len(shards.shards)
        self.columns: dict[str, str] = {}
        if shards is not None:
            self.columns = {name: str(open_column(shards.folder, name).type) for name in column_names(shards.folder)}
        for row in () if shards is None else (row for shard in shards.shards for row in shards.rows(shard)):
            self.status[row.status] += 1
            self.labels.update([row.label] if row.status == "ok" else [])
            self.reasons.update([row.reason] if row.reason else [])

    def values(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        labels = {str(label): count for label, count in self.labels.items()}
        counts = {"status": dict(self.status), "labels": labels, "reasons": dict(self.reasons)}
        return {"shards": self.shards, "samples": self.status["ok"], **counts, "columns": self.columns}

    def lines(self, shards: ShardFolder) -> list[str]:
        """Return the counts as lines."""
        return [
            f"{shards.folder}: {format_count(self.shards, 'shard')}, {format_count(shards.num_samples, 'sample')}",
            "status  " + ", ".join(f"{status} {count}" for status, count in sorted(self.status.items())),
            "labels  " + ", ".join(f"{label}: {count}" for label, count in sorted(self.labels.items())[:20]),
            *(f"reason  {one_line(reason)}: {count}" for reason, count in self.reasons.most_common(5)),
            *(f"column  {name}: {kind}" for name, kind in self.columns.items()),
        ]


STAGE = Stage(
    name="shards",
    phrase="Check, show, mend, divide and hand on dataset folders, and sets in object stores.",
    verbs={
        "verify": Verb(VerifyConfig, _verify, ("data/x --quick", "s3://bucket/prefix"), json=True),
        "show": Verb(ShowConfig, _show, ("data/x", "data/x --index 7 --out seven.jpg"), json=True),
        "stats": Verb(StatsConfig, stats, ("data/x --out stats.html",)),
        "index": Verb(IndexConfig, index, ("data/imagenet/train", "s3://bucket/tars --label-key class_name")),
        "mix": Verb(
            MixConfig, mix, ("--data data/x data/real:3", "--data data/synthetic data/real,fraction=1/8,repeat=8")
        ),
        "annotate": Verb(
            AnnotateConfig,
            lambda config: print(annotate(config)),
            (
                "data/x --from captions.parquet --columns caption",
                "data/x --embed ViT-B-32/laion2b_s34b_b79k --name clip",
            ),
            divided=True,
        ),
        "dedup": Verb(DedupConfig, dedup, ("data/x", "data/x --against data/test")),
        "retrieve": Verb(
            RetrieveConfig,
            retrieve,
            (
                "data/laion --model ViT-B-16/laion2b_s34b_b88k --classes classes.csv --top-share 0.3 --out data/near",
                "data/x --model ViT-B-32/laion2b_s34b_b79k  # embeddings alone",
            ),
        ),
        "missing": Verb(MissingConfig, print_missing, ("data/x",)),
        "repair": Verb(RepairConfig, repair, ("data/x", "data/x --dry-run")),
        "finish": Verb(FinishConfig, _finish, ("data/x",)),
        "subset": Verb(
            SubsetConfig, subset, ("data/x --per-class 50 --out data/small", "data/x --fraction 0.1 --out data/tenth")
        ),
        "merge": Verb(MergeConfig, merge, ("data/x data/y --renumber --out data/both",)),
        "export": Verb(ExportConfig, export, ("data/x --to imagefolder --out data/folders",)),
        "gc": Verb(GcConfig, remove_leftovers, ("data/x --dry-run", "s3://bucket/prefix")),
        "push": Verb(PushConfig, _push, ("data/x OWNER/NAME",)),
    },
    examples=(
        "synclones shards data/x",
        "synclones shards show data/x --index 7 --out seven.jpg",
        "synclones shards repair data/x",
        "synclones shards subset data/x --per-class 50 --out data/small",
        "synclones shards verify s3://bucket/prefix",
    ),
)

if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
