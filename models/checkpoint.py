"""Reads the weights that other projects published: files of PyTorch and safetensors, of which nothing is ever run.

In: a file. Out: `Checkpoint`: the tensors under the names that they have inside the container, and what lies beside
them. Pickles go through ``torch.load(weights_only=True)`` alone.
"""

import argparse
import io
import re
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from synclones.base.errors import InputError, MachineError, as_synclones_error
from synclones.base.files import sha256_bytes
from synclones.base.json_file import read_regular
from synclones.base.weights import check_safetensors, refuse_old_libraries

SAFE_SUFFIX = ".safetensors"
PICKLED_SUFFIXES = (".pt", ".pth", ".tar")
"""Of the files that projects publish; a file that is named outright may have any other."""
CONTAINERS = ("state_dict", "model", "teacher")
"""Entries under which trainers keep the weights, with their optimizer and more beside them."""
WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""
# The one type beside plain values and tensors that published files hold: the trainer's settings, which nobody reads.
HARMLESS = [argparse.Namespace]
LONGEST_SHOWN = 80
MOST_GROWTH = 4  # the code of a TorchScript archive is compressed, and is refused for what it is


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds."""

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    """By their names in the file, without what wraps all of them."""
    container: str = ""
    """The entry they lie in, one of `CONTAINERS`; empty where they are the whole file."""
    wrapper: str = ""
    """What stood before every name."""
    beside: dict[str, Any] = field(default_factory=dict)
    """The other entries of the file: epoch, optimizer, arguments."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Return what a file of weights holds, on the CPU.

    Raises:
        InputError: there is no such file, it would have to be run, or it holds no named tensors.
        MachineError: it does not fit into memory.
    """
    refuse_old_libraries()
    if path.suffix == SAFE_SUFFIX:
        check_safetensors(path)
    try:
        data = read_regular(path, path.stat().st_size)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a file of weights") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}; give a file of weights") from None
    value = _safe(path, data) if path.suffix == SAFE_SUFFIX else _unpickled(path, data)
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{path}: holds a {type(value).__name__}, expected tensors by name; save its state_dict()")
    return _opened(path, sha256_bytes(data), value)


def _safe(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load(data)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise _unreadable(path, error) from None
    return tensors


def _unpickled(path: Path, data: bytes) -> Any:
    _refuse_compressed(path, data)
    try:
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail in the unpickler, the zip reader and torch, each in its way
        raise _unreadable(path, error) from None


def _refuse_compressed(path: Path, data: bytes) -> None:
    """Refuse a zip file whose members are much larger than the file: torch stores tensors as they are."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            total = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OSError, EOFError):
        return  # no zip file, or a damaged one: torch says what it is
    if total > MOST_GROWTH * len(data) + 2**20:
        raise InputError(
            f"{path}: grows from {len(data)} to {total} bytes, as nothing does that torch writes; copy it again"
        )


def refuse_hollow(path: Path, tensors: dict[str, Tensor]) -> None:
    """Refuse tensors that say more numbers than are stored for them: they would fill the memory when they are copied.

    Raises:
        InputError: naming the first.
    """
    for name, tensor in tensors.items():
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise InputError(
                f"{path}: {_short(name)} is {list(tensor.shape)}, of which the file stores a part; copy it again"
            )


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_SHOWN else f"{name[:LONGEST_SHOWN]}..."


def _unreadable(path: Path, error: Exception) -> Exception:
    """Return the one line for what the readers raise."""
    known = as_synclones_error(error)
    if isinstance(known, MachineError):
        return known
    text = " ".join(str(error).split())
    if wanted := re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)", text):
        return InputError(
            f"{path}: asks to run {wanted[1]!r}, and a checkpoint that needs code is never loaded; save its "
            "state_dict() alone, best as safetensors"
        )
    if "TorchScript" in text:
        return InputError(
            f"{path}: is a program (TorchScript), which is never loaded; give the weights alone: those of OpenAI's "
            "CLIP are open_clip:ViT-B-16-quickgelu/openai"
        )
    reason = text[:200] or type(error).__name__
    return InputError(f"{path}: not a file of weights ({reason}); copy it again")


def _opened(path: Path, sha256: str, value: dict[str, Any]) -> Checkpoint:
    """Return the checkpoint in what the file holds: its container opened, its wrapper taken off."""
    container = next((name for name in CONTAINERS if _tensors_in(value.get(name))), "")
    tensors = _tensors_in(value[container] if container else value)
    if not tensors:
        names = ", ".join(map(_short, list(value)[:8]))
        raise InputError(f"{path}: holds no tensors by name, but {names or 'nothing'}")
    beside = {name: entry for name, entry in value.items() if name != container and name not in tensors}
    wrapper = ""
    while prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in tensors)), ""):
        tensors, wrapper = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, wrapper + prefix
    return Checkpoint(path, sha256, tensors, container, wrapper, beside)


def _tensors_in(value: Any) -> dict[str, Tensor]:
    """Return the named tensors of a mapping; none of anything else."""
    if not isinstance(value, dict):
        return {}
    return {name: item for name, item in value.items() if isinstance(name, str) and isinstance(item, Tensor)}


def opened_beside(checkpoint: Checkpoint, entry: str) -> Checkpoint:
    """Return what another entry of the file holds, as a checkpoint of its own.

    Raises:
        InputError: it holds no tensors by name.
    """
    value = checkpoint.beside.get(entry)
    if not isinstance(value, dict):
        raise InputError(f"{checkpoint.path}: its entry {entry} holds no tensors by name; copy the file again")
    return _opened(checkpoint.path, checkpoint.sha256, value)
