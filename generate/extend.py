"""Lets a finished or unfinished dataset grow: more images of its table, or of a longer one that begins with it.

In: a dataset folder, the plan of the larger set, its prompt table. Out: the folder as if the larger set had been begun
with its plan, with every full shard kept. Since nothing about an image depends on how many images there are, the
extended set has the bytes of the set drawn at once. Stopped anywhere, the same command goes on. With a parent the set
grows in a new folder, and the parent stays what it is.
"""

from pathlib import Path

from synclones.base.errors import InputError
from synclones.base.files import link_or_copy, sync, write_atomic
from synclones.base.manifest import MANIFEST_FILE, Parent
from synclones.generate.plan import PLAN_FILE, Plan, differences, read_plan
from synclones.prompts.table import PromptTable
from synclones.shards.index import INFO, SIZES, SUMS, content_hash
from synclones.shards.lock import claim
from synclones.shards.schema import ShardFiles
from synclones.shards.write import is_complete


def smaller_version(folder: Path, parent: Path) -> Parent:
    """Return the finished set that grows in another folder, as the manifest of the larger one names it.

    Raises:
        InputError: it is that folder itself, or no set.
        VerificationError: it is unfinished.
    """
    if parent.resolve() == folder.resolve():
        raise InputError("--out: a set grows there beside its --parent; choose a new folder, or leave --parent out")
    read_plan(parent)
    return Parent("smaller version", str(parent), content_hash(parent))


def begin_version(folder: Path, parent: Path, plan: Plan, table: PromptTable) -> None:
    """Begin a folder as the parent was planned, with its full shards, for `extend_folder` to let it grow.

    Any number of processes may call this.

    Raises:
        InputError: as `extend_folder`; nothing is written.
    """
    earlier = read_plan(parent)
    _check(parent, earlier, plan, table)
    folder.mkdir(parents=True, exist_ok=True)
    claimed = claim(folder, "extend", wait=True)
    assert claimed is not None, "a claim that waits is always granted"
    with claimed:
        if (folder / PLAN_FILE).exists():
            return
        # One that is not full is drawn again: what grows in its place must be no file of the parent's.
        for number in range(earlier.num_samples // earlier.images_per_shard):
            name = earlier.shard_name(number)
            source, target = ShardFiles(parent, name), ShardFiles(folder, name)
            if not is_complete(folder, name):
                link_or_copy(source.tar, target.tar)
                link_or_copy(source.parquet, target.parquet)
                link_or_copy(source.json, target.json)  # last: it says that the others are complete
        sync(folder)
        write_atomic(folder / PLAN_FILE, earlier.to_json())


def extend_folder(folder: Path, plan: Plan, table: PromptTable) -> bool:
    """Make room for the larger plan; return whether anything was to do. Any number of processes may call this.

    Raises:
        InputError: when the folder's plan differs in more than its size, the set would shrink, or the table is another.
    """
    if not (folder / PLAN_FILE).exists() or read_plan(folder) == plan:
        return False
    claimed = claim(folder, "extend", wait=True)
    assert claimed is not None, "a claim that waits is always granted"
    with claimed:
        earlier = read_plan(folder)
        if earlier == plan:
            return False  # another process was first
        _check(folder, earlier, plan, table)
        last = earlier.shard_name(earlier.num_shards - 1)
        drawing = claim(folder, last)
        if drawing is None:
            raise InputError(f"{folder}: {last} is being drawn; stop that command, or let it end, before the set grows")
        with drawing:
            if earlier.num_samples % earlier.images_per_shard:
                _remove_shard(ShardFiles(folder, last))
            _remove_indexes(folder)
            write_atomic(folder / PLAN_FILE, plan.to_json())
    return True


def _check(folder: Path, earlier: Plan, plan: Plan, table: PromptTable) -> None:
    unchanging = (earlier.plan_id, earlier.shard_name(0), earlier.retries)
    if unchanging != (plan.plan_id, plan.shard_name(0), plan.retries):
        raise InputError(f"{folder}: made by another plan: {differences(earlier, plan)}; choose a new --out")
    if plan.num_samples < earlier.num_samples:
        raise InputError(
            f"{folder}: has {earlier.num_samples} images, {plan.num_samples} were asked; a set only grows, use "
            "--num-images with a new --out for fewer"
        )
    same_table = earlier.prompts_sha256 == plan.prompts_sha256
    if not same_table and table.prefix_sha256(earlier.num_samples) != earlier.prompts_sha256:
        raise InputError(
            f"{table.path}: does not begin with the table of {earlier.num_samples} rows that {folder} was drawn from; "
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
