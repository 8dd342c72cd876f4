"""StableRep++: images of one caption are each other's positives, and images and captions find each other.

Tian et al. 2023 (arXiv 2306.00984, section 3.3): the multi-positive loss of the projected features and CLIP's loss of
the first crop with its caption, added with equal weight. Both towers are open_clip's; what is exported is its model.
"""

from pathlib import Path

from torch import Tensor, nn

from synclones.models.clip import build_clip
from synclones.train.contrast.image_text import (
    SETTINGS_OF_TEXT,
    check_export,
    classes_of,
    classifier_of,
    export_learner,
    rename_classes,
    spec_of,
    tokenizer_of,
)
from synclones.train.network.learners import ImageTextLearner, PlusLearner, image_width, projection
from synclones.train.objective import Task
from synclones.train.objectives import clip, multipositive
from synclones.train.settings import TrainConfig
from synclones.train.training_batch import Embedded, TrainingBatch

COLUMNS = ("caption", "caption_id")
SETTINGS = (*(name for name in multipositive.SETTINGS if name not in ("positives", "drop_path")), *SETTINGS_OF_TEXT)

tokenizer = tokenizer_of
after_end = rename_classes
classes = classes_of
check_settings = multipositive.check_settings


def build(task: Task) -> nn.Module:
    """Return an open_clip model, and StableRep's projection of its image tower's features.

    Raises:
        InputError: open_clip cannot build it, or the features of its image tower cannot be read.
    """
    config = task.config
    check_export(task)
    model = build_clip(spec_of(config))
    head = projection(image_width(model.visual), config.projection_hidden, config.projection_dim)
    return PlusLearner(model, head, task.preprocessing)


def embed(batch: TrainingBatch, model: nn.Module, config: TrainConfig) -> dict[str, Tensor]:
    """Return ``features`` float32[n, views, d], ``image`` and ``text`` float32[n, e], of length 1, and ``scale``."""
    rows: dict[str, Tensor] = model(batch.views, batch.tokens)
    return rows


def contrast(own: Embedded, everyone: Embedded, config: TrainConfig) -> tuple[dict[str, Tensor], Tensor]:
    """Return the sum of both losses of each own image, each by itself, and which count: all but those left out."""
    among_images, _ = multipositive.contrast(own, everyone, config)
    with_texts, counts = clip.contrast(own, everyone, config)
    parts = {"image_loss": among_images["loss"], "text_loss": with_texts["loss"]}
    logged = {name: loss.detach() for name, loss in parts.items()}
    return {"loss": sum(parts.values(), start=own.weights * 0), **logged, "scale": with_texts["scale"]}, counts


def classifier(task: Task, network: nn.Module) -> nn.Module:
    """Return what classifies by the names of classes."""
    return classifier_of(task, network["clip"])


def after_step(learner: nn.Module) -> None:
    """Keep the scale from 1 to 100."""
    clip.limit_scale(learner.network["clip"])


def export(task: Task, learner: nn.Module, folder: Path, card: str) -> str:
    """Write a folder that open_clip loads, without the projection; return the sha256 of its weights."""
    return export_learner(task, ImageTextLearner(learner.network["clip"], task.preprocessing), folder, card)
