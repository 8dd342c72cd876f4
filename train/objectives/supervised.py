"""Supervised classification: cross-entropy with label smoothing."""

import torch.nn.functional as F
from torch import Tensor, nn

from synclones.train.objective import TrainingBatch
from synclones.train.settings import TrainConfig

COLUMNS = ("label",)
SETTINGS = ("label_smoothing", "mixup_alpha", "cutmix_alpha", "mix_probability", "mix_switch", "mix_mode")


def num_outputs(num_classes: int) -> int:
    """Return one output per class."""
    return num_classes


def losses(batch: TrainingBatch, model: nn.Module, config: TrainConfig) -> dict[str, Tensor]:
    """Return the cross-entropy in nats and whether the largest logit is the label's, float32[n] each.

    ``label_smoothing`` is spread over all classes (Szegedy et al. 2016, section 7).
    """
    logits = model(batch.images).float()
    if batch.targets is not None:  # mixed images: their targets are smoothed already
        loss = F.cross_entropy(logits, batch.targets, reduction="none")
    else:
        loss = F.cross_entropy(logits, batch.labels, reduction="none", label_smoothing=config.label_smoothing)
    return {"loss": loss, "accuracy": (logits.detach().argmax(1) == batch.labels).float()}
