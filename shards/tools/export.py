"""Writes a set in the form that other tools read by themselves: class folders, Parquet of images, or plain tars.

In: a finished set. Out: a new folder, whole or absent, with a manifest that names the set. ImageFolder: a folder per
class, named by its id, and a file per image, named by its key. Hugging Face: Parquet whose schema makes `load_dataset`
give images and class labels. WebDataset: the shards' own tars, without sidecars.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from synclones.base.config import to_dict
from synclones.base.errors import InputError, SynclonesError, VerificationError
from synclones.base.files import replaced_folder, sha256_file
from synclones.base.json_file import canonical_json
from synclones.base.manifest import MANIFEST_FILE, Parent, read_manifest, write_manifest
from synclones.base.resume import typed
from synclones.shards.index import own_summary
from synclones.shards.lock import claim, remove_lock
from synclones.shards.schema import Sample, ShardFiles, sample_key
from synclones.shards.stores.store import refuse_store
from synclones.shards.tools.made import ParentSet, open_parent

ROWS_PER_GROUP = 256  # of a Parquet file: what a reader has in memory at once
_MAX_NAME_BYTES = 200


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a finished set as class folders (ImageFolder), Hugging Face image Parquet, or plain WebDataset tars."""

    folder: Path = field(kw_only=False)
    """The dataset folder."""
    to: Literal["imagefolder", "hf", "wds"]
    """What it becomes."""
    out: Path
    """New folder; it is whole or absent, so after a kill the same command begins again."""


def export(config: ExportConfig) -> None:
    """Write the folder, or find that it is there already.

    Raises:
        InputError: ``--out`` is another's; class ids that are no folder names; no labels for class folders.
        VerificationError: the set is unfinished or damaged; nothing is left then.
    """
    for path in (config.folder, config.out):
        refuse_store(path)
    parent = open_parent(config.folder)
    if config.to == "imagefolder":
        _check_class_folders(parent)
    if _is_exported(config, parent):
        print(f"{config.out}: is there already, out of the same set; nothing to do")
        return
    config.out.parent.mkdir(parents=True, exist_ok=True)
    held = claim(config.out.parent, f"{config.out.name}.export")
    if held is None:
        raise InputError(f"--out: {config.out} is being written by another process; let it end, or choose another")
    try:
        with held, replaced_folder(config.out) as temporary:
            count = _WRITERS[config.to](parent, temporary)
            _write_manifest(config, parent, temporary, count)
    finally:
        remove_lock(held.path)
    print(f"{config.out}: {count} images {_HOW_TO_LOAD[config.to].format(config.out.absolute(), parent.shards.split)}")


def _is_exported(config: ExportConfig, parent: ParentSet) -> bool:
    """Whether ``--out`` is this very export.

    Raises:
        InputError: it is something else.
    """
    if not config.out.exists() or (config.out.is_dir() and not any(config.out.iterdir())):
        return False
    try:
        record = read_manifest(config.out)
    except SynclonesError:
        record = {}
    same = record.get("stage") == "shards export" and record.get("exported") == config.to
    parents = record.get("parents") or [{}]
    if not (same and parents[0].get("content_hash") == parent.sha256):
        raise InputError(f"--out: {config.out} is there and is no such export of {config.folder}; choose a new folder")
    return True


def _write_manifest(config: ExportConfig, parent: ParentSet, folder: Path, count: int) -> None:
    write_manifest(
        folder,
        "shards export",
        to_dict(config),
        [Parent("set", str(config.folder), parent.sha256)],
        {"ok": count},
        {},
        {"exported": config.to, "classes": list(parent.classes)},
    )


# ------------------------------------------------------------------ class folders


def _check_class_folders(parent: ParentSet) -> None:
    """Refuse class ids that are no names of folders, or that one file system takes for the same.

    Raises:
        InputError: naming the class.
    """
    if not parent.classes:
        raise InputError(f"{parent.folder}: the images have no labels, and class folders need them; use --to hf or wds")
    seen: dict[str, str] = {}
    for name in parent.classes:
        plain = name.isprintable() and not set(name) & set('/\\:*?"<>|') and not name.startswith(".")
        if not plain or not name or name != name.strip() or len(name.encode()) > _MAX_NAME_BYTES:
            raise InputError(f"{parent.folder}: class {name[:60]!r} is no name for a folder; use --to hf or wds")
        if name.casefold() in seen or name == MANIFEST_FILE:
            raise InputError(
                f"{parent.folder}: class {name!r} and {seen.get(name.casefold(), MANIFEST_FILE)!r} would be one folder "
                "on some machines; use --to hf or wds"
            )
        seen[name.casefold()] = name


