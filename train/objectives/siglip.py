"""SigLIP: of every image and every caption of the batch, whether they belong together.

Zhai et al. 2023 (arXiv 2303.15343, algorithm 1): binary cross-entropies of all pairs, summed over captions and averaged
over images; scale 10 and bias -10 to begin with, both learned. Equal captions belong together.
"""

import math
from pathlib import Path

from torch import Tensor, nn

from synclones.train.contrast.contrastive import sigmoid_losses
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
FIRST_SCALE, FIRST_BIAS = 10.0, -10.0

tokenizer = tokenizer_of
after_end = rename_classes
classes = classes_of
classifier = classifier_of


def build(task: Task) -> nn.Module:
    """Return an open_clip model that begins with SigLIP's scale and bias."""
    return build_learner(task, init_logit_scale=math.log(FIRST_SCALE), init_logit_bias=FIRST_BIAS)


def embed(batch: TrainingBatch, model: nn.Module, config: TrainConfig) -> dict[str, Tensor]:
    """Return ``image`` and ``text`` float32[n, d] of length 1, ``scale`` and ``bias``."""
    rows: dict[str, Tensor] = model(batch.images, batch.tokens)
    return rows


def contrast(own: Embedded, everyone: Embedded, config: TrainConfig) -> tuple[dict[str, Tensor], Tensor]:
    """Return the loss of each own image against all captions, and which count: all but those left out."""
    scale, bias = own.shared["scale"], own.shared["bias"]
    who = own.text, everyone.text, own.weights, everyone.weights
    losses = sigmoid_losses(own.rows["image"], everyone.rows["text"], *who, scale, bias)
    counts = own.weights > 0
    return {"loss": losses, "scale": scale.detach() * counts, "bias": bias.detach() * counts}, counts


def export(task: Task, learner: nn.Module, folder: Path, card: str) -> str:
    """Write a folder that open_clip loads; return the sha256 of its weights."""
    return export_learner(
        task, learner, folder, card, init_logit_scale=math.log(FIRST_SCALE), init_logit_bias=FIRST_BIAS
    )
