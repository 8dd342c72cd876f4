"""What kills leave beside a set, and nobody will use: found, and removed by ``synclones shards gc``.

In: a dataset folder or a store. Out: what was found, in words, and with ``remove`` its removal. Only what is older than
a given age, or held by nobody, counts.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from synclones.base.config import Duration
from synclones.base.errors import InputError
from synclones.base.units import format_duration
from synclones.shards.index import INFO, SIZES, SUMS, present_split, shard_names
from synclones.shards.lock import claim, remove_lock
from synclones.shards.stores.lease import LEASES, read_holder
from synclones.shards.stores.store import Missing, ObjectStore, open_store, store_url
from synclones.shards.write import is_complete

Leftover = tuple[str, Callable[[], None]]
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class GcConfig:
    """Remove what kills left: uploads to a store that nobody completed, old leases, parts and locks of a folder."""

    folder: Path = field(kw_only=False)
    """The dataset folder, or s3://bucket/prefix."""
    older_than: Duration = 86400.0
    """How old an upload or a temporary file must be, as in 24h; a running process may still complete younger ones."""
    dry_run: bool = False
    """Say what would be removed, and remove nothing."""


def remove_leftovers(config: GcConfig) -> None:
    """Remove what is old enough, or with ``dry_run`` list it.

    Raises:
        InputError: no such folder.
    """
    url = store_url(config.folder)
    if url is None:
        if not config.folder.is_dir():
            raise InputError(f"{config.folder}: no such folder; give one that `synclones generate` made")
        leftovers = list(in_folder(config.folder, config.older_than))
    else:
        leftovers = list(in_store(open_store(url), config.older_than))
    for words, remove in leftovers:
        if not config.dry_run:
            remove()
        print(f"{'would remove' if config.dry_run else 'removed'}  {words}")
    print(f"{url or config.folder}: {len(leftovers)} leftovers{' found' if config.dry_run else ' removed'}")


def in_store(store: ObjectStore, older_than_s: float) -> Iterator[Leftover]:
    """Uploads that nobody completed, and leases of a finished set that nobody renews; each with how to remove it."""
    now = datetime.now(UTC)
    for upload in store.uploads():
        age = (now - upload.started).total_seconds()
        if age >= older_than_s:
            yield f"{upload.name}: upload begun {format_duration(age)} ago", upload.abort
    listing = store.listing()
    for lease in (name for name in sorted(listing) if name.startswith(LEASES) and MANIFEST in listing):
        try:
            holder = read_holder(store, lease.removeprefix(LEASES).removesuffix(".json"))
        except Missing:
            continue  # given back a moment ago
        if holder is None or holder.is_stale:
            yield f"{lease}: {holder or 'not a lease'}", partial(store.remove, lease)


def in_folder(folder: Path, older_than_s: float) -> Iterator[Leftover]:
    """Parts, journals and temporary files of complete shards and written indexes, and locks that nobody holds."""
    complete = {name for name in shard_names(folder, present_split(folder)) if is_complete(folder, name)}
    final = {f"{name}.{suffix}" for name in complete for suffix in ("tar", "parquet", "json")}
    final |= {name for name in (INFO, SIZES, SUMS, MANIFEST) if (folder / name).exists()}
    for path in sorted(folder.glob(".*")):
        name = path.name.removeprefix(".")
        of_shard = name.removesuffix(".jsonl").removesuffix(".part") in complete and ".part" in name
        if (of_shard or name.partition(".tmp-")[0] in final) and _age_s(path) >= older_than_s:
            yield f"{path.name}: of a complete file", partial(path.unlink, missing_ok=True)
        elif name.endswith(".lock") and _is_free(folder, name.removesuffix(".lock")):
            yield f"{path.name}: held by nobody", partial(remove_lock, path)


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return -1.0


def _is_free(folder: Path, name: str) -> bool:
    held = claim(folder, name)
    if held is not None:
        held.release()
    return held is not None
