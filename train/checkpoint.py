"""Checkpoints that are whole or absent: everything written, hashed and verified before the one before may go.

In: named tensors and a small state. Out: ``checkpoints/step-00001000/`` with ``model.safetensors``,
``optimizer.safetensors``, ``state.json`` and ``SHA256SUMS``. The newest that verifies is the one to resume from.
"""

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import replaced_folder, sha256_bytes
from synclones.base.json_file import parse_json, pretty_json

MODEL, OPTIMIZER, STATE, SUMS = "model.safetensors", "optimizer.safetensors", "state.json", "SHA256SUMS"
NAME = re.compile(r"step-(\d{8,})")
SUM_LINE = re.compile(r"([0-9a-f]{64})  (\S+)\n")
CHECKPOINT_FORMAT = 1

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
    record = {"format": CHECKPOINT_FORMAT, "step": checkpoint.step, "plan_id": checkpoint.plan_id}
    files = {
        MODEL: save(checkpoint.model),
        OPTIMIZER: save(checkpoint.optimizer),
        STATE: pretty_json(record | {"state": checkpoint.state}),
    }
    sums = "".join(f"{sha256_bytes(data)}  {name}\n" for name, data in sorted(files.items()))
    # It may take the place of a damaged one that was fallen back from, or of the same step.
    with replaced_folder(target) as temporary:
        for name, data in {**files, SUMS: sums.encode()}.items():
            (temporary / name).write_bytes(data)
    read_checkpoint(target)  # older ones go only when it has been read back
    _rotate(folder, keep)
    return target


def _rotate(folder: Path, keep: int) -> None:
    for _, path in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(path)


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return (step, path) of every folder with the name of a checkpoint, oldest first, whole or not."""
    named = [(NAME.fullmatch(path.name), path) for path in Path(folder).glob("step-*")]
    return sorted((int(match[1]), path) for match, path in named if match)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, every byte compared with its hash.

    Raises:
        InputError: when a newer synclones wrote it.
        VerificationError: when a file is missing or damaged, naming it.
    """
    stated = _read_sums(path)
    # The state first: in a layout of later days the other files may be others, which is no damage.
    record = _read_state(path / STATE, _read_verified(path / STATE, stated))
    model, optimizer = (load(_read_verified(path / name, stated)) for name in (MODEL, OPTIMIZER))
    if stated.keys() != {MODEL, OPTIMIZER, STATE}:
        raise VerificationError(f"{path / SUMS}: damaged")
    return Checkpoint(record["step"], record["plan_id"], model, optimizer, record["state"])


def _read_sums(path: Path) -> dict[str, str]:
    """Return file name -> SHA-256."""
    try:
        lines = (path / SUMS).read_text().splitlines(keepends=True)
    except (OSError, UnicodeDecodeError):
        raise VerificationError(f"{path / SUMS}: missing or damaged") from None
    matches = [SUM_LINE.fullmatch(line) for line in lines]
    if not all(matches) or not lines:
        raise VerificationError(f"{path / SUMS}: damaged")
    return {match[2]: match[1] for match in matches if match}


def _read_verified(path: Path, stated: dict[str, str]) -> bytes:
    try:
        data = path.read_bytes()
    except OSError:
        raise VerificationError(f"{path}: missing") from None
    if stated.get(path.name) != sha256_bytes(data):
        raise VerificationError(f"{path}: differs from its hash in {SUMS}")
    return data


def _read_state(path: Path, data: bytes) -> dict[str, Any]:
    try:
        record = parse_json(data)
    except ValueError:
        record = None
    check_format(record, CHECKPOINT_FORMAT, path)
    if not isinstance(record, dict) or not {"step", "plan_id", "state"} <= record.keys():
        raise VerificationError(f"{path}: damaged")
    return record


def check_format(record: Any, newest: int, path: Path) -> None:
    """Refuse a file of a later layout; no number means 1, which is what was written before files had one.

    Raises:
        InputError: when the number is not one that this version knows.
    """
    number = record.get("format", 1) if isinstance(record, dict) else 1
    if number not in range(1, newest + 1):
        raise InputError(
            f"{path}: format {number!r} was given, this version reads up to {newest}; a newer synclones wrote it, "
            "go on with that one"
        )


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint that verifies, or None when there is none at all; damaged newer ones are named.

    Raises:
        InputError: when a newer synclones wrote one.
        VerificationError: when there are checkpoints, and every one of them is damaged.
    """
    problems = []
    for _, path in reversed(list_checkpoints(folder)):
        try:
            checkpoint = read_checkpoint(path)
        except VerificationError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            print(f"{problem}; going back to {path.name}", file=sys.stderr, flush=True)
        return checkpoint
    if problems:
        raise VerificationError(f"{problems[0]}; no checkpoint is whole: delete {folder} to begin anew")
    return None
