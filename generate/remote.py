"""Draws a set into an object store: shards grow in a local work folder and are uploaded whole.

In: a checked `Job` whose ``--out`` is a URL. Out: the objects of a dataset folder, ``train-00000.json`` last of each
shard (`publish`) and ``manifest.json`` last of all; the identity set has the bytes of a local one. What a killed
process journalled in the work folder is used again.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.manifest import MANIFEST_FILE
from synclones.base.resume import CONFIG
from synclones.generate.finish import describe_dataset, write_dataset_card
from synclones.generate.job import Job
from synclones.generate.plan import PLAN_FILE, differences, parse_plan
from synclones.generate.preview.sheet import PREVIEW, write_preview
from synclones.generate.preview.stored import StoredPreview
from synclones.generate.progress import LOG
from synclones.generate.publish import Publisher, is_whole
from synclones.generate.target import Hold, write_config
from synclones.prompts.table import class_names
from synclones.shards.index import content_hash, derived_files, read_summary
from synclones.shards.mirror import StoredSet, stored_set
from synclones.shards.schema import ShardFiles
from synclones.shards.stores.store import copy_command, open_store

DEFAULT_WORK = Path("data/.work")


class StoreTarget:
    """An object store as the target.

    Attributes:
        name: the URL.
        folder: the work folder, the same for every run of this plan into this store from one ``--work``.
    """

    keeps_shards = False

    def __init__(self, url: str, job: Job):
        """Open the store and choose the work folder; nothing is asked of the store yet.

        Raises:
            InputError: when there is no such store, its extra is missing, or a flag is for folders only.
        """
        if job.config.extend:
            raise InputError(f"{url}: --extend is for folders; copy the set to a disk, or draw a new one with --out")
        self.name, self._job, self._plan = url, job, job.plan
        self._store, self._class_names = open_store(url), class_names(job.table.metadata)
        key = sha256_bytes(url.encode() + job.plan.to_json())[:16]
        self.folder = (job.config.work or DEFAULT_WORK) / key
        self._publisher = Publisher(self._store, job.plan, self.folder, job.config.steal_lease)

    # -------------------------------------------------------------- beginning

    def begin(self) -> bool:
        """Write the plan, or compare it with the stored one; return whether the set has shards already.

        Raises:
            InputError: when another plan or other objects are there, there is no bucket or no permission, or the store
                ignores the conditions of conditional writes.
        """
        listing = self._store.listing()
        self._settle_plan(listing)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_card()
        return any(is_whole(listing, self._plan.shard_name(shard)) for shard in range(self._plan.num_shards))

    def _settle_plan(self, listing: dict[str, int]) -> None:
        foreign = sorted(name for name in listing if not name.startswith("."))
        if foreign and PLAN_FILE not in listing:
            raise InputError(f"{self.name}: holds {foreign[0]!r} but no {PLAN_FILE}; choose an empty prefix as --out")
        ours = self._plan.to_json()
        # Of several processes that begin at once one creates the plan; all compare theirs with it.
        if PLAN_FILE not in listing:
            self._store.put_if_absent(PLAN_FILE, ours)
        stored = self._store.read(PLAN_FILE)
        if stored != ours:
            change = differences(parse_plan(stored, f"{self.name}/{PLAN_FILE}"), self._plan)
            raise InputError(f"{self.name}: made by another plan: {change}; choose a new --out")
        # The plan is there by now, so a store that creates it once more honours no condition.
        if self._store.put_if_absent(PLAN_FILE, ours):
            raise InputError(
                f"{self.name}: the store ignores conditional writes (If-None-Match), so two processes could draw one "
                "shard; draw into a folder and copy it"
            )

    def _write_card(self) -> None:
        """Put the data card and ``config.yaml`` into the store, before the first image."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / self._store.name
            folder.mkdir()
            write_dataset_card(folder, self._plan, self._job.table)
            write_config(self._job, folder)
            config = (folder / CONFIG).read_text(encoding="utf-8").replace(str(self._job.config.out), self.name)
            self._store.put("README.md", (folder / "README.md").read_bytes())
            self._store.put(CONFIG, config.encode())
        write_config(self._job, self.folder)  # what this machine goes on with

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not whole in the store, by one listing."""
        listing = self._store.listing()
        names = [self._plan.shard_name(shard) for shard in range(self._plan.num_shards)]
        return [shard for shard, name in enumerate(names) if not is_whole(listing, name)]

    def is_finished(self) -> bool:
        """Return whether the store has the manifest."""
        return MANIFEST_FILE in self._store.listing(MANIFEST_FILE)

    # -------------------------------------------------------------- drawing

    @contextmanager
    def drawing(self) -> Iterator[Callable[[], None]]:
        """Give what refreshes the stored contact sheet; give leases back whatever happens, and upload the logs."""
        preview = StoredPreview(self._store, self._plan, self._class_names)
        try:
            yield preview.refresh
        finally:
            self._publisher.release_leases()
            preview.close()
        # Of all processes of this work folder, the killed ones' too.
        for path in sorted((self.folder / LOG).glob("*.jsonl")):
            self._store.put(f"log/{path.name}", path.read_bytes())

    def hold(self, shard: str) -> AbstractContextManager[Hold | None]:
        """Hold as `publish.Publisher.hold`."""
        return self._publisher.hold(shard)

    def lease_holder(self, missing: Sequence[int]) -> str:
        """Return in words who holds one of the missing shards."""
        return self._publisher.lease_holder(missing)

    # -------------------------------------------------------------- finishing

    def finish(self) -> dict[str, int]:
        """Write what follows from complete shards, the manifest last; return the counts of samples. Safe to repeat.

        Raises:
            VerificationError: when the store's objects are not those that the shards' jsons state.
        """
        plan = self._plan
        with stored_set(self._store) as stored:
            folder, shards = stored.folder, [plan.shard_name(shard) for shard in range(plan.num_shards)]
            for shard in shards:
                self._check_sizes(stored, shard)
            derived = derived_files(folder, shards, plan.split)
            for name, data in derived.items():
                write_atomic(folder / name, data)
            write_preview(folder, plan, self._class_names, stored.shards())
            # No process has the images of another at hand, so on a GPU nothing was drawn again and compared.
            promise = "reproduced" if plan.device.startswith("cpu") else "not compared"
            counts = describe_dataset(self._job, folder, content_hash(folder), promise)
            for name in (*derived, "croissant.json", PREVIEW, MANIFEST_FILE):
                self._store.put(name, (folder / name).read_bytes())
        self._publisher.clear()
        return counts

    def _check_sizes(self, stored: StoredSet, shard: str) -> None:
        summary = read_summary(ShardFiles(stored.folder, shard).json)
        for file, size in ((f"{shard}.{kind}", summary[kind]["bytes"]) for kind in ("tar", "parquet")):
            if stored.sizes.get(file) != size:
                raise VerificationError(
                    f"{self.name}/{file}: {stored.sizes.get(file, 'no')} bytes, {size} are stated; remove {shard}.json "
                    "and run the same command"
                )

    def next_steps(self) -> str:
        """Return the command that copies the set to a disk."""
        return f"copy: {copy_command(self.name, f'data/{self._store.name}')}"

    def push(self) -> None:
        """Do nothing: `job.check_job` refuses ``--push-to-hub`` for a store."""
