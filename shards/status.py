"""How far a dataset folder is: shards and journals counted, locks looked at, in a second or two for 16 M images.

In: a folder with ``plan.json`` or shards. Out: a `Status`. Nothing is written, no lock is taken, no tar is opened.
"""

import contextlib
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError, VerificationError
from synclones.base.manifest import MANIFEST_FILE, read_manifest
from synclones.base.resume import typed
from synclones.base.status import Holder, State, Status, pace
from synclones.shards.index import PLAN, SUMS, expected_names, own_summary, planned_shards, present_split, read_plan
from synclones.shards.journal import counted_rows
from synclones.shards.lock import holders
from synclones.shards.mirror import StoredSet, open_set
from synclones.shards.schema import STATUSES, ShardFiles
from synclones.shards.stores.lease import LEASES, read_holder
from synclones.shards.stores.store import Missing, ObjectStore, store_url
from synclones.shards.unfinished import is_unfinished, resume_command

_THREADS = 8
PREVIEW = "preview.html"


@dataclass(frozen=True)
class _Shards:
    """What lies in the shards of a set."""

    whole: int
    counts: Counter[str]
    """Samples by status, those of journals too."""
    problems: list[str]


def status(path: Path) -> Status | None:
    """Return how far the set in a folder is; None for what is no dataset folder."""
    if store_url(path) is not None:
        return _in_store(path)
    return _in_folder(path) if path.is_dir() else None


def _in_store(url: Path) -> Status | None:
    """Return how far a set in an object store is: whole shards, and the leases on others."""
    with open_set(url) as opened:
        known = _in_folder(opened.folder)
        if known is None or not isinstance(opened, StoredSet):
            return known
        held = [_of_lease(opened.store, name) for name in opened.store.listing() if name.startswith(LEASES)]
        leases = [holder for holder in held if holder is not None]
        is_going_on = known.state in ("planned", "unfinished")
        return replace(
            known,
            path=opened.named(known.path),
            holders=leases,
            state="running" if is_going_on and any(lease.alive for lease in leases) else known.state,
            next=opened.resume_command() if is_going_on else opened.named(known.next),
            problems=[opened.named(problem) for problem in known.problems],
            look="",
        )


def _of_lease(store: ObjectStore, name: str) -> Holder | None:
    shard = name.removeprefix(LEASES).removesuffix(".json")
    try:
        lease = read_holder(store, shard)
    except Missing:  # given back meanwhile
        return None
    age = 0.0 if lease is None else max(0.0, time.time() - lease.heartbeat)
    return None if lease is None else Holder(shard, lease.host, lease.pid, age, not lease.is_stale)


def _in_folder(path: Path) -> Status | None:
    try:
        plan, split = read_plan(path), present_split(path)
        names = expected_names(path, split) if is_dataset(path, plan) else []
    except VerificationError as error:
        return _damaged(path, str(error)) if _has_shards(path) else None
    return _of_shards(path, names, plan) if names else None


def is_dataset(path: Path, plan: dict[str, Any]) -> bool:
    """Return whether a folder with this plan is a dataset's: other stages have plans of other kinds."""
    return planned_shards(path) is not None or (not plan and _has_shards(path))


def _has_shards(path: Path) -> bool:
    return any(path.glob("*-?????*.tar")) and any(path.glob("*-?????*.json"))


def _damaged(path: Path, problem: str) -> Status:
    step = typed(["shards", "verify", str(path)])
    return Status(kind="dataset", path=str(path), state="damaged", unit="images", problems=(problem,), next=step)


def _of_shards(path: Path, names: list[str], plan: dict[str, Any]) -> Status:
    shards = _count(path, names)
    unfinished = is_unfinished(path)
    planned = plan.get("num_samples")
    if type(planned) is not int:
        planned = shards.counts.total() if shards.whole == len(names) else None
    done, held, now = shards.counts.total(), holders(path), pace(path, "images")
    problems = list(shards.problems)
    if not unfinished and shards.whole < len(names):
        problems.append(f"{path}: {len(names) - shards.whole} shards of a finished set are not whole")
    # Killed while it finished, or lost since: the same command writes them again.
    lacking = [name for name in (SUMS, MANIFEST_FILE) if (path / PLAN).is_file() and not (path / name).exists()]
    state: State = "finished"
    if held or now.is_running:
        state = "running"
    elif problems:
        state = "damaged"
    elif lacking or shards.whole < len(names):
        state = "unfinished" if done else "planned"
    steps = {
        "running": "",
        "damaged": typed(["shards", "repair", str(path)]),
        "finished": typed(["shards", "verify", str(path)]),
    }
    rate = now.rate_per_s if state != "finished" else _rate_of(path)
    return Status(
        kind="dataset",
        path=str(path),
        state=state,
        unit="images",
        planned=planned,
        done=done,
        failed=shards.counts["failed"],
        dropped=shards.counts["dropped"],
        rate_per_s=rate,
        eta_s=now.eta_s(None if planned is None else planned - done) if state == "running" else None,
        holders=held,
        facts={"shards": f"{shards.whole:,} of {len(names):,} complete"}
        | ({"missing": ", ".join(lacking)} if lacking and not unfinished else {}),
        problems=problems[:10],
        next=steps.get(state, resume_command(path)),
        look=str(path / PREVIEW) if (path / PREVIEW).is_file() else "",
    )


def _count(path: Path, names: list[str]) -> _Shards:
    """Look at every shard: its json and sizes, else its journal."""
    with ThreadPoolExecutor(_THREADS) as pool:
        looked = list(pool.map(lambda name: _look(ShardFiles(path, name)), names))
    counts = Counter[str]()
    for _, own, _ in looked:
        counts.update(own)
    return _Shards(sum(whole for whole, _, _ in looked), counts, [problem for *_, problem in looked if problem])


def _look(files: ShardFiles) -> tuple[bool, dict[str, int], str]:
    """Return (whether the shard is complete, its samples by status, what is wrong with it)."""
    begun_without_json = not files.json.exists()
    try:
        summary = own_summary(files)
        sizes = [files.tar.stat().st_size, files.parquet.stat().st_size]
    except VerificationError as error:
        journalled = counted_rows(files)
        if begun_without_json and files.json.exists():  # it was finished meanwhile, and its journal taken away
            return _look(files)
        return False, journalled, "" if begun_without_json else str(error)
    except OSError as error:
        return False, {}, f"{error.filename}: {error.strerror}"
    if sizes != [summary["tar"]["bytes"], summary["parquet"]["bytes"]]:
        return False, {}, f"{files.tar}: has not the size that its json states"
    return True, {status: summary[status] for status in STATUSES}, ""


def _rate_of(path: Path) -> float | None:
    """Return images per second and process over the whole job, as the manifest has it."""
    with contextlib.suppress(InputError, KeyError, TypeError, ZeroDivisionError, ValueError):
        manifest = read_manifest(path)
        times = manifest["times"]  # what was taken over from a parent is not among the drawn ones
        return float(times.get("drawn", manifest["counts"]["ok"])) / float(times["process_seconds"])
    return None
