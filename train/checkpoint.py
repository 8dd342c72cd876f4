"""Checkpoints that are whole or absent: everything written, hashed and verified before the one before may go.

In: named tensors and a small state. Out: ``checkpoints/step-00001000/`` with ``model.safetensors``,
``optimizer.safetensors``, ``state.json`` and ``SHA256SUMS``. The newest that verifies is the one to resume from.
"""

import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from synclones.base.errors import VerificationError
from synclones.base.files import sha256_bytes
from synclones.base.json_file import pretty_json

MODEL, OPTIMIZER, STATE, SUMS = "model.safetensors", "optimizer.safetensors", "state.json", "SHA256SUMS"
NAME = re.compile(r"step-(\d{8,})")

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A training between two steps."""

    step: int
    """Steps done."""
    plan_id: str
    """The training it belongs to."""
    model: Tensors
    optimizer: Tensors
    """Moments of every parameter, as ``moment/parameter``."""
    state: dict[str, Any]
    """Whatever else goes on from here, JSON-able."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint into ``folder``, verify it as read back from disk, then remove all but the ``keep`` newest."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{checkpoint.step:08d}"
    temporary = folder / f".{target.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    files = {
        MODEL: save(checkpoint.model),
        OPTIMIZER: save(checkpoint.optimizer),
        STATE: pretty_json({"step": checkpoint.step, "plan_id": checkpoint.plan_id, "state": checkpoint.state}),
    }
    sums = "".join(f"{sha256_bytes(data)}  {name}\n" for name, data in sorted(files.items()))
    for name, data in {**files, SUMS: sums.encode()}.items():
        _write_durably(temporary / name, data)
    _sync(temporary)
    if target.exists():  # a damaged one that was fallen back from, or the same step once more
        shutil.rmtree(target)
    os.replace(temporary, target)
    _sync(folder)
    read_checkpoint(target)
    _rotate(folder, keep)
    return target


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rotate(folder: Path, keep: int) -> None:
    for _, path in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(path)


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of every folder with the name of a checkpoint, oldest first, whole or not."""
    found = [(NAME.fullmatch(path.name), path) for path in Path(folder).glob("step-*")]
    return sorted((int(match[1]), path) for match, path in found if match)


def read_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint, every byte compared with its hash. Errors: VerificationError naming the file."""
    data, found = {}, []
    stated = _read_sums(path)
    for name in (MODEL, OPTIMIZER, STATE):
        try:
            data[name] = (path / name).read_bytes()
        except OSError:
            raise VerificationError(f"{path / name}: missing") from None
        found.append(f"{sha256_bytes(data[name])}  {name}\n")
        if found[-1] not in stated:
            raise VerificationError(f"{path / name}: differs from its hash in {SUMS}")
    if sorted(found) != sorted(stated):
        raise VerificationError(f"{path / SUMS}: damaged")
    record = json.loads(data[STATE])
    return Checkpoint(record["step"], record["plan_id"], load(data[MODEL]), load(data[OPTIMIZER]), record["state"])


def _read_sums(path: Path) -> list[str]:
    try:
        return (path / SUMS).read_text().splitlines(keepends=True)
    except (OSError, UnicodeDecodeError):
        raise VerificationError(f"{path / SUMS}: missing or damaged") from None


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None when there is none at all; damaged newer ones are named and removed.

    Raises:
        VerificationError: there are checkpoints, and every one of them is damaged.
    """
    there = list_checkpoints(folder)
    problems = []
    for _, path in reversed(there):
        try:
            found = read_checkpoint(path)
        except VerificationError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            print(f"{problem}; going back to {path.name}", file=sys.stderr, flush=True)
        return found
    if problems:
        raise VerificationError(f"{problems[0]}; no checkpoint is whole: delete {folder} to begin anew")
    return None
