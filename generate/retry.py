"""Draws failed or dropped samples of a finished set again, with new seeds, into a new version of the set.

In: a finished dataset folder (the parent), a new folder. Out: the new folder as a dataset whose plan names the parent's
content hash. Shards without such samples are the parent's own bytes (hard links where the file system can, else
copies); the others are written again, with new images for those samples only. The parent is never touched, so that it
stays whole whatever happens; the new folder is resumed by the same command, like any generation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from synclones.base.errors import InputError
from synclones.base.files import link_or_copy, sync
from synclones.base.manifest import Parent
from synclones.base.resume import typed
from synclones.generate.plan import Plan, differences, read_plan
from synclones.generate.settings import GenerateConfig
from synclones.prompts.table import PromptRow
from synclones.shards.index import content_hash, read_summary
from synclones.shards.read import ShardFolder
from synclones.shards.schema import FailedSample, Sample, SampleRow, ShardFiles
from synclones.shards.write import is_complete

DrawAgain = Callable[[Sequence[PromptRow], Sequence[SampleRow]], list[Sample | FailedSample]]


@dataclass(frozen=True)
class Retry:
    """A finished set, and which of its samples are drawn again."""

    parent: ShardFolder
    status: str
    """``failed`` or ``dropped``."""
    sha256: str
    """Content hash of the parent."""

    def named(self) -> Parent:
        """Return the parent as the manifest of the new version names it."""
        return Parent("earlier version", str(self.parent.folder), self.sha256)

    def touches(self, shard: str) -> bool:
        """Return whether a shard of the parent has such samples."""
        return bool(read_summary(ShardFiles(self.parent.folder, shard).json)[self.status])

    def most_images(self) -> int:
        """Return how many images one further attempt draws at most: all of the shards that it touches."""
        jsons = (ShardFiles(self.parent.folder, shard).json for shard in self.parent.shards if self.touches(shard))
        return sum(int(read_summary(path)["planned"]) for path in jsons)

    def draw(self, plan: Plan, draw_again: DrawAgain, rows: Sequence[PromptRow]) -> list[Sample | FailedSample]:
        """Return one batch: such samples drawn again, everything else as the parent has it.

        Args:
            draw_again: draws a whole batch from its prompt rows and its rows in the parent (`batch.draw_batch`).

        Raises:
            VerificationError: when a stored sample is damaged.
        """
        stored = self._stored_rows(plan.shard_name(rows[0].index // plan.images_per_shard), rows)
        if not any(row.status == self.status for row in stored):
            return [self._stored(row) for row in stored]
        drawn = draw_again(rows, stored)
        return [
            sample if row.status == self.status else self._stored(row)
            for sample, row in zip(drawn, stored, strict=True)
        ]

    def _stored_rows(self, shard: str, rows: Sequence[PromptRow]) -> list[SampleRow]:
        stored = self.parent.rows(shard)
        start = rows[0].index - stored[0].index  # a row per planned sample
        return stored[start : start + len(rows)]

    def _stored(self, row: SampleRow) -> Sample | FailedSample:
        if row.status == "ok":
            return self.parent.get(row.index)
        names = ("index", "status", "reason", "seed", "attempt", "scores")
        label = None if row.label < 0 else row.label
        return FailedSample(label=label, **{name: getattr(row, name) for name in names})


def with_parents_config(flags: list[str]) -> list[str]:
    """Return the flags above the parent's settings, when they give no other settings to start from."""
    named = [flag.split("=")[0] for flag in flags]
    if "--parent" not in named or "--config" in named or "--preset" in named or "--model" in named:
        return flags
    at = named.index("--parent")
    folder = flags[at].partition("=")[2] or "".join(flags[at + 1 : at + 2])
    return ["--config", str(Path(folder) / "config.yaml"), *flags]


def retry_command(folder: Path, status: str) -> str:
    """Return the command that draws the ``failed`` or ``dropped`` samples of a finished set again, beside it."""
    name = f"{folder.resolve().name}-again"
    again = folder.with_name(name) if folder.name not in ("", "..") else folder / ".." / name
    return typed(["generate", "--retry", status, "--parent", str(folder), "--out", str(again)])


def find_retry(config: GenerateConfig, plan: Plan) -> tuple[Plan, Retry | None]:
    """Return the plan of the new version and what it draws again; the plan as it is, and None, without ``--retry``.

    Raises:
        InputError: when there is no parent, another plan drew it, or it has nothing to draw again.
        VerificationError: when the parent is unfinished.
    """
    if not config.retry or config.parent is None:
        if config.retry or (config.parent is not None and not config.extend):
            raise InputError("--retry, --parent: give both: what to draw again, and the finished set that has it")
        return plan, None
    if config.extend:
        raise InputError("--extend: a set grows or is retried, not both at once; leave one of them out")
    if config.parent.resolve() == config.out.resolve():
        raise InputError("--out: a retried set is a new version beside the old one; choose a new folder")
    # Attempts and earlier retries are the parent's own; in everything else both plans must agree.
    earlier = read_plan(config.parent)
    if replace(plan, max_attempts=earlier.max_attempts, retries=earlier.retries) != earlier:
        raise InputError(f"{config.parent}: made by another plan: {differences(earlier, plan)}; give its own settings")
    retry = Retry(ShardFolder(config.parent, plan.split), config.retry, content_hash(config.parent))
    if not any(retry.touches(shard) for shard in retry.parent.shards):
        raise InputError(f"{config.parent}: has no {config.retry} sample; there is nothing to draw again")
    step = {"status": retry.status, "attempts": config.max_attempts, "parent": retry.sha256}
    return replace(earlier, retries=[*earlier.retries, step]), retry


def take_over(retry: Retry, folder: Path, plan: Plan) -> None:
    """Bring the shards that have nothing to draw again into ``folder``. Any number of processes may do this at once."""
    for number in range(plan.num_shards):
        name = plan.shard_name(number)
        if retry.touches(name) or is_complete(folder, name):
            continue
        source, target = ShardFiles(retry.parent.folder, name), ShardFiles(folder, name)
        link_or_copy(source.tar, target.tar)
        link_or_copy(source.parquet, target.parquet)
        link_or_copy(source.json, target.json)  # last: it says that the others are complete
    sync(folder)
