"""Where a generation's shards go: what `run.generate` asks of a dataset folder and of an object store alike.

In: a checked `Job`. Out: `FolderTarget`, whose shards grow where they stay. `remote.StoreTarget` is the other one: its
shards grow in a work folder and are uploaded whole.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from synclones.base.config import save
from synclones.base.errors import InputError
from synclones.base.files import refuse_other_kinds
from synclones.base.manifest import read_manifest
from synclones.base.output import say
from synclones.base.resume import CONFIG, typed
from synclones.base.units import format_count
from synclones.generate.extend import begin_version, extend_folder
from synclones.generate.finish import finish_dataset, write_dataset_card
from synclones.generate.job import Job
from synclones.generate.plan import claim_folder
from synclones.generate.preview.sheet import PREVIEW, GrowingPreview
from synclones.generate.progress import LOG
from synclones.generate.retry import take_over
from synclones.prompts.table import class_names
from synclones.shards.index import INFO, PLAN, SIZES, SUMS
from synclones.shards.lock import claim
from synclones.shards.tools.hub import BESIDE, push_once
from synclones.shards.write import is_complete


@dataclass(frozen=True, kw_only=True)
class Hold:
    """The right to draw one shard, for as long as it is not lost."""

    lost: threading.Event = field(default_factory=threading.Event)
    """Set when another machine has taken the shard over."""
    publish: Callable[[], bool] = lambda: True
    """Puts the finished shard where it stays; returns whether it did."""


class Target(Protocol):
    """Where the shards of one job go."""

    name: str
    """The path or URL, as messages call it."""
    folder: Path
    """The folder of this machine in which shards grow."""
    keeps_shards: bool
    """Whether finished shards stay in ``folder``."""

    def begin(self) -> bool:
        """Claim the folder or URL for the plan and describe the set in it; return whether an earlier run left shards.

        Raises:
            InputError: when another plan or other files are there.
        """

    def missing(self) -> list[int]:
        """Return the numbers of the shards that are not complete."""

    def is_finished(self) -> bool:
        """Return whether the manifest, which is written last, is there."""

    def drawing(self) -> AbstractContextManager[Callable[[], None]]:
        """Return the context in which shards are drawn; it gives a function that refreshes the contact sheet."""

    def hold(self, shard: str) -> AbstractContextManager[Hold | None]:
        """Return a context that holds one shard by its name, or None when it is complete or another worker has it."""

    def lease_holder(self, missing: Sequence[int]) -> str:
        """Return in words who draws one of the missing shards."""

    def finish(self) -> dict[str, int]:
        """Write what follows from complete shards, the manifest last, and return the counts of samples.

        Safe to repeat.
        """

    def next_steps(self) -> str:
        """Return the lines that tell the user what to do with the finished set."""

    def push(self) -> None:
        """Upload the finished set to the hub, if that was asked for."""


class FolderTarget:
    """A dataset folder as the target: a lock per shard divides the work among processes."""

    keeps_shards = True

    def __init__(self, job: Job):
        self.folder, self.name = job.config.out, str(job.config.out)
        self._job, self._plan = job, job.plan

    def begin(self) -> bool:
        """Begin as `Target.begin`; a set may grow first, and a retry takes over what it does not draw again."""
        job, folder = self._job, self.folder
        refuse_other_kinds(folder, (PLAN, INFO, SIZES, SUMS, *BESIDE), (LOG,))
        if job.smaller is not None:
            begin_version(folder, Path(job.smaller.path), self._plan, job.table)
        if job.config.extend and extend_folder(folder, self._plan, job.table):
            announce(job, f"{self.name}: grows to {format_count(self._plan.num_samples, 'image')}")
        resumed = claim_folder(folder, self._plan)
        write_dataset_card(folder, self._plan, job.table)
        job.gates.keep()
        if not (self.is_finished() and (folder / CONFIG).exists()):  # another path to the same table draws nothing
            write_config(job, folder)
        if job.retry is not None and not job.config.plan_only:
            take_over(job.retry, folder, self._plan)
        return resumed and (len(self.missing()) < self._plan.num_shards or any(folder.glob(".*.part")))

    def missing(self) -> list[int]:
        """Return the numbers of the shards that lack their json, which is written last."""
        shards = range(self._plan.num_shards)
        return [shard for shard in shards if not is_complete(self.folder, self._plan.shard_name(shard))]

    def is_finished(self) -> bool:
        """Return whether the folder has its manifest; one that cannot be read, or is another stage's, is none."""
        try:
            return bool(read_manifest(self.folder)["stage"] == "generate")
        except InputError:
            return False

    @contextmanager
    def drawing(self) -> Iterator[Callable[[], None]]:
        """Give what refreshes ``preview.html`` in the folder."""
        yield GrowingPreview(self.folder, self._plan, class_names(self._job.table.metadata)).refresh

    @contextmanager
    def hold(self, shard: str) -> Iterator[Hold | None]:
        """Hold the shard's lock, which the kernel releases when a process dies."""
        claimed = None if is_complete(self.folder, shard) else claim(self.folder, shard)
        if claimed is None:
            yield None
            return
        with claimed:
            # Another process may have finished it between the question and the claim.
            yield None if is_complete(self.folder, shard) else Hold()

    def lease_holder(self, missing: Sequence[int]) -> str:
        """Return that others draw them: locks do not say who has them."""
        look = typed(["status", str(self.folder)])
        return f"other processes draw them, or other --part shares or --shards; look: {look}"

    def finish(self) -> dict[str, int]:
        """Finish as `finish.finish_dataset`."""
        return finish_dataset(self._job)

    def next_steps(self) -> str:
        """Return how to look at the images and how to check the files."""
        return f"look: {self.folder / PREVIEW}\ncheck: {typed(['shards', 'verify', str(self.folder)])}"

    def push(self) -> None:
        """Upload the finished set to the hub, if that was asked for; of several processes one does it."""
        repository = self._job.config.push_to_hub
        if repository:
            url = push_once(self.folder, repository)
            print(f"{self.name}: {f'is at {url}' if url else f'another process uploads it to {repository}'}")


def write_config(job: Job, folder: Path) -> None:
    """Write ``config.yaml``: the settings that draw this set again, without those of one run."""
    parent = None if job.smaller is not None else job.config.parent  # a set that has grown needs it no more
    lasting = replace(
        job.config, extend=False, parent=parent, part="", shards=(), push_to_hub="", steal_lease=False, plan_only=False
    )
    save(replace(lasting, prompts=job.table.path), folder / CONFIG)


def announce(job: Job, text: str) -> None:
    """Print one line to stderr, once for all processes of the job."""
    if job.rank == 0:
        say(text)
