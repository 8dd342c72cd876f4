"""Loads whatever a training leaves as a classifier of pixels: timm networks, and image-text models by their texts.

In: a run, or a model's folder. Out: a `Classifier`, and the hash of what decides its answers.
"""

from pathlib import Path

from synclones.base.files import sha256_bytes
from synclones.base.json_file import canonical_json
from synclones.models.folder import (
    CLIP_CONFIG,
    CLIP_WEIGHTS,
    CONFIG,
    WEIGHTS,
    find_export,
    load_classifier,
    stated_hashes,
)
from synclones.models.network import Classifier


def find_model(path: Path) -> Path:
    """Return the model folder that ``path`` is, or the ``export`` in it when ``path`` is a run.

    Raises:
        InputError: when it is neither.
    """
    path = Path(path)
    folders = [folder for folder in (path, path / "export") if (folder / CLIP_CONFIG).is_file()]
    return folders[0] if folders else find_export(path)


def files_of(folder: Path) -> tuple[str, str]:
    """Return the names of configuration and weights in a folder that `find_model` returned."""
    return (CLIP_CONFIG, CLIP_WEIGHTS) if (folder / CLIP_CONFIG).is_file() else (CONFIG, WEIGHTS)


def unstated_config(folder: Path) -> str | None:
    """Return the name of a model's configuration when neither manifest nor card states its hash."""
    config, weights = files_of(folder)
    return config if not stated_hashes(folder, config, weights)[config] else None


def load_model(path: Path) -> tuple[Classifier, str]:
    """Return the classifier of a model folder, in evaluation mode, and the sha256 that its results are filed by.

    That is the hash of a network's weights; for an image-text model, of weights, configuration and texts together.

    Raises:
        InputError: when it is no model folder, when its parts do not fit each other, when an image-text model names no
            classes, or when a library has security holes.
        VerificationError: when a file is not the one that is named by its hash.
        MachineError: when it does not fit into memory.
    """
    folder = find_model(path)
    return _load_zero_shot(folder) if files_of(folder)[0] == CLIP_CONFIG else load_classifier(folder)


def _load_zero_shot(folder: Path) -> tuple[Classifier, str]:
    # open_clip takes seconds to import, and is for these alone.
    from synclones.models.clip_folder import load_clip
    from synclones.models.tokenizer import tokenizer_for
    from synclones.models.zero_shot import TowerClassifier, ZeroShotClassifier, read_trained_head, read_zero_shot

    texts = read_zero_shot(folder)
    trained = read_trained_head(folder, len(texts.class_ids))
    loaded = load_clip(folder)
    parts = [loaded.weights_sha256, loaded.config_sha256, texts.sha256]
    if trained is not None:
        tower = TowerClassifier(loaded.model, loaded.preprocessing, texts.class_ids, trained[0])
        return tower.eval(), sha256_bytes(canonical_json([*parts, trained[1]]))
    classifier = ZeroShotClassifier(loaded.model, loaded.preprocessing, texts, tokenizer_for(loaded.context_length))
    return classifier.eval(), sha256_bytes(canonical_json(parts))
