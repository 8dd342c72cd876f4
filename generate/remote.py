"""Draws a set whose place is an object store: shards grow in a local work folder and go up whole.

In: a plan, a store, a work folder. Out: the objects of a dataset folder, ``train-00000.json`` last of each shard and
``manifest.json`` last of all; the identity set has the bytes of a local one. What a killed process journalled in the
work folder is used again. A lease per shard (`shards.stores.lease`) keeps machines apart, the locks of the work
folder keep its processes apart.
"""

import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from synclones.base.config import save, to_dict
from synclones.base.errors import InputError, MachineError, VerificationError
from synclones.base.files import sha256_bytes, sha256_file, write_atomic
from synclones.base.manifest import MANIFEST_FILE
from synclones.generate.finish import describe_dataset, write_dataset_card
from synclones.generate.plan import PLAN_FILE, Plan, differences, parse_plan
from synclones.generate.preview.sheet import PREVIEW, write_preview
from synclones.generate.preview.stored import StoredPreview
from synclones.generate.settings import GenerateConfig
from synclones.prompts.table import PromptTable, class_names
from synclones.shards.index import content_hash, derived_files, read_summary
from synclones.shards.lock import claim, remove_locks
from synclones.shards.mirror import StoredSet, stored_set
from synclones.shards.schema import ShardFiles
from synclones.shards.stores.lease import LEASES, Lease, acquire, read_holder
from synclones.shards.stores.store import TRIES, Missing, open_store
from synclones.shards.write import is_complete

LISTED_FOR_S = 10.0  # how long a listing spares a worker the question whether a shard is still missing
DEFAULT_WORK = Path("data/.work")
SUFFIXES = (".tar", ".parquet", ".json")  # the order in which a shard goes up


