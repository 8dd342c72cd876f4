"""The contact sheet of a set in an object store, written again while the set grows.

In: a store and the shards in it. Out: the object ``preview.html``, whole each time. Nothing that goes wrong with it
stops the drawing.
"""

import tempfile
import time
from contextlib import suppress
from pathlib import Path

from synclones.base.errors import InputError, MachineError, VerificationError
from synclones.generate.plan import Plan
from synclones.generate.preview.sheet import PREVIEW, write_preview
from synclones.shards.index import shard_names
from synclones.shards.mirror import StoredSet
from synclones.shards.stores.store import Missing, ObjectStore

EVERY_S = 300.0  # a sheet may hold a thousand images, each a request
MAX_SHARE = 0.05  # of the time; sheets that take long are made less often


class StoredPreview:
    """Writes the contact sheet of a set in a store when there are new shards."""

    def __init__(self, store: ObjectStore, plan: Plan, names: dict[str, str]):
        """``names`` maps class ids to names where they are known."""
        self._temporary = tempfile.TemporaryDirectory(prefix="synclones-")
        self._stored = StoredSet(store, Path(self._temporary.name))
        self._store, self._plan, self._names = store, plan, names
        self._next, self._shards = time.monotonic() + EVERY_S, 0

    def refresh(self) -> None:
        """Write the sheet when it is due; cheap otherwise."""
        started = time.monotonic()
        if started < self._next:
            return
        with suppress(InputError, MachineError, VerificationError, OSError):  # `Stopped` goes on to the caller
            self._write()
        now = time.monotonic()
        self._next = now + max(EVERY_S, (now - started) / MAX_SHARE)

    def _write(self) -> None:
        try:
            version = self._store.version(PREVIEW)
        except Missing:
            version = ""
        self._stored.refresh()
        count = len(shard_names(self._stored.folder, self._plan.split))
        if count in (
            self._shards,
            self._plan.num_shards,
        ):  # the sheet of all shards is for the process that finishes the set
            return
        write_preview(self._stored.folder, self._plan, self._names, self._stored.shards())
        page = (self._stored.folder / PREVIEW).read_bytes()
        # Conditional: a process that finished the set meanwhile has written a later sheet.
        self._store.replace(PREVIEW, page, version) if version else self._store.put_if_absent(PREVIEW, page)
        self._shards = count

    def close(self) -> None:
        """Remove the temporary folder."""
        self._temporary.cleanup()
