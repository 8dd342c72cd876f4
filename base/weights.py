"""Finds the files of a model, in a folder or on the Hugging Face hub, and refuses them before anything is loaded.

In: a folder or a hub id with a revision. Out: the folder. Only safetensors count as weights: a pickle can run code.
Libraries with known holes in their loaders are refused with them.
"""

from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from synclones.base.errors import InputError, MachineError
from synclones.base.json_file import parse_json, read_json

FILE_SUFFIXES = (".safetensors", ".ckpt", ".bin", ".pt", ".pth", ".onnx")
# Library -> the first release without these holes in how it reads models or images; as in pyproject.toml.
SAFE_VERSIONS = {
    "torch": ("2.10", "CVE-2025-32434, CVE-2026-24747"),
    "diffusers": ("0.38", "CVE-2026-44513"),
    "transformers": ("5.3", "CVE-2026-4372, CVE-2026-5241"),
    "pillow": ("12.3", "CVE-2026-40192, CVE-2026-55380"),
}
MAX_HEADER_BYTES = 2**24  # the headers of the largest models in one file are below 1 MB


@cache
def refuse_old_libraries() -> None:
    """Refuse libraries in which a model or an image can run code; their metadata is read, none is imported.

    Raises:
        InputError: the first that is too old or not installed, with the holes it has and how to mend it.
    """
    from packaging.version import InvalidVersion, Version

    for name, (least, holes) in SAFE_VERSIONS.items():
        try:
            installed = metadata.version(name)
            if Version(installed) >= Version(least):
                continue
        except (metadata.PackageNotFoundError, InvalidVersion, TypeError):
            installed = "of an unknown version"
        raise InputError(
            f"{name} {installed}: releases before {least} have security holes in what they read ({holes}); "
            f"run: pip install '{name} >= {least}'"
        )


def find_folder(model: str, revision: str, wanted: Sequence[str], flag: str = "--model") -> tuple[Path, str]:
    """Return (folder, commit): the folder ``model`` with no commit, or the snapshot of the hub id.

    Args:
        wanted: patterns of the files that are fetched.

    Raises:
        InputError: no such folder and no hub id; the hub refuses.
        MachineError: the hub does not answer and the model is not in its cache.
    """
    refuse_old_libraries()
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
    """Refuse weights that are missing, cut short or pickled.

    Raises:
        InputError: for the first of these faults.
    """
    if not path.is_file():
        pickled = sorted(p.name for p in path.parent.glob("*.bin"))
        hint = f"; {pickled[0]} is a pickle and is never loaded, convert it to safetensors" if pickled else ""
        raise InputError(f"{path}: the weights are missing{hint or '; copy the whole model'}")
    try:
        header_bytes, tensors = _header(path)
        end = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
        sound = 8 + header_bytes + end == path.stat().st_size
    except (ValueError, TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise InputError(f"{path}: the file is cut short or not safetensors; copy it again")


def _header(path: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """(bytes of the header, tensor name -> ``dtype``, ``shape``, ``data_offsets``). ValueError, or an error like it."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if not 0 < header_bytes <= MAX_HEADER_BYTES:
            raise ValueError(f"a header of {header_bytes} bytes")
        header = parse_json(file.read(header_bytes))
    tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
    for tensor in tensors.values():
        start, stop = tensor["data_offsets"]
        numbers = [start, stop, *tensor["shape"]]
        if not (isinstance(tensor["dtype"], str) and all(type(n) is int and n >= 0 for n in numbers) and start <= stop):
            raise ValueError("a tensor without type, shape or offsets")
    return header_bytes, tensors


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return tensor name -> shape, from the header of a file that `check_safetensors` has passed."""
    return {name: tuple(tensor["shape"]) for name, tensor in _header(path)[1].items()}


def weight_files(folder: Path, name: str) -> list[Path]:
    """Return the file ``name``, or the files of which its index says that they hold the weights together.

    Where there are both, all of them: diffusers then reads the parts, transformers the one file.

    Raises:
        InputError: when an index names anything but safetensors files beside it.
    """
    index, whole = folder / f"{name}.index.json", [folder / name]
    if not index.is_file():
        return whole
    parts = read_model_json(index).get("weight_map")
    names = set(map(str, parts.values())) if isinstance(parts, dict) and parts else {""}
    for part in sorted(names):
        if Path(part).name != part or not part.endswith(".safetensors"):
            raise InputError(f"{index}: {part[:80]!r} is no safetensors file beside it; copy the whole model")
    return [path for path in whole if path.is_file()] + [folder / part for part in sorted(names)]


def read_model_json(path: Path) -> dict[str, Any]:
    """Return a JSON object of a model.

    Raises:
        InputError: when it is missing or something else.
    """
    if not path.is_file():
        raise InputError(f"{path.parent}: {path.name} is missing; give the folder of a whole model")
    try:
        value = read_json(path, finite=False)  # diffusers writes -Infinity into the configuration of a sampler
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); copy the model again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object; copy the model again")
    return value