class RemoteSet:
    """A set in a store, and the work folder of this process.

    Attributes:
        name: the last part of the URL.
        folder: where shards grow, the same for every run of this plan into this store from one ``--work``.
    """

    def __init__(self, url: str, config: GenerateConfig, plan: Plan, table: PromptTable):
        """Raises InputError: no such store, missing extra, a flag that is for folders."""
        if config.extend:
            raise InputError(f"{url}: --extend is for folders; copy the set to a disk, or draw a new one with --out")
        self.url, self.plan, self._config, self._table = url, plan, config, table
        self._store, self._classes = open_store(url), class_names(table.metadata)
        self.name = self._store.name
        key = sha256_bytes(url.encode() + plan.to_json())[:16]
        self.folder = (config.work or DEFAULT_WORK) / key
        self._listed, self._listed_at = dict[str, int](), -LISTED_FOR_S
        self._held, self._turn = list[Lease](), threading.Lock()

    # -------------------------------------------------------------- beginning

    def begin(self) -> bool:
        """Write the plan, or compare it with the one that is there; whether the set has shards already.

        Raises:
            InputError: another plan or other objects are there; no bucket, no permission; a store whose conditional
                writes are none.
        """
        listing = self._store.listing()
        strangers = sorted(name for name in listing if not name.startswith("."))
        if strangers and PLAN_FILE not in listing:
            raise InputError(f"{self.url}: holds {strangers[0]!r} but no {PLAN_FILE}; choose an empty prefix as --out")
        if PLAN_FILE not in listing:
            self._store.put_if_absent(PLAN_FILE, self.plan.to_json())
        self._compare_plans()
        if self._store.put_if_absent(PLAN_FILE, self.plan.to_json()):
            raise InputError(
                f"{self.url}: the store ignores conditional writes (If-None-Match), so two processes could draw one "
                "shard; draw into a folder and copy it"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._owner = self._work_folder_id()
        self._say_what_it_is()
        return any(_is_whole(listing, self.plan.shard_name(shard)) for shard in range(self.plan.num_shards))

    def _compare_plans(self) -> None:
        data = self._store.read(PLAN_FILE)
        if data != self.plan.to_json():
            there = parse_plan(data, f"{self.url}/{PLAN_FILE}")
            raise InputError(f"{self.url}: made by another plan: {differences(there, self.plan)}; choose a new --out")

    def _work_folder_id(self) -> str:
        """Random digits that name this work folder in its leases: whoever has a lock in it speaks for all of it."""
        path = self.folder / ".owner"
        held = claim(self.folder, "owner", wait=True)
        assert held is not None, "a claim that waits is always granted"
        with held:
            if not path.exists():
                write_atomic(path, secrets.token_hex(8).encode())
            return path.read_text()

    def _say_what_it_is(self) -> None:
        """Put the data card and config.yaml there, before the first image."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / self._store.name
            folder.mkdir()
            write_dataset_card(folder, self.plan, self._table)
            save(replace(self._config, prompts=self._table.path, steal_lease=False), folder / "config.yaml")
            text = (folder / "config.yaml").read_text(encoding="utf-8").replace(str(self._config.out), self.url)
            self._store.put("README.md", (folder / "README.md").read_bytes())
            self._store.put("config.yaml", text.encode())

    def missing(self) -> list[int]:
        """The shards that are not whole in the store, found by listing it."""
        listing = self._store.listing()
        names = [self.plan.shard_name(shard) for shard in range(self.plan.num_shards)]
        return [shard for shard, name in enumerate(names) if not _is_whole(listing, name)]

    def is_finished(self) -> bool:
        """Whether the manifest, which is written last, is there."""
        return MANIFEST_FILE in self._store.listing(MANIFEST_FILE)

    # -------------------------------------------------------------- drawing

    def work(
        self,
        plan: Plan,
        folder: Path,
        table: PromptTable,
        sampler: Any,
        shards: Sequence[int],
        stop: threading.Event,
        on_batch: Callable[[int], None],
        on_shard: Callable[[str], None],
    ) -> None:
        """As `synclones.generate.worker.work`, which it calls for every shard whose lease it gets."""
        from synclones.generate.worker import work

        for shard in shards:
            name = plan.shard_name(shard)
            done = stop.is_set() or _is_whole(self._recent_listing(), name)
            held = None if done else claim(folder, f"{name}.store")
            if held is None:
                continue
            with held:
                lease = acquire(self._store, name, self._owner, steal=self._config.steal_lease)
                if lease is None:
                    continue
                with lease, self._noted(lease):
                    if self._is_whole_by_now(name):
                        _remove_local(ShardFiles(folder, name))
                        continue
                    work(plan, folder, table, sampler, [shard], _Any(stop, lease.lost), on_batch, lambda _: None)
                    if is_complete(folder, name) and self._publish(ShardFiles(folder, name), lease):
                        on_shard(name)

    @contextmanager
    def _noted(self, lease: Lease) -> Iterator[None]:
        with self._turn:
            self._held.append(lease)
        try:
            yield
        finally:
            with self._turn:
                self._held.remove(lease)

    def let_go(self) -> None:
        """Give all leases back, of a process that is about to stop with its workers still drawing."""
        with self._turn:
            held = list(self._held)
        for lease in held:
            with suppress(MachineError):  # then it goes stale by itself
                lease.release()

    def _recent_listing(self) -> dict[str, int]:
        with self._turn:
            if time.monotonic() - self._listed_at > LISTED_FOR_S:
                self._listed, self._listed_at = self._store.listing(), time.monotonic()
            return self._listed

    def _is_whole_by_now(self, name: str) -> bool:
        there = self._store.listing(f"{name}.")
        if not _is_whole(there, name) and f"{name}.json" in there:
            self._store.remove(f"{name}.json")  # it speaks of objects that somebody removed
        return _is_whole(there, name)

    def _publish(self, files: ShardFiles, lease: Lease) -> bool:
        """Upload a finished shard, json last, and remove the local copy; False when the lease was lost meanwhile."""
        stated = read_summary(files.json)
        for path in (files.tar, files.parquet, files.json):
            digest = sha256_file(path)
            if path is not files.json and digest != stated[path.suffix[1:]]["sha256"]:
                _remove_local(files)
                raise MachineError(f"{path}: the disk gave back other bytes than were written; run the command again")
            for _ in range(TRIES):
                if not lease.renew():
                    return False
                if self._store.create_file(path.name, path, digest):
                    break
                # Left by a holder that is gone, and other bytes than ours: only on a GPU.
                if not lease.renew():
                    return False
                self._store.remove(path.name)
            else:
                raise MachineError(f"{self.url}/{path.name}: others write it too; run the same command again to resume")
        _remove_local(files)
        return True

    def who_holds(self, unfinished: list[int]) -> str:
        """Who holds one of these shards, in words; empty when nobody does."""
        for lease in sorted(self._store.listing(LEASES)):
            name = lease.removeprefix(LEASES).removesuffix(".json")
            if name in {self.plan.shard_name(shard) for shard in unfinished}:
                try:
                    return f"{name} is held by {read_holder(self._store, name)}; if it is dead, run with --steal-lease"
                except Missing:
                    continue  # given back since
        return ""

    # -------------------------------------------------------------- finishing

    def finish(self, model_path: Path) -> dict[str, int]:
        """Write what follows from complete shards, the manifest last; the counts of samples. Safe to repeat.

        Raises:
            VerificationError: the store's objects are not those that the shards' jsons state.
        """
        with stored_set(self._store) as stored:
            folder, names = stored.folder, [self.plan.shard_name(shard) for shard in range(self.plan.num_shards)]
            for name in names:
                self._check_sizes(stored, name)
            derived = derived_files(folder, names, self.plan.split)
            for name, data in derived.items():
                write_atomic(folder / name, data)
            write_preview(folder, self.plan, self._classes, stored.shards())
            said = "reproduced" if self.plan.device.startswith("cpu") else "not compared"
            config = to_dict(self._config) | {"out": self.url}
            counts = describe_dataset(folder, self.plan, self._table, config, model_path, content_hash(folder), said)
            for name in (*derived, "croissant.json", PREVIEW, MANIFEST_FILE):
                self._store.put(name, (folder / name).read_bytes())
        for lease in self._store.listing(LEASES):
            self._store.remove(lease)
        self._clear_work_folder()
        return counts

    def _check_sizes(self, stored: StoredSet, name: str) -> None:
        stated = read_summary(ShardFiles(stored.folder, name).json)
        for file, size in ((f"{name}.{kind}", stated[kind]["bytes"]) for kind in ("tar", "parquet")):
            if stored.sizes.get(file) != size:
                raise VerificationError(
                    f"{self.url}/{file}: {stored.sizes.get(file, 'no')} bytes, {size} are stated; remove {name}.json "
                    "and run the same command"
                )

    def preview(self) -> StoredPreview:
        """What writes the contact sheet while the set grows."""
        return StoredPreview(self._store, self.plan, self._classes)

    def put_logs(self) -> None:
        """Upload the logs of this work folder's processes; the killed ones' too."""
        for path in sorted((self.folder / "log").glob("*.jsonl")):
            self._store.put(f"log/{path.name}", path.read_bytes())

    def _clear_work_folder(self) -> None:
        """Take away the shards; logs and the folder stay, since another process may be just ending there."""
        for name in {path.name.lstrip(".").partition(".")[0] for path in self.folder.glob(f"*{self.plan.split}-*")}:
            held = claim(self.folder, f"{name}.store")
            if held is not None:
                with held:
                    _remove_local(ShardFiles(self.folder, name))
        remove_locks(self.folder)


class _Any(threading.Event):
    """Set when one of several events is."""

    def __init__(self, *events: threading.Event):
        super().__init__()
        self._events = events

    def is_set(self) -> bool:
        return any(event.is_set() for event in self._events)


def _is_whole(listing: dict[str, int], name: str) -> bool:
    return all(f"{name}{suffix}" in listing for suffix in SUFFIXES)


def _remove_local(files: ShardFiles) -> None:
    for path in (files.json, files.tar, files.parquet, files.journal, files.part, *files.temporaries()):
        path.unlink(missing_ok=True)
