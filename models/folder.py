"""A classifier on disk: the folder that timm loads by ``local-dir:``, with a card that names the data by hash.

In: a `Classifier` and facts. Out: ``config.json``, ``model.safetensors``, ``README.md``; and back.
"""

import os
import re
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from timm.models import save_for_hf
from torch import Tensor, nn

from synclones.base.errors import InputError, MachineError, VerificationError, as_synclones_error
from synclones.base.files import replaced_folder, sha256_bytes, sha256_file
from synclones.base.json_file import parse_json, read_regular
from synclones.base.manifest import MANIFEST_FILE, read_manifest
from synclones.base.weights import refuse_old_libraries
from synclones.models.export_config import ExportConfig, parse_export_config
from synclones.models.network import Classifier, Preprocessing

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
PICKLED = "pytorch_model.bin"  # what timm writes unless it is told otherwise
CLIP_CONFIG, CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
"""Of the folders of image-text models (see clip_folder.py)."""
CONFIG_HASH = "export_config_sha256"
"""Entry of a run's manifest: the sha256 of its export's configuration; that of the weights is its content hash."""
_HASHES = "Weights sha256 `{}`. Configuration sha256 `{}`."


def export_classifier(folder: Path, classifier: Classifier, model_args: dict[str, Any], card: str) -> str:
    """Write ``folder`` whole or not at all, replacing an older export; return the sha256 of its weights.

    ``{hashes}`` in the card becomes the sentences about the files' hashes, which `load_classifier` checks.
    """
    names = {"label_names": list(classifier.class_ids)}
    return _export(folder, classifier.network, classifier.preprocessing, model_args, names, card)


def export_backbone(
    folder: Path, backbone: nn.Module, preprocessing: Preprocessing, model_args: dict[str, Any], card: str
) -> str:
    """Write a timm network without a classifier as `export_classifier` writes one with it."""
    return _export(folder, backbone, preprocessing, model_args, {}, card)


def _export(
    folder: Path,
    network: nn.Module,
    preprocessing: Preprocessing,
    model_args: dict[str, Any],
    more: dict[str, Any],
    card: str,
) -> str:
    data_config = {
        "input_size": (3, *preprocessing.input_px),
        "crop_pct": preprocessing.crop_fraction,
        "interpolation": preprocessing.interpolation,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
    }
    # Under another name first: a reader finds the older export or the new one, never half of one.
    with replaced_folder(folder) as temporary:
        save_for_hf(
            network,
            temporary,
            # timm would pass on the tag and licence of its own pretrained weights, which these are not.
            model_config={**more, "pretrained_cfg": {"tag": "", "license": ""}},
            model_args=model_args,
            data_config=data_config,
            safe_serialization=True,
        )
        os.chmod(temporary / WEIGHTS, 0o644)
        digest = write_card(temporary, card, CONFIG, WEIGHTS)
    return digest


def write_card(folder: Path, card: str, config: str, weights: str) -> str:
    """Write the card with the hashes of the two files in it; return that of the weights."""
    digest, config_digest = (sha256_file(folder / name) for name in (weights, config))
    text = card.replace("{weights_sha256}", digest).replace("{hashes}", _HASHES.format(digest, config_digest))
    (folder / CARD).write_text(text, encoding="utf-8")
    return digest


