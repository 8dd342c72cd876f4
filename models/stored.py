"""Reads the weights of a model as named tensors, with what is said of it: what a training may begin from.

In: a run, a model's folder of timm or open_clip, a ``.safetensors`` file, or a name that timm or open_clip knows. Out:
`StoredWeights`. No network is built, but for names of timm, whose weights timm itself gives its own names.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from synclones.base.errors import InputError, MachineError, as_synclones_error
from synclones.base.files import sha256_bytes
from synclones.base.manifest import MANIFEST_FILE
from synclones.base.weights import check_safetensors, refuse_old_libraries
from synclones.models.export_config import Deviation, Mean, Strict, validated
from synclones.models.folder import CLIP_CONFIG, CLIP_WEIGHTS, CONFIG, json_value, read_verified, stated_hashes
from synclones.models.load import files_of, find_model
from synclones.models.named import REFUSALS, open_clip_folder, timm_file, timm_network

FLAG = "--weights"
Layout = Literal["timm", "open_clip", "file"]
TIMM: Final = "timm"
OPEN_CLIP: Final = "open_clip"
FILE: Final = "file"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class StoredWeights:
    """The tensors of a model, and what is known of it."""

    name: str
    """What was asked for."""
    path: Path
    """The file of the tensors."""
    layout: Layout
    """Whose names the tensors have; those of a file alone are anybody's."""
    tensors: dict[str, Tensor]
    sha256: str
    """Of the file of the tensors."""
    config_sha256: str = ""
    """Of the configuration beside it; empty where there is none."""
    architecture: str = ""
    """Of timm's layout."""
    model_args: dict[str, Any] | None = None
    """What timm builds the architecture with, of timm's layout."""
    clip: Any = None
    """The `ClipConfig` of open_clip's layout."""
    class_ids: tuple[str, ...] = ()
    """The classes of its outputs, where it names them."""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    """What its pixels were normalised with, where it says so."""


class _Pixels(Strict):
    """What is read of ``pretrained_cfg``."""

    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]


class _TimmConfig(Strict):
    """What is read of a ``config.json`` of timm, of classifiers and of backbones."""

    architecture: Annotated[str, Field(max_length=128)]
    label_names: list[str] | None = None
    model_args: dict[str, Any] | None = None
    pretrained_cfg: _Pixels


def read_stored(name: str) -> StoredWeights:
    """Return the weights that ``name`` says: a folder, a file, ``timm:NAME`` or ``open_clip:MODEL/TAG``.

    Raises:
        InputError: there is none, it is pickled, or it is no model's.
        VerificationError: a file is not the one that the run's manifest or the card names by its hash.
        MachineError: it has to be fetched, and cannot be.
    """
    refuse_old_libraries()
    kind, _, rest = name.partition(":")
    if not Path(name).exists() and kind == TIMM:
        return _of_timm(name, rest)
    if not Path(name).exists() and kind == OPEN_CLIP:
        return _of_clip_folder(name, open_clip_folder(rest, FLAG)[0])
    path = Path(name)
    if path.suffix == SUFFIX or path.is_file():
        return _of_file(name, path)
    try:
        folder = find_model(path)
    except InputError as error:
        raise InputError(f"{FLAG}: {error}") from None
    return _of_clip_folder(name, folder) if files_of(folder)[0] == CLIP_CONFIG else _of_timm_folder(name, folder)


def _of_file(name: str, path: Path) -> StoredWeights:
    if path.suffix != SUFFIX:
        raise InputError(f"{FLAG}: {path}: weights are read from {SUFFIX} files alone, others can run code; convert it")
    data = _data(path, {})
    return StoredWeights(name, path, FILE, _tensors(path, data), sha256_bytes(data))


def _of_timm_folder(name: str, folder: Path) -> StoredWeights:
    config_file, weights_file = files_of(folder)
    stated = stated_hashes(folder, config_file, weights_file)
    data = {file: _data(folder / file, stated[file]) for file in (weights_file, config_file)}
    value = json_value(folder / CONFIG, data[config_file], "a timm model")
    config = validated(_TimmConfig, value, f"{folder / CONFIG}: not the config of a timm model", "export it again")
    path = folder / weights_file
    return StoredWeights(
        name,
        path,
        TIMM,
        _tensors(path, data[weights_file]),
        sha256_bytes(data[weights_file]),
        sha256_bytes(data[config_file]),
        architecture=config.architecture,
        model_args=config.model_args or {},
        class_ids=tuple(config.label_names or ()),
        mean=config.pretrained_cfg.mean,
        std=config.pretrained_cfg.std,
    )


def _of_clip_folder(name: str, folder: Path) -> StoredWeights:
    from synclones.models.clip_config import parse_clip_config  # loads open_clip

    stated = stated_hashes(folder, CLIP_CONFIG, CLIP_WEIGHTS)
    data = {file: _data(folder / file, stated[file]) for file in (CLIP_WEIGHTS, CLIP_CONFIG)}
    config = parse_clip_config(
        json_value(folder / CLIP_CONFIG, data[CLIP_CONFIG], "an open_clip model"), str(folder / CLIP_CONFIG)
    )
    tensors = _tensors(folder / CLIP_WEIGHTS, data[CLIP_WEIGHTS])
    digests = sha256_bytes(data[CLIP_WEIGHTS]), sha256_bytes(data[CLIP_CONFIG])
    pixels = config.preprocess_cfg
    return StoredWeights(
        name, folder / CLIP_WEIGHTS, OPEN_CLIP, tensors, *digests, clip=config, mean=pixels.mean, std=pixels.std
    )


def folder_of(stored: StoredWeights) -> Path:
    """Return where the weights are from, as manifests name it: the run of an export, a model's folder, or the file."""
    if stored.layout == FILE:
        return stored.path
    folder = stored.path.resolve().parent
    return folder.parent if folder.name == "export" and (folder.parent / MANIFEST_FILE).exists() else folder


# ------------------------------------------------------------------ names


def _of_timm(name: str, model: str) -> StoredWeights:
    """Fetch timm's file of a model by its own id on the hub, and let timm give it its names."""
    path, _ = timm_file(model, FLAG)
    data = _data(path, {})
    try:
        network = timm_network(model, path)
    except REFUSALS as error:
        raise _unfit(path, error) from None
    own = network.pretrained_cfg
    return StoredWeights(
        name,
        path,
        TIMM,
        dict(network.state_dict()),
        sha256_bytes(data),
        architecture=model.partition(".")[0],
        model_args={},
        mean=tuple(own["mean"]),
        std=tuple(own["std"]),
    )


# ------------------------------------------------------------------ files


def _data(path: Path, stated: dict[str, str]) -> bytes:
    if path.suffix == SUFFIX:
        try:
            check_safetensors(path)
        except InputError as error:
            raise InputError(f"{FLAG}: {error}") from None
    return read_verified(path, stated)


def _tensors(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load(data)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise _unfit(path, error) from None
    return tensors


def _unfit(path: Path, error: Exception) -> Exception:
    known = as_synclones_error(error)
    if isinstance(known, MachineError):
        return known
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return InputError(f"{FLAG}: {path}: not the weights of a model ({reason}); copy it again")
