"""Lets a finished or unfinished dataset grow: more images of its table, or of a longer one that begins with it.

In: a dataset folder, the plan of the larger set, its prompt table. Out: the folder as if the larger set had been begun
there, with every full shard kept. Since nothing about a picture depends on how many there are, the extended set has the
bytes of the set drawn at once. Stopped anywhere, the same command goes on.
"""

from pathlib import Path

from synclones.base.errors import InputError
from synclones.base.files import write_atomic
from synclones.base.manifest import MANIFEST_FILE
from synclones.generate.plan import PLAN_FILE, Plan, differences, read_plan
from synclones.prompts.table import PromptTable
from synclones.shards.index import INFO, SIZES, SUMS
from synclones.shards.lock import claim
from synclones.shards.schema import ShardFiles


def extend_folder(folder: Path, plan: Plan, table: PromptTable) -> bool:
    """Make room for the larger plan; whether there was anything to do. Any number of processes may call this.

    Raises:
        InputError: the folder's plan differs in more than its size; the set would shrink; the table is another one.
    """
    if not (folder / PLAN_FILE).exists() or read_plan(folder) == plan:
        return False
    held = claim(folder, "extend", wait=True)
    assert held is not None, "a claim that waits is always granted"
    with held:
        there = read_plan(folder)
        if there == plan:
            return False  # another process was first
        _check(folder, there, plan, table)
        last = there.shard_name(there.num_shards - 1)
        drawing = claim(folder, last)
        if drawing is None:
            raise InputError(f"{folder}: {last} is being drawn; stop that command, or let it end, before the set grows")
        with drawing:
            if there.num_samples % there.images_per_shard:
                _remove_shard(ShardFiles(folder, last))
            _remove_indexes(folder)
            write_atomic(folder / PLAN_FILE, plan.to_json())
    return True


def _check(folder: Path, there: Plan, plan: Plan, table: PromptTable) -> None:
    how = (there.plan_id, there.shard_name(0), there.retries)
    if how != (plan.plan_id, plan.shard_name(0), plan.retries):
        raise InputError(f"{folder}: made by another plan: {differences(there, plan)}; choose a new --out")
    if plan.num_samples < there.num_samples:
        raise InputError(
            f"{folder}: has {there.num_samples} images, {plan.num_samples} were asked; a set only grows, use "
            "--num-images with a new --out for fewer"
        )
    same_table = there.prompts_sha256 == plan.prompts_sha256
    if not same_table and table.prefix_sha256(there.num_samples) != there.prompts_sha256:
        raise InputError(
            f"{table.path}: does not begin with the table of {there.num_samples} rows that {folder} was drawn from; "
            "build it with the same recipe, classes and seed, and first let the set grow to the end of its own table"
        )


def _remove_shard(files: ShardFiles) -> None:
    """The last shard, which is not full: its json first, so that it is never taken for complete."""
    for path in (files.json, files.tar, files.parquet, files.journal, files.part):
        path.unlink(missing_ok=True)


def _remove_indexes(folder: Path) -> None:
    """What says that the smaller set is whole; the manifest first."""
    for name in (MANIFEST_FILE, SUMS, INFO, SIZES):
        (folder / name).unlink(missing_ok=True)
