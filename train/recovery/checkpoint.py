"""Checkpoints that are whole or absent: everything written, hashed and verified before the one before may go.

In: named tensors and a small state. Out: ``checkpoints/step-00001000/`` with ``model.safetensors``,
``optimizer.safetensors``, ``state.json`` and ``SHA256SUMS`` (and ``ema.safetensors`` where an average is kept). The
newest that verifies is the one to resume from.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from synclones.base.errors import InputError, VerificationError
from synclones.base.files import remove_folder, remove_leftovers, replaced_folder, sha256_bytes
from synclones.base.json_file import parse_json, pretty_json, read_regular
from synclones.train.recovery.folder_names import list_checkpoints

MODEL, OPTIMIZER, STATE, SUMS = "model.safetensors", "optimizer.safetensors", "state.json", "SHA256SUMS"
EMA = "ema.safetensors"
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
    ema: Tensors = field(default_factory=dict)
    """The moving average of the weights; empty where none is kept."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint into ``folder``, verify it as read back from disk, then remove all but the ``keep`` newest."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    target = folder / _name(checkpoint.step)
    record = {"format": CHECKPOINT_FORMAT, "step": checkpoint.step, "plan_id": checkpoint.plan_id}
    files = {
        MODEL: save(checkpoint.model),
        OPTIMIZER: save(checkpoint.optimizer),
        STATE: pretty_json(record | {"state": checkpoint.state}),
    }
    if checkpoint.ema:
        files[EMA] = save(checkpoint.ema)
    sums = "".join(f"{sha256_bytes(data)}  {name}\n" for name, data in sorted(files.items()))
    # It may take the place of a damaged one that was fallen back from, or of the same step.
    with replaced_folder(target) as temporary:
        for name, data in {**files, SUMS: sums.encode()}.items():
            (temporary / name).write_bytes(data)
    read_checkpoint(target)  # older ones go only when it has been read back
    _rotate(folder, checkpoint.step, keep)
    return target


def _rotate(folder: Path, saved: int, keep: int) -> None:
    """Keep the checkpoint just saved and, before it, the newest of which every byte is right, ``keep`` in all.

    Any with a higher number was passed over when the training resumed: it is damaged, and counts for nothing.
    """
    kept = 1
    for step, path in reversed(list_checkpoints(folder)):
        if step == saved:
            continue
        if step < saved and kept < keep and _is_whole(path):
            kept += 1
        else:
            remove_folder(path)


def _is_whole(path: Path) -> bool:
    try:
        stated = _read_sums(path)
        for name in stated:
            _read_verified(path / name, stated)
    except VerificationError:
        return False
    return True


def _name(step: int) -> str:
    return f"step-{step:08d}"


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, every byte compared with its hash, and what the bytes say with what they can say.

    Raises:
        InputError: when a newer synclones wrote it.
        VerificationError: when a file is missing or damaged, naming it.
    """
    stated = _read_sums(path)
    # The state first: in a layout of later days the other files may be others, which is no damage.
    record = _read_state(path / STATE, _read_verified(path / STATE, stated))
    if stated.keys() - {EMA} != {MODEL, OPTIMIZER, STATE}:
        raise VerificationError(f"{path / SUMS}: damaged")
    model, optimizer = (_read_tensors(path / name, stated) for name in (MODEL, OPTIMIZER))
    ema = _read_tensors(path / EMA, stated) if EMA in stated else {}
    return Checkpoint(record["step"], record["plan_id"], model, optimizer, record["state"], ema)


def _read_sums(path: Path) -> dict[str, str]:
    """Return file name -> SHA-256."""
    lines = _read(path / SUMS).decode(errors="replace").splitlines(keepends=True)
    matches = [SUM_LINE.fullmatch(line) for line in lines]
    if not all(matches) or not lines:
        raise VerificationError(f"{path / SUMS}: damaged")
    return {match[2]: match[1] for match in matches if match}


def _read_verified(path: Path, stated: dict[str, str]) -> bytes:
    data = _read(path)
    if stated.get(path.name) != sha256_bytes(data):
        raise VerificationError(f"{path}: differs from its hash in {SUMS}")
    return data


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, path.stat().st_size)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise VerificationError(f"{path}: missing") from None
    except ValueError as error:
        raise VerificationError(f"{path}: {error}") from None


def _read_tensors(path: Path, stated: dict[str, str]) -> Tensors:
    try:
        return load(_read_verified(path, stated))
    except SafetensorError as error:
        raise VerificationError(f"{path}: damaged ({error})") from None


def _read_state(path: Path, data: bytes) -> dict[str, Any]:
    try:
        record = parse_json(data)
    except ValueError:
        record = None
    check_format(record, CHECKPOINT_FORMAT, path)
    if not _is_state(record) or path.parent.name != _name(record["step"]):
        raise VerificationError(f"{path}: damaged, it is not the state of a training after {path.parent.name}")
    state: dict[str, Any] = record
    return state


def _is_state(record: Any) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("plan_id"), str):
        return False
    state = record.get("state")
    counts = (record.get("step"), state.get("skipped") if isinstance(state, dict) else None)
    return all(type(count) is int and count >= 0 for count in counts)


def check_tensors(given: Tensors, expected: Mapping[str, torch.Tensor]) -> None:
    """Compare tensors that were stored with those whose place they take.

    Raises:
        ValueError: naming the first that is missing, too many, or of another shape or type.
    """
    for name in {**expected, **given}:
        if name not in given or name not in expected:
            raise ValueError(f"{name} is {'missing' if name not in given else 'unknown'}")
        one, other = given[name], expected[name]
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            kinds = [f"{tensor.dtype}{list(tensor.shape)}".removeprefix("torch.") for tensor in (one, other)]
            raise ValueError(f"{name} is {kinds[0]}, expected {kinds[1]}")


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
