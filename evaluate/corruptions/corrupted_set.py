"""Writes a labelled set under corruptions, in ImageNet-C's layout, with any number of processes and after any kill.

In: a labelled set. Out: ``CORRUPTION/SEVERITY/CLASS/NAME.JPEG`` (or ``.png``), each file whole or absent, the settings
that decide them in ``corrupted.json``, and a ``manifest.json`` that says ``generated: true`` once all are there.

    synclones evaluate corrupt --data imagenet/val --out imagenet-c --crop-px 224
"""

import io
import os
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from synclones.base import machine
from synclones.base.config import to_dict
from synclones.base.differences import differences
from synclones.base.errors import InputError, one_line
from synclones.base.files import remove_dead_temporaries, sha256_bytes, sync_disks, write_atomic, write_unsynced
from synclones.base.json_file import canonical_json, pretty_json, read_json
from synclones.base.manifest import MANIFEST_FILE, Parent, read_manifest, write_manifest
from synclones.base.output import say
from synclones.base.progress import Progress
from synclones.base.units import format_duration
from synclones.evaluate.corruptions.constants import OF_ANY_SIZE, OF_DEPTH
from synclones.evaluate.corruptions.corrupt import STORED_QUALITY, check_name, corrupt, table_of
from synclones.evaluate.corruptions.corrupted_inputs import DepthMaps, cropped, depth_maps, frost_textures
from synclones.evaluate.corruptions.corrupted_settings import CorruptConfig
from synclones.shards.lock import claim, remove_locks
from synclones.shards.sources.decode import IMAGE_SUFFIXES
from synclones.shards.sources.labelled import LabelledSource
from synclones.shards.sources.open import open_source
from synclones.shards.stores.store import refuse_store

SETTINGS, STAGE_NAME = "corrupted.json", "evaluate corrupt"
_SUFFIXES = {"jpeg": ".JPEG", "png": ".png"}
_ENDS = {"jpeg": b"\xff\xd9", "png": b"IEND\xaeB`\x82"}  # a file that a power loss cut has another end
_IMAGES_PER_PIECE = 64


@dataclass(frozen=True)
class _Job:
    """A corrupted set that was checked and may be written."""

    config: CorruptConfig
    source: LabelledSource
    names: tuple[str, ...]
    """Of each image: class and file, without the suffix."""
    image_format: str
    textures: tuple[np.ndarray, ...]
    depth: DepthMaps | None
    settings: dict[str, Any]
    """What decides the bytes of every file in the folder."""

    def path(self, corruption: str, severity: int, position: int) -> Path:
        """Return where an image goes."""
        file = f"{self.names[position]}{_SUFFIXES[self.image_format]}"
        return self.config.out / corruption / str(severity) / file

    def missing(self, position: int) -> list[tuple[str, int]]:
        """Return under which corruptions and severities an image is not there yet."""
        cells = [(name, severity) for name in self.config.corruptions for severity in self.config.severities]
        return [cell for cell in cells if not _is_whole(self.path(*cell, position), _ENDS[self.image_format])]


def _is_whole(path: Path, end: bytes) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-len(end), os.SEEK_END)
            return file.read() == end
    except OSError:  # none, or shorter than its end
        return False


def corrupt_set(config: CorruptConfig) -> None:
    """Write what is missing of a corrupted set, together with other processes that run the same command.

    Raises:
        InputError: no such corruption, an image size without constants, a folder of other settings.
        VerificationError: an image of the set is damaged.
    """
    job = _check(config)
    files = len(job.source) * len(config.corruptions) * len(config.severities)
    if config.dry_run:
        print(
            f"data    {config.data}: {len(job.source)} images\nwrites  {files} files as {job.image_format}, generated"
        )
        return
    config.out.mkdir(parents=True, exist_ok=True)
    _keep_settings(job)
    started, pieces = time.monotonic(), range(0, len(job.source), _IMAGES_PER_PIECE)
    # Each process begins at another place, so that they seldom meet; what others hold is waited for in the end.
    first = len(pieces) * machine.rank() // machine.world_size()
    held = []
    with Progress("images", len(job.source), folder=config.out) as progress:
        for start in (*pieces[first:], *pieces[:first]):
            if (written := _write_piece(job, start, wait=False)) is None:
                held.append(start)
            else:
                progress.add(written)
                progress.also_done(min(_IMAGES_PER_PIECE, len(job.source) - start) - written)
        for start in held:
            _write_piece(job, start, wait=True)
            progress.also_done(min(_IMAGES_PER_PIECE, len(job.source) - start))
    _finish(job, files, time.monotonic() - started)