def _write_class_folders(parent: ParentSet, folder: Path) -> int:
    count = 0
    for sample in parent.shards.sequential():
        inside = folder / _class_of(parent, sample)
        inside.mkdir(exist_ok=True)
        (inside / f"{sample_key(sample.index)}.jpg").write_bytes(sample.jpg)
        count += 1
    return count


def _class_of(parent: ParentSet, sample: Sample) -> str:
    label = -1 if sample.label is None else sample.label
    if not 0 <= label < len(parent.classes):
        raise InputError(f"{parent.folder}: sample {sample.index} has label {label}, which is no class of the set")
    return parent.classes[label]


# ------------------------------------------------------------------ Hugging Face


def _features(classes: Sequence[str]) -> dict[str, Any]:
    """The columns, as `datasets` describes them in a Parquet file's metadata."""
    label = {"label": {"names": list(classes), "_type": "ClassLabel"}} if classes else {}
    numbers = {name: {"dtype": "int64", "_type": "Value"} for name in ("index", "seed")}
    return {"image": {"_type": "Image"}, **label, "text": {"dtype": "string", "_type": "Value"}, **numbers}


def _write_parquet(parent: ParentSet, folder: Path) -> int:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [("image", image), *([("label", pa.int64())] if parent.classes else [])]
    fields += [("text", pa.string()), ("index", pa.int64()), ("seed", pa.int64())]
    features = {"info": {"features": _features(parent.classes)}}
    schema = pa.schema(fields, metadata={"huggingface": canonical_json(features)})
    (folder / "data").mkdir()
    names, count = parent.shards.shards, 0
    for number, name in enumerate(names):
        path = folder / "data" / f"{parent.shards.split}-{number:05d}-of-{len(names):05d}.parquet"
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for rows in _groups(parent.shards.sequential([name])):
                writer.write_table(pa.Table.from_pylist([_row(parent, sample) for sample in rows], schema))
                count += len(rows)
    files = {"split": parent.shards.split, "path": f"data/{parent.shards.split}-*.parquet"}
    front = {"configs": [{"config_name": "default", "data_files": [files]}], "tags": ["synthetic"]}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n", encoding="utf-8")
    return count


def _groups(samples: Iterator[Sample]) -> Iterator[list[Sample]]:
    while rows := list(islice(samples, ROWS_PER_GROUP)):
        yield rows


def _row(parent: ParentSet, sample: Sample) -> dict[str, Any]:
    if parent.classes:
        _class_of(parent, sample)
    return {
        "image": {"bytes": sample.jpg, "path": f"{sample_key(sample.index)}.jpg"},
        "label": sample.label,
        "text": sample.txt,
        "index": sample.index,
        "seed": sample.seed,
    }


# ------------------------------------------------------------------ WebDataset


def _write_tars(parent: ParentSet, folder: Path) -> int:
    # A copy and no link: what is handed on must not change, or be damaged, with the set.
    for name in parent.shards.shards:
        files, target = ShardFiles(parent.folder, name), folder / f"{name}.tar"
        shutil.copyfile(files.tar, target)
        if sha256_file(target) != own_summary(files)["tar"]["sha256"]:
            look = typed(["shards", "verify", str(parent.folder)])
            raise VerificationError(f"{files.tar}: damaged; run `{look}`")
    return parent.shards.num_samples


_WRITERS = {"imagefolder": _write_class_folders, "hf": _write_parquet, "wds": _write_tars}
_HOW_TO_LOAD = {
    "imagefolder": 'in class folders\nload: torchvision.datasets.ImageFolder("{0}"), which numbers classes by name',
    "hf": 'in Parquet\nload: datasets.load_dataset("{0}")',
    "wds": 'in tars\nload: webdataset.WebDataset("{0}/{1}-XXXXX.tar")',
}
