"""Writes a set made of the samples of other sets: a dataset folder like a drawn one, and as hard to kill.

In: parents, which of their samples go into which shard, a rule in words of the plan. Out: a folder with its own
``plan.json``, which names the parents by their content hashes and the rule, so that the same command gives the same
bytes however often it is stopped; ``config.yaml``, by which it goes on; shards, indexes, card and manifest.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from synclones.base.config import save, to_dict
from synclones.base.differences import differences
from synclones.base.errors import InputError
from synclones.base.escape import markdown_code
from synclones.base.files import sha256_bytes, write_atomic
from synclones.base.json_file import canonical_json, pretty_json
from synclones.base.manifest import MANIFEST_FILE, Parent, read_manifest, write_manifest
from synclones.base.progress import Progress
from synclones.base.resume import CONFIG, resumed_by, typed
from synclones.base.units import format_count, format_set
from synclones.shards.card import write_card, write_croissant
from synclones.shards.index import PLAN, finish_folder, read_checksums, read_plan
from synclones.shards.lock import claim
from synclones.shards.read import ShardFolder
from synclones.shards.schema import MAX_SHARDS, Sample, shard_name
from synclones.shards.shard import opened
from synclones.shards.stores.store import refuse_store
from synclones.shards.unfinished import MADE_BY, resume_command
from synclones.shards.write import ShardWriter, is_complete, stored_rows

BATCH = 256  # samples written, and synced, together


@dataclass(frozen=True)
class ParentSet:
    """A finished set whose samples are taken.

    Attributes:
        classes: its class of each label in order; empty when its images have no labels.
        sha256: its content hash.
    """

    folder: Path
    shards: ShardFolder
    classes: tuple[str, ...]
    sha256: str
    stored_px: int
    """Side of its images in px as its plan states it, or 0."""


def open_parent(folder: Path) -> ParentSet:
    """Open a finished set.

    Raises:
        InputError: a URL, no such folder, no shards, or no manifest.
        VerificationError: the set is unfinished, or a json of it is broken.
    """
    shards = ShardFolder(folder)
    content = shards.content_hash()
    classes = read_manifest(folder).get("classes") or []
    stored_px = read_plan(folder).get("stored_px")
    return ParentSet(folder, shards, tuple(map(str, classes)), content, stored_px if type(stored_px) is int else 0)


@dataclass(frozen=True)
class Selection:
    """Which samples the new set has, in its own order; three arrays of one length."""

    parent: np.ndarray
    """int16[n]: number of the parent."""
    shard: np.ndarray
    """int32[n]: number of the parent's shard."""
    position: np.ndarray
    """int32[n]: position in it."""
    starts: Sequence[int]
    """Where each shard of the new set begins in these arrays, and at last their length."""

    def __len__(self) -> int:
        return len(self.position)