# ------------------------------------------------------------------ before anything is written


def _check(config: CorruptConfig) -> _Job:
    for path in (config.data, config.out):
        refuse_store(path)
    for name in config.corruptions:
        check_name(name)
        if name in OF_DEPTH and config.depth_dir is None:
            raise InputError(f"--corruptions {name}: needs a depth map of each image; give their folder (--depth-dir)")
    if config.out.exists() and not config.out.is_dir():
        raise InputError(f"--out {config.out}: is a file; give a folder, new or of the same command")
    if config.data.is_dir() and config.out.resolve().is_relative_to(config.data.resolve()):
        raise InputError(
            f"--out {config.out}: lies in --data, whose images it would become part of; give another folder"
        )
    source = LabelledSource(open_source(config.data))
    pixels = source.read(0).pixels
    image = cropped(pixels, config.crop_px)
    height, width = image.shape[:2]
    table = table_of(height, width, config.table) if set(config.corruptions) - set(OF_ANY_SIZE) else config.table
    image_format = config.image_format
    if image_format == "auto":
        image_format = "png" if table == 32 else "jpeg"
    textures = frost_textures(config.frost_dir, table or 224, image)
    names = _names(source)
    depth = depth_maps(config.depth_dir, config.depth_kind, names)
    if depth:  # maps of another kind show before anything is written
        depth.of(0, pixels.shape[0], pixels.shape[1], config.crop_px)
    settings = _settings(config, source, image_format, textures, depth)
    job = _Job(config, source, names, image_format, textures, depth, settings)
    _refuse_other_settings(job)
    return job


def _names(source: LabelledSource) -> tuple[str, ...]:
    """Return class and file name of every image: as in its set where that tells all apart, else by number.

    Raises:
        InputError: a class' id is no name for a folder.
    """
    for class_id in source.class_ids:
        if not _is_plain(class_id) or class_id == MANIFEST_FILE:
            raise InputError(f"{source.folder}: class {class_id[:60]!r} is no name for a folder; rename the class")
    classes = [source.class_ids[source.label(position)] for position in range(len(source))]
    stems = [PurePosixPath(source.name(position)).name for position in range(len(source))]
    # A key may have a point in it; only the ending of an image file is cut off.
    stems = [stem.rpartition(".")[0] if stem.lower().endswith(IMAGE_SUFFIXES) else stem for stem in stems]
    names = tuple(f"{class_id}/{stem}" for class_id, stem in zip(classes, stems, strict=True))
    if all(map(_is_plain, stems)) and len({name.casefold() for name in names}) == len(names):
        return names
    return tuple(f"{class_id}/{source.index(position):010d}" for position, class_id in enumerate(classes))


def _is_plain(name: str) -> bool:
    odd = set(name) & set('/\\:*?"<>|') or name.startswith(".") or name != name.strip() or len(name.encode()) > 200
    return bool(name) and name.isprintable() and not odd


# ------------------------------------------------------------------ settings


def _settings(
    config: CorruptConfig,
    source: LabelledSource,
    image_format: str,
    textures: tuple[np.ndarray, ...],
    depth: DepthMaps | None,
) -> dict[str, Any]:
    digest = sha256_bytes(b"".join(texture.tobytes() for texture in textures)) if textures else ""
    return {
        "generated": True,
        "data_sha256": source.content_hash(),
        "seed": config.seed,
        "table": config.table or "by size",
        "crop_px": config.crop_px,
        "image_format": image_format,
        "frost": f"textures {digest}" if digest else "procedural",
        "versions": {name: metadata.version(name) for name in ("numpy", "scipy", "pillow")},
    } | ({"depth": depth.identity} if depth else {})


