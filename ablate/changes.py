"""What another training reads: a run's mixture with images left out, or drawn from other prompts or noise.

In: a run folder whose manifest and settings name its data. Out: a mixture as ``--data`` reads it; each set that is not
changed stays what it was.
"""

from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from synclones.ablate.appended import prompts_of
from synclones.base.errors import InputError, VerificationError
from synclones.base.manifest import MANIFEST_FILE, find_parent, read_manifest
from synclones.base.mistakes import suggestion
from synclones.base.yaml_file import Given, read_yaml
from synclones.prompts.schema import SCHEMA
from synclones.prompts.table import PromptTable, write_table
from synclones.shards.index import content_hash
from synclones.shards.loading.chosen import read_numbers
from synclones.shards.loading.mixture import Item, Mixture, parse_mixture
from synclones.shards.read import ShardFolder

SETTINGS = "config.yaml"


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        folder: where it is.
        mixture: what it read, by paths that exist.
        seed: of its training.
    """

    folder: Path
    mixture: Mixture
    seed: int


def open_run(folder: Path) -> Run:
    """Return a finished training and what it read.

    Raises:
        InputError: it is none, or its data are not here.
        VerificationError: its data are others by now than its manifest says.
    """
    record = read_manifest(folder)
    if record["stage"] != "train" or not (folder / SETTINGS).is_file():
        raise InputError(f"{folder}: is no run of `synclones train`; give one whose {SETTINGS} is there")
    given = read_yaml(folder / SETTINGS)
    texts, seed = (given.get(key, Given(None, "")).plain() for key in ("data", "seed"))
    if not isinstance(texts, list) or not texts or not isinstance(seed, int):
        raise InputError(f"{folder / SETTINGS}: says neither data nor seed; was it trained by an earlier version?")
    mixture = parse_mixture([str(text) for text in texts])
    stated = {parent["content_hash"] for parent in record.get("parents", []) if parent["name"] == "data"}
    items = []
    for item in mixture.items:
        where = find_parent(folder, item.path)
        if where is None:
            raise InputError(f"{folder}: was trained on {item.path}, which is not here; bring it back")
        # The first images of a set stay what they are when it grows.
        changed = not item.first and (where / MANIFEST_FILE).is_file() and content_hash(where) not in stated
        if changed:
            raise VerificationError(f"{where}: has other images than {folder} was trained on; bring those back")
        items.append(replace(item, path=str(where)))
    return Run(folder, replace(mixture, items=tuple(items)), seed)


def item_of(run: Run, name: str) -> Item:
    """Return the set that is changed: the one of that name, or the only one.

    Raises:
        InputError: there is no such set, or there are several and none was named.
    """
    names = [item.name for item in run.mixture.items]
    if not name and len(names) > 1:
        raise InputError(f"--of: {run.folder} was trained on {', '.join(names)}; say which of them changes")
    if name and name not in names:
        raise InputError(f"--of: {name!r} is none of the sets{suggestion(name, names)}")
    return run.mixture.items[names.index(name) if name else 0]


def numbers_of_classes(item: Item, classes: tuple[str, ...], flag: str) -> np.ndarray:
    """Return the numbers of all images of some classes that a set is shown with, ascending int64[m].

    Raises:
        InputError: a class that the set has not, or has no image of.
    """
    shards = ShardFolder(item.path, item.split or None)
    known, numbers = list(shards.class_ids), []
    for class_id in classes:
        if class_id not in known:
            raise InputError(f"{flag}: {class_id!r} is no class of {item.path}{suggestion(class_id, known)}")
    labels = [known.index(class_id) for class_id in classes]
    for name in shards.shards:
        shard = shards.open(name)
        numbers.append(shard.index[np.isin(shard.label, labels)])
    every: np.ndarray = np.sort(np.concatenate(numbers)).astype(np.int64)
    every = every[every < item.first] if item.first else every
    if item.without:
        every = np.setdiff1d(every, read_numbers(item.without, item.name))
    if not len(every):
        raise InputError(f"{flag}: {item.path} has no image of {', '.join(classes)}")
    return every


def left_out(item: Item, numbers: np.ndarray) -> np.ndarray:
    """Return all images of a set that are left out when these are, too: those that were left out before among them.

    Raises:
        InputError: the run showed only some images by a list of those, or by a choice that would become another one.
    """
    if item.only:
        raise InputError(f"{item.name}: was read by only={item.only}; a set that was chosen so cannot be changed here")
    if item.count or item.fraction != 1:  # what is chosen depends on how many there are
        raise InputError(
            f"{item.name}: was read by count or fraction; without these images others would be chosen, so that the "
            "mixture would change in more"
        )
    before = read_numbers(item.without, item.name) if item.without else numbers[:0]
    every: np.ndarray = np.union1d(before, numbers)
    return every


def without(run: Run, item: Item, file: Path) -> Mixture:
    """Return the mixture with a file of images that a set is shown without."""
    items = [replace(one, without=str(file)) if one == item else one for one in run.mixture.items]
    return replace(run.mixture, items=tuple(items))


def redrawn(run: Run, item: Item, file: Path, images: Path) -> Mixture:
    """Return the mixture in which images of a set, listed in a file, are replaced by those of another set.

    Raises:
        InputError: how much is shown is not said by how often, so that the mixture would change in more.
    """
    plain = Item(path=item.path, name=item.name, split=item.split, repeat=item.repeat, without=item.without)
    if item != plain or run.mixture.pair:
        raise InputError(f"{item.name}: some of it cannot be redrawn where count, share or pairs are asked; use repeat")
    more = Item(path=str(images), name=f"{item.name}-redrawn", repeat=item.repeat)
    return replace(without(run, item, file), items=(*without(run, item, file).items, more))


def elsewhere(run: Run, item: Item, images: Path) -> Mixture:
    """Return the mixture with another folder in the place of a set."""
    items = [replace(one, path=str(images)) if one == item else one for one in run.mixture.items]
    return replace(run.mixture, items=tuple(items))


def as_yaml(mixture: Mixture) -> dict[str, Any]:
    """Return what a file for ``--data`` says of a mixture."""
    plain = Item(path="")
    sources: dict[str, Any] = {}
    for item in mixture.items:
        values = {field.name: getattr(item, field.name) for field in fields(item) if field.name != "name"}
        given = {name: value for name, value in values.items() if value != getattr(plain, name)}
        sources[item.name] = {
            name.replace("_", "-"): str(value) if isinstance(value, Fraction) else value
            for name, value in given.items()
        }
    whole: dict[str, Any] = {"total": mixture.total} if mixture.total else {}
    if mixture.pair:
        whole["pair"] = f"{mixture.pair.mode}:{mixture.pair.real}+{mixture.pair.synthetic}"
    return whole | {"sources": sources}


def other_prompts(out: Path, folder: Path, numbers: np.ndarray, others: PromptTable) -> int:
    """Write a table that orders each of some images of a set from another table: the k-th of a class from its k-th row.

    Args:
        numbers: int64[m], the images of the set.

    Returns:
        How many rows it has: as many as the set was to have of these classes.

    Raises:
        InputError: the tables have other classes, or the other one too few rows of a class.
    """
    own = prompts_of(folder)
    if own.class_ids() != others.class_ids():
        raise InputError(
            f"--prompts: {others.path} has other classes than {own.path}; build it with the same --classes"
        )
    rows: dict[int, list[dict[str, Any]]] = {}
    for _, block in others.blocks():
        for order in block.to_pylist():
            rows.setdefault(order["label"], []).append(order)
    made: list[dict[str, Any]] = []
    for number in numbers.tolist():
        (old,) = own.rows(number, number + 1)
        if not rows.get(old.label):
            raise InputError(
                f"--prompts: {others.path} has too few rows of class {old.class_id!r}; build a longer table"
            )
        made.append(rows[old.label].pop(0) | {"index": len(made)})
    known = {key: value for key, value in others.metadata.items() if key not in ("num_rows", "content_sha256")}
    sources = {"instead of": own.check(), "from": others.check()}
    write_table(out, [pa.Table.from_pylist(made, schema=SCHEMA)], known | {"sources": sources})
    return len(made)
