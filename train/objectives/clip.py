"""CLIP: every image shall find its caption among all captions of the batch, and every caption its image.

Radford et al. 2021 (arXiv 2103.00020, figure 3): the mean of both cross-entropies, the scale learned and at most 100.
Equal captions are positives of each other, where open_clip would count them as wrong.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from synclones.train.contrast.contrastive import one_way_losses, paired_losses
from synclones.train.contrast.image_text import (
    SETTINGS_OF_TEXT,
    build_learner,
    classes_of,
    classifier_of,
    export_learner,
    rename_classes,
    tokenizer_of,
)
from synclones.train.objective import Task
from synclones.train.settings import TrainConfig
from synclones.train.training_batch import Embedded, TrainingBatch

COLUMNS = ("caption",)
SETTINGS = SETTINGS_OF_TEXT
MAX_LOG_SCALE = math.log(100)

tokenizer = tokenizer_of
after_end = rename_classes
classes = classes_of
classifier = classifier_of


def build(task: Task) -> nn.Module:
    """Return an open_clip model that begins with CLIP's scale."""
    return build_learner(task)


def embed(batch: TrainingBatch, model: nn.Module, config: TrainConfig) -> dict[str, Tensor]:
    """Return ``image`` and ``text`` float32[n, d] of length 1, and ``scale``."""
    rows: dict[str, Tensor] = model(batch.images, batch.tokens)
    return rows


def contrast(own: Embedded, everyone: Embedded, config: TrainConfig) -> tuple[dict[str, Tensor], Tensor]:
    """Return half of both losses of each own pair, and which pairs count: all but those left out."""
    image, text, scale = own.rows["image"], own.rows["text"], own.shared["scale"]
    if everyone is own:
        of_images, of_texts = paired_losses(image, text, own.text, own.weights, scale)
    else:
        who = own.text, everyone.text, own.weights, everyone.weights, scale
        of_images, _ = one_way_losses(image, everyone.rows["text"], *who)
        of_texts, _ = one_way_losses(text, everyone.rows["image"], *who)
    counts = own.weights > 0
    return {"loss": (of_images + of_texts) / 2, "scale": scale.detach() * counts}, counts


def after_step(learner: nn.Module) -> None:
    """Keep the scale from 1 to 100."""
    limit_scale(learner.network)


def limit_scale(model: nn.Module) -> None:
    """Keep the scale of an open_clip model from 1 to 100."""
    with torch.no_grad():
        model.logit_scale.clamp_(0, MAX_LOG_SCALE)


def export(task: Task, learner: nn.Module, folder: Path, card: str) -> str:
    """Write a folder that open_clip loads; return the sha256 of its weights."""
    return export_learner(task, learner, folder, card)