def _refuse_other_settings(job: _Job) -> None:
    """Refuse a folder that is another's, or of other settings.

    Raises:
        InputError: when it is.
    """
    out, path = job.config.out, job.config.out / SETTINGS
    if not path.exists():
        if out.exists() and any(not entry.name.startswith(".") for entry in out.iterdir()):
            raise InputError(f"--out {out}: holds files and no {SETTINGS}; give a new folder")
        return
    try:
        stored = read_json(path)
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise InputError(f"{path}: cannot be read; give a new folder")
    if stored != job.settings:
        raise InputError(f"--out {out}: {differences(stored, job.settings)}; give a new folder, or the same settings")


def _keep_settings(job: _Job) -> None:
    with _claimed(job.config.out, "settings"):
        _refuse_other_settings(job)  # another process may have been the first
        if not (job.config.out / SETTINGS).exists():
            write_atomic(job.config.out / SETTINGS, pretty_json(job.settings))


# ------------------------------------------------------------------ work


def _claimed(out: Path, name: str) -> Any:
    held = claim(out, name, wait=True)
    assert held is not None  # it waited
    return held


def _write_piece(job: _Job, start: int, *, wait: bool) -> int | None:
    """Write what is missing of some images; return of how many, None when another process is at them."""
    held = claim(job.config.out, f"images-{start:010d}", wait=wait)
    if held is None:
        return None
    end = min(start + _IMAGES_PER_PIECE, len(job.source))
    with held:
        return sum(_write_image(job, position) for position in range(start, end))


def _write_image(job: _Job, position: int) -> bool:
    """Write what is missing of an image; return whether anything was."""
    cells = job.missing(position)
    if not cells:
        return False
    config = job.config
    pixels = job.source.read(position).pixels
    image, depth = cropped(pixels, config.crop_px), None
    if job.depth and any(name in OF_DEPTH for name, _ in cells):
        depth = job.depth.of(position, pixels.shape[0], pixels.shape[1], config.crop_px)
    for name, severity in cells:
        try:
            made = corrupt(
                image,
                name,
                severity,
                seed=config.seed,
                key=job.names[position],
                table=config.table,
                frost_textures=job.textures,
                depth=depth,
            )
        except InputError as error:
            raise InputError(f"{job.source.where(position)}: {error}") from None
        path = job.path(name, severity, position)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_unsynced(path, _encoded(made, job.image_format))  # a disk's answer takes longer than the image
    return True


def _encoded(image: np.ndarray, image_format: str) -> bytes:
    file, picked = io.BytesIO(), Image.fromarray(image)
    if image_format == "png":
        picked.save(file, "PNG")
    else:
        picked.save(file, "JPEG", quality=STORED_QUALITY, optimize=True)
    return file.getvalue()


def _finish(job: _Job, files: int, seconds: float) -> None:
    """Write the manifest, which names all that the folder holds."""
    config, out = job.config, job.config.out
    sync_disks()
    with _claimed(out, "settings"):
        earlier = read_manifest(out).get("cells", []) if (out / MANIFEST_FILE).exists() else []
        cells = {(name, severity) for name in config.corruptions for severity in config.severities}
        cells |= {(str(name), int(severity)) for name, severity in earlier}
        for name, severity in cells:
            for folder in (out / name / str(severity)).iterdir():
                remove_dead_temporaries(folder)
        parents = [Parent("set", str(config.data), job.source.content_hash())]
        counts = {"images": len(job.source), "cells": len(cells)}
        listed = sorted([name, severity] for name, severity in cells)
        identity = sha256_bytes(canonical_json(job.settings | {"cells": listed}))
        more = {"generated": True, "content_hash": identity, "cells": listed, "settings": job.settings}
        write_manifest(out, STAGE_NAME, to_dict(config), parents, counts, {"seconds": round(seconds, 1)}, more)
    remove_locks(out)
    say(one_line(f"{out}: {files} files, generated, in {format_duration(seconds)}"))


def generated_settings(folder: Path) -> dict[str, Any] | None:
    """Return what a corrupted set was generated with, given its folder or one below it; None for any other folder."""
    own = Path(folder).resolve()
    for candidate in (own, *own.parents[:3]):
        try:
            record = read_json(candidate / SETTINGS)
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and record.get("generated") is True:
            return record
    return None
