"""Finds the files of a model, in a folder or on the Hugging Face hub, and refuses them before anything is loaded.

In: a folder or a hub id with a revision. Out: the folder. Only safetensors count as weights: a pickle can run code.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synclones.errors import InputError, MachineError

FILE_SUFFIXES = (".safetensors", ".ckpt", ".bin", ".pt", ".pth", ".onnx")


def find_folder(model: str, revision: str, wanted: Sequence[str], flag: str = "--model") -> tuple[Path, str]:
    """(folder, commit): the folder ``model`` with no commit, or the snapshot of the hub id.

    Args:
        wanted: patterns of the files that are fetched.

    Raises:
        InputError: no such folder and no hub id; the hub refuses.
        MachineError: the hub does not answer and the model is not in its cache.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder, ""
    if model.count("/") != 1 or model.startswith(("/", ".")) or folder.suffix in FILE_SUFFIXES:
        raise InputError(f"{flag}: no folder {model!r}; give a model's folder or a hub id such as owner/name")
    fetched = _fetch(model, revision, wanted, flag)
    return fetched, fetched.name


def _fetch(hub_id: str, revision: str, wanted: Sequence[str], flag: str) -> Path:
    """The snapshot folder of a hub id, whose name is the commit; from the cache when the hub cannot be reached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision or None, allow_patterns=list(wanted)))
    except LocalEntryNotFoundError:
        raise MachineError(
            f"{flag} {hub_id}: the hub cannot be reached and the model is not in its cache; "
            f"copy the model's folder to this machine and give {flag} path/to/folder"
        ) from None
    except HfHubHTTPError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{flag} {hub_id}: the hub refused ({reason}); check the id, the revision and access"
        ) from None


def check_safetensors(path: Path) -> None:
    """Refuse weights that are missing, cut short or pickled. Raises InputError."""
    if not path.is_file():
        pickled = sorted(p.name for p in path.parent.glob("*.bin"))
        hint = f"; {pickled[0]} is a pickle and is never loaded, convert it to safetensors" if pickled else ""
        raise InputError(f"{path}: the weights are missing{hint or '; copy the whole model'}")
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header = file.read(header_bytes) if 0 < header_bytes <= path.stat().st_size - 8 else b""
    try:
        tensors = {name: tensor for name, tensor in json.loads(header).items() if name != "__metadata__"}
        end = max((int(tensor["data_offsets"][1]) for tensor in tensors.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        end = -1
    if 8 + header_bytes + end != path.stat().st_size:
        raise InputError(f"{path}: the file is cut short or not safetensors; copy it again")


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape, from the header of a file that `check_safetensors` has passed."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: tuple(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"}


def weight_files(folder: Path, name: str) -> list[Path]:
    """The file ``name``, or the files of which its index says that they hold the weights together."""
    index = folder / f"{name}.index.json"
    if (folder / name).is_file() or not index.is_file():
        return [folder / name]
    parts = read_model_json(index).get("weight_map", {})
    return [folder / str(part) for part in sorted(set(parts.values()))]


def read_model_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model. Raises InputError when it is missing or something else."""
    if not path.is_file():
        raise InputError(f"{path.parent}: {path.name} is missing; give the folder of a whole model")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); copy the model again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object; copy the model again")
    return value
