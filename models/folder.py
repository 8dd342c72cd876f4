"""A classifier on disk: the folder that timm loads by ``local-dir:``, with a card that names the data by hash.

In: a `Classifier` and facts. Out: ``config.json``, ``model.safetensors``, ``README.md``; and back.
"""

import os
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from timm.models import save_for_hf
from torch import nn

from synclones.base.errors import InputError
from synclones.base.files import replaced_folder, sha256_file
from synclones.base.json_file import read_json
from synclones.base.weights import refuse_old_libraries
from synclones.models.network import Classifier, Preprocessing

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def export_classifier(folder: Path, classifier: Classifier, model_args: dict[str, Any], card: str) -> str:
    """Write ``folder`` whole or not at all, replacing an older export; return the sha256 of its weights."""
    preprocessing = classifier.preprocessing
    data_config = {
        "input_size": (3, preprocessing.size_px, preprocessing.size_px),
        "crop_pct": preprocessing.crop_fraction,
        "interpolation": preprocessing.interpolation,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
    }
    # Under another name first: a reader finds the older export or the new one, never half of one.
    with replaced_folder(folder) as temporary:
        save_for_hf(
            classifier.network,
            temporary,
            # timm would pass on the tag and licence of its own pretrained weights, which these are not.
            model_config={"label_names": list(classifier.class_ids), "pretrained_cfg": {"tag": "", "license": ""}},
            model_args=model_args,
            data_config=data_config,
            safe_serialization=True,
        )
        os.chmod(temporary / WEIGHTS, 0o644)
        digest = sha256_file(temporary / WEIGHTS)
        (temporary / CARD).write_text(card.replace("{weights_sha256}", digest), encoding="utf-8")
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
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{path}: not a model folder, {name} is missing; give the export of a `synclones train`")
    return folder


def load_classifier(path: Path) -> tuple[Classifier, str]:
    """Return the classifier of a model folder, in evaluation mode, and the sha256 of its weights.

    Raises:
        InputError: when it is not a model folder, when its config and weights do not fit each other, or when a library
            has security holes.
    """
    refuse_old_libraries()
    folder = find_export(path)
    config = _read_config(folder)
    digest = sha256_file(folder / WEIGHTS)
    # timm's own errors differ by what is wrong with the files; for the user all of them mean the same.
    try:
        network = timm.create_model(f"local-dir:{folder}", pretrained=True)
        stated = network.pretrained_cfg
        preprocessing = Preprocessing(
            size_px=stated["input_size"][1],
            crop_fraction=stated["crop_pct"],
            interpolation=stated["interpolation"],
            mean=tuple(stated["mean"]),
            std=tuple(stated["std"]),
        )
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{folder}: {CONFIG} and {WEIGHTS} do not make a model ({reason}); export it again") from None
    class_ids = tuple(str(name) for name in config.get("label_names") or range(config["num_classes"]))
    return Classifier(network, preprocessing, class_ids).eval(), digest


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = read_json(folder / CONFIG)
        sound = isinstance(config, dict) and "architecture" in config and type(config["num_classes"]) is int
    except (ValueError, KeyError):
        sound = False
    if not sound:
        raise InputError(f"{folder / CONFIG}: not the config of a timm model; export the model again")
    known: dict[str, Any] = config
    return known


def num_parameters(network: nn.Module) -> int:
    """Return how many trainable numbers a network has."""
    return sum(parameter.numel() for parameter in network.parameters())