def find_export(path: Path) -> Path:
    """Return the model folder that ``path`` is, or the ``export`` in it when ``path`` is a run.

    Raises:
        InputError: when it is neither.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such model folder; give the export of a finished `synclones train`")
    folder = path if (path / CONFIG).is_file() else path / "export"
    if not (folder / CONFIG).is_file() and (path / "checkpoints").is_dir():
        raise InputError(f"{path}: the training is not finished; run the same train command again, then evaluate")
    if (folder / PICKLED).is_file() and not (folder / WEIGHTS).exists():
        raise InputError(
            f"{folder / PICKLED}: a pickle; save it with timm's `save_for_hf(..., safe_serialization=True)`"
        )
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{path}: not a model folder, {name} is missing; give the export of a `synclones train`")
    return folder


def stated_hashes(folder: Path, config: str = CONFIG, weights: str = WEIGHTS) -> dict[str, dict[str, str]]:
    """Return what is written about two files of an export: file -> {who says it -> its sha256}.

    The run's manifest and the card say it. Manifests of earlier versions say nothing about ``config.json``; their cards
    are for people alone.

    Raises:
        InputError: when the run's manifest cannot be read.
    """
    stated: dict[str, dict[str, str]] = {config: {}, weights: {}}
    run = folder.resolve().parent
    if folder.resolve().name == "export" and (run / MANIFEST_FILE).exists():
        manifest = read_manifest(run)
        keys = {weights: "content_hash", config: CONFIG_HASH} if manifest["stage"] == "train" else {}
        for name, key in keys.items():
            if key in manifest:
                stated[name][MANIFEST_FILE] = str(manifest[key])
    try:
        card = read_regular(folder / CARD).decode(errors="replace")
    except (OSError, ValueError):
        card = ""
    if sentences := re.search(_HASHES.replace(".", r"\.").format(*["([0-9a-f]{64})"] * 2), card):
        stated[weights][CARD], stated[config][CARD] = sentences[1], sentences[2]
    return stated


def load_classifier(path: Path) -> tuple[Classifier, str]:
    """Return the classifier of a model folder, in evaluation mode, and the sha256 of its weights.

    Raises:
        InputError: when it is not a model folder, when its config and weights do not fit each other, or when a library
            has security holes.
        VerificationError: when a file is not the one that the run's manifest or the card names by its hash.
        MachineError: when it does not fit into memory.
    """
    refuse_old_libraries()
    folder = find_export(path)
    stated = stated_hashes(folder)
    data = {name: read_verified(folder / name, stated[name]) for name in (CONFIG, WEIGHTS)}
    config = parse_export_config(json_value(folder / CONFIG, data[CONFIG], "a timm model"), str(folder / CONFIG))
    network = _build(folder, config, data[WEIGHTS])
    return Classifier(network, config.preprocessing, config.class_ids).eval(), sha256_bytes(data[WEIGHTS])


def read_verified(path: Path, stated: dict[str, str]) -> bytes:
    """Return the bytes of a file.

    Raises:
        InputError: when it is no regular file.
        VerificationError: when it is not the one that is named by its hash.
    """
    try:
        data = read_regular(path, path.stat().st_size)
    except ValueError as error:
        raise InputError(f"{path}: {error}; export the model again") from None
    digest = sha256_bytes(data)
    for who, expected in stated.items():
        if digest != expected:
            raise VerificationError(
                f"{path}: its sha256 is {digest[:16]}, {who} says {expected[:16]}; the file is damaged or of another "
                "model: restore it, or export the model again"
            )
    return data


def json_value(path: Path, data: bytes, kind: str) -> Any:
    """Return the JSON in the configuration of ``kind``.

    Raises:
        InputError: when it is none.
    """
    try:
        return parse_json(data)
    except ValueError as error:
        raise InputError(f"{path}: not the config of {kind} ({error}); export the model again") from None


def _build(folder: Path, config: ExportConfig, weights: bytes) -> nn.Module:
    """Return the network of the configuration with exactly these weights: timm itself would drop a head that differs.

    Raises:
        InputError: when they do not make one.
    """
    # Whatever timm and torch raise about what the files hold means the same for the user; a full memory does not.
    try:
        tensors = load(weights)
        _refuse_larger(config, tensors)
        network = timm.create_model(config.architecture, pretrained=False, **config.arguments)
        refuse_other_types(network, tensors)
        network.load_state_dict(tensors, strict=True)
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        if isinstance(as_synclones_error(error), MachineError):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{folder}: {CONFIG} and {WEIGHTS} do not make a model ({reason}); export it again") from None
    return network


def _refuse_larger(config: ExportConfig, tensors: dict[str, Tensor]) -> None:
    """Refuse a network that cannot have these weights, before building it takes all memory."""
    widest = max((side for tensor in tensors.values() for side in tensor.shape), default=0)
    limits = {"depth": len(tensors), "embed_dim": widest, "num_classes": widest}
    for name, limit in limits.items():
        if config.arguments.get(name, 0) > limit:
            raise ValueError(f"{name} is {config.arguments[name]}, the weights reach to {limit}")


def refuse_other_types(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Refuse numbers that the network would round in silence; 16-bit floats become 32-bit ones exactly."""
    for name, own in network.state_dict().items():
        given = tensors[name].dtype if name in tensors else own.dtype
        if given != own.dtype and not (own.dtype == torch.float32 and given in (torch.float16, torch.bfloat16)):
            raise ValueError(f"{name} is {given}, expected {own.dtype}")


def num_parameters(network: nn.Module) -> int:
    """Return how many trainable numbers a network has."""
    return sum(parameter.numel() for parameter in network.parameters())