def all_samples(parent: ParentSet) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (shard, position, index, label) of all stored samples: int32[n], int32[n], int64[n], int32[n].

    Raises:
        VerificationError: the Parquet file of a shard is damaged.
    """
    opened_shards = [parent.shards.open(name) for name in parent.shards.shards]
    sizes = [len(shard) for shard in opened_shards]
    numbers = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    positions = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
    index = np.concatenate([shard.index.astype(np.int64) for shard in opened_shards])
    return numbers, positions, index, np.concatenate([shard.label for shard in opened_shards])


@dataclass(frozen=True, kw_only=True)
class MadeSet:
    """A set to be made, checked: nothing is written yet."""

    made_by: str
    """The verb."""
    out: Path
    settings: Any
    """The settings of the verb, which resume it."""
    parents: Sequence[ParentSet]
    selection: Selection
    rule: dict[str, Any]
    """What was chosen and how, for the plan."""
    classes: Sequence[str]
    changed: Callable[[Sample, int], Sample] = field(default=lambda sample, parent: sample)
    """Turns a sample of a parent, given by its number, into the one that is stored."""

    @property
    def num_shards(self) -> int:
        return len(self.selection.starts) - 1

    @property
    def split(self) -> str:
        return self.parents[0].shards.split

    def plan(self) -> dict[str, Any]:
        """Return what ``plan.json`` says: nothing of it depends on paths, times or this machine."""
        sides = {parent.stored_px for parent in self.parents}
        what: dict[str, Any] = {
            MADE_BY: self.made_by,
            "parents": [parent.sha256 for parent in self.parents],
            "rule": self.rule,
            "split": self.split,
            "num_samples": len(self.selection),
            "num_shards": self.num_shards,
        }
        what |= {"stored_px": sides.pop()} if len(sides) == 1 and sides != {0} else {}
        return {"format": 1, **what, "plan_id": sha256_bytes(canonical_json(what))[:16]}

    def shard_name(self, number: int) -> str:
        """Return the name of a shard without its suffix."""
        return shard_name(self.split, number, self.num_shards)


def check_out(made: MadeSet) -> None:
    """Refuse a folder that holds anything but this very set, begun or finished.

    Raises:
        InputError: it does, or it is a URL.
    """
    out = made.out
    refuse_store(out)
    if made.num_shards > MAX_SHARDS:
        raise InputError(f"--images-per-shard: makes {made.num_shards} shards, at most {MAX_SHARDS}; raise it")
    if any(out.resolve() == parent.folder.resolve() for parent in made.parents):
        raise InputError(f"--out: {out} is the set that is read; choose a new folder")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is no folder; choose a new one")
    strangers = sorted(p.name for p in out.iterdir() if not p.name.startswith(".")) if out.is_dir() else []
    if strangers and not (out / PLAN).exists():
        raise InputError(f"--out: {out} holds {strangers[0]!r} but no {PLAN}; choose an empty or new folder")
    if (out / PLAN).exists() and (stored := read_plan(out)) != made.plan():
        what = differences(stored, made.plan()) if MADE_BY in stored else "it was drawn"
        raise InputError(f"--out: {out} holds another set: {what}; choose a new folder")


def make(made: MadeSet) -> None:
    """Write what is missing of the set and, when nothing is, finish it; safe for several processes at once.

    Raises:
        InputError: as `check_out`.
        VerificationError: a sample of a parent is damaged.
    """
    check_out(made)
    out, plan = made.out, made.plan()
    if (out / MANIFEST_FILE).exists() and not _missing(made):
        print(f"{out}: complete, {format_count(len(made.selection), 'image')}; nothing to do")
        return
    out.mkdir(parents=True, exist_ok=True)
    if not (out / PLAN).exists():  # of two commands that begin at once, both write the same
        write_atomic(out / PLAN, pretty_json(plan))
    save(made.settings, out / CONFIG)

    with resumed_by(resume_command(out)):
        _write_shards(made, plan["plan_id"])
    # Only the process that sees all shards complete finishes the set.
    if missing := _missing(made):
        print(f"{out}: this process is done; {format_count(len(missing), 'shard')} left: other processes write them")
        return
    content = _finish(made, plan)
    print(f"{out}: {format_set(len(made.selection), made.num_shards)}, content {content[:16]}")
    print(f"check: {typed(['shards', 'verify', str(out)])}", file=sys.stderr)


def _write_shards(made: MadeSet, plan_id: str) -> None:
    """Write every shard that is neither complete nor another process'."""
    names = [made.shard_name(number) for number in range(made.num_shards)]
    stored = {name: stored_rows(made.out, name) for name in names}
    progress = Progress("images", len(made.selection), sum(stored.values()), folder=made.out)
    try:
        for number, name in enumerate(names):
            held = None if is_complete(made.out, name) else claim(made.out, name)
            if held is not None:
                with held:
                    _write_shard(made, number, name, plan_id, progress)
    finally:
        progress.close(whole=not _missing(made))


def _missing(made: MadeSet) -> list[int]:
    return [number for number in range(made.num_shards) if not is_complete(made.out, made.shard_name(number))]


def _write_shard(made: MadeSet, number: int, name: str, plan_id: str, progress: Progress) -> None:
    if is_complete(made.out, name):
        return  # another process finished it between the question and the claim
    with ShardWriter(made.out, name, plan_id) as writer:
        samples = _samples(made, number, writer.next_batch * BATCH)
        for batch in iter(lambda: list(islice(samples, BATCH)), []):
            writer.add_batch(writer.next_batch, batch)
            progress.add(len(batch))
        writer.finish()


def _samples(made: MadeSet, number: int, first: int) -> Iterator[Sample]:
    """Read the samples of a new shard from its ``first`` one on, each checked; one parent's shard after the other."""
    chosen = made.selection
    at = slice(chosen.starts[number] + first, chosen.starts[number + 1])
    parents, shards, positions = (column[at].tolist() for column in (chosen.parent, chosen.shard, chosen.position))
    for (parent, shard), group in groupby(zip(parents, shards, positions, strict=True), key=lambda one: one[:2]):
        folder = made.parents[parent].shards
        source = folder.open(folder.shards[shard])
        with opened(source.files.tar) as read_range:
            for _, _, position in group:
                yield made.changed(source.sample(position, read_range), parent)


def _finish(made: MadeSet, plan: dict[str, Any]) -> str:
    """Write what follows from complete shards, the manifest last; return the content hash. Safe to repeat."""
    out, count = made.out, len(made.selection)
    content = finish_folder(out, made.split)
    names = ", ".join(f"{markdown_code(p.folder.name)} (content `{p.sha256[:16]}`)" for p in made.parents)
    rule = ", ".join(f"{name} {value}" for name, value in made.rule.items())
    text = (
        f"{count} images out of {names}, made by `synclones shards {made.made_by}`: {rule}.\n\n"
        "What the cards of these sets say of generators, licences and rights holds for the images here.\n"
        "Check the folder with `sha256sum -c SHA256SUMS` or `synclones shards verify`."
    )
    write_card(out, f"Images of other sets: {out.name}", text, count, made.split)
    write_croissant(out, out.name, f"{count} images of other sets", read_checksums(out), made.made_by)
    write_manifest(
        out,
        f"shards {made.made_by}",
        to_dict(made.settings),
        [Parent(made.made_by, str(parent.folder), parent.sha256) for parent in made.parents],
        {"planned": count, "ok": count},
        {},
        {"content_hash": content, "plan": plan, "classes": list(made.classes)},
    )
    return content


def equal_starts(count: int, images_per_shard: int) -> list[int]:
    """Return where shards of equal size begin, and the end."""
    return [*range(0, count, images_per_shard), count]
