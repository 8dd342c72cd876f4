"""The model of image-text objectives: what the settings say, built by open_clip, and written where open_clip loads it.

In: a `Task`. Out: an `ImageTextLearner`, its tokenizer, its export.
"""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from synclones.base.errors import InputError
from synclones.train.network.learners import ImageTextLearner
from synclones.train.objective import Task
from synclones.train.options.objective import ObjectiveSettings
from synclones.train.settings import TrainConfig

if TYPE_CHECKING:  # importing it loads open_clip
    from synclones.models.zero_shot import ZeroShotTexts

TEXT_SHAPE = ("text_width", "text_layers", "text_heads", "joint_dim")
SETTINGS_OF_TEXT = (
    *("caption_column", "label_captions", "text_length", *TEXT_SHAPE, "patch_dropout"),
    *("zero_shot_classes", "zero_shot_templates"),
)


def spec_of(config: TrainConfig, **more: Any) -> Any:
    """Return the `ClipSpec` of the settings.

    ``--architecture`` names a model of open_clip, or a timm architecture for the images; patch size, width, depth and
    heads together describe open_clip's own vision transformer instead. ``more``: further fields.

    Raises:
        InputError: a shape that is none.
    """
    import open_clip

    from synclones.models.clip import ClipSpec  # loads open_clip

    if config.mlp_ratio:
        raise InputError(
            f"--mlp-ratio: {config.objective} builds towers with MLPs of four times their width; leave it out"
        )
    common = {"image_size_px": config.image_size_px, "context_length": config.text_length, **more}
    common["patch_dropout"] = config.patch_dropout
    text: dict[str, Any] = {name: getattr(config, name) for name in TEXT_SHAPE}
    if config.architecture in open_clip.list_models() and not config.model_args():
        # What the text tower is, the named model says; what was asked for besides is refused there.
        default = {field.name: field.default for field in fields(ObjectiveSettings)}
        asked = {name: value for name, value in text.items() if value != default[name]}
        return ClipSpec(model=config.architecture, **common, **asked)
    shape: dict[str, Any] = config.model_args()
    if shape:
        return ClipSpec(**common, **text, **shape)
    return ClipSpec(architecture=config.architecture, **common, **text)


def tokenizer_of(config: TrainConfig) -> Callable[[str], tuple[np.ndarray, bool]]:
    """Return what turns a text into token ids int64[text_length], and says whether its end was cut off.

    Safe to call from several threads.
    """
    from synclones.models.tokenizer import token_ids

    return lambda text: token_ids(text, config.text_length)


def build_learner(task: Task, **more: Any) -> nn.Module:
    """Return an open_clip model with fresh weights; ``more``: fields of `ClipSpec`.

    Raises:
        InputError: open_clip cannot build it.
    """
    from synclones.models.clip import build_clip

    check_export(task)
    return ImageTextLearner(build_clip(spec_of(task.config, **more)), task.preprocessing)


def check_export(task: Task) -> None:
    """Refuse now, not after the training, what its export could not say.

    Raises:
        InputError: images that open_clip prepares in no such way, or a list of classes that is none.
    """
    from synclones.models.clip_folder import preprocess_config

    preprocess_config(task.preprocessing)
    zero_shot_texts(task.config)


def zero_shot_texts(config: TrainConfig) -> "ZeroShotTexts | None":
    """Return what the export shall classify by; None when no classes are named.

    Raises:
        InputError: a file that is missing, or is no list.
    """
    if not config.zero_shot_classes:
        return None
    from synclones.models.zero_shot import texts_in

    return texts_in(config.zero_shot_classes, config.zero_shot_templates)


def export_learner(task: Task, learner: nn.Module, folder: Path, card: str, **more: Any) -> str:
    """Write a folder that open_clip loads; return the sha256 of its weights."""
    from synclones.models.clip_folder import export_clip

    spec, texts = spec_of(task.config, **more), zero_shot_texts(task.config)
    return export_clip(folder, learner.network, spec, task.preprocessing, card, texts)


def classes_of(task: Task) -> tuple[str, ...]:
    """Return the classes that are named, none without a list."""
    texts = zero_shot_texts(task.config)
    return texts.class_ids if texts else ()


def classifier_of(task: Task, network: nn.Module) -> nn.Module:
    """Return what classifies by the names of classes; its head is that of the weights at the first images.

    Raises:
        InputError: no classes are named.
    """
    from synclones.models.tokenizer import tokenizer_for
    from synclones.models.zero_shot import ZeroShotClassifier

    texts = zero_shot_texts(task.config)
    if texts is None:
        raise InputError("--zero-shot-classes: none are named; give a list of them")
    return ZeroShotClassifier(network, task.preprocessing, texts, tokenizer_for(task.config.text_length))


def rename_classes(task: Task, folder: Path) -> str:
    """Give an export the classes that are named now; return what was done, or nothing.

    Raises:
        InputError: a list that is none.
    """
    from synclones.models.zero_shot import ZERO_SHOT, read_zero_shot, write_zero_shot

    texts = zero_shot_texts(task.config)
    if texts is None or ((folder / ZERO_SHOT).exists() and read_zero_shot(folder) == texts):
        return ""
    write_zero_shot(folder, texts)
    return f"{folder / ZERO_SHOT}: classifies by {len(texts.class_ids)} classes now"
