"""Supervised classification: cross-entropy, or big_vision's sigmoid loss, of labels or of mixed ones."""

import torch.nn.functional as F
from torch import Tensor, nn

from synclones.train.settings import TrainConfig
from synclones.train.training_batch import TrainingBatch

COLUMNS = ("label",)
SETTINGS = (
    *("loss", "head_bias", "label_smoothing", "drop_path"),
    *("mixup_alpha", "cutmix_alpha", "mix_probability", "mix_switch", "mix_mode"),
)


def num_outputs(num_classes: int) -> int:
    """Return one output per class."""
    return num_classes


def begin(network: nn.Module, config: TrainConfig) -> None:
    """Give the classifier its first bias; with one, its weights begin at 0."""
    if config.head_bias:
        head = network.get_classifier()
        nn.init.zeros_(head.weight)
        nn.init.constant_(head.bias, config.head_bias)


def losses(batch: TrainingBatch, model: nn.Module, config: TrainConfig) -> dict[str, Tensor]:
    """Return the loss in nats and whether the largest logit is the label's, float32[n] each.

    ``label_smoothing`` is spread over all classes (Szegedy et al. 2016, section 7). The sigmoid loss is the sum over
    classes of binary cross-entropies (Beyer et al. 2020, arXiv 2006.07159, section 4; big_vision's ``sigmoid_xent``).
    """
    logits = model(batch.images).float()
    smoothing, targets = config.label_smoothing, batch.targets
    if config.loss == "sigmoid":
        if targets is None:  # those of mixed images are smoothed already
            targets = F.one_hot(batch.labels, logits.shape[1]) * (1 - smoothing) + smoothing / logits.shape[1]
        # Exact where a class is all but ruled out: torch's own form loses four digits over a thousand of them.
        loss = (F.softplus(logits) - logits * targets.float()).sum(1)
    elif targets is not None:
        loss = F.cross_entropy(logits, targets, reduction="none")
    else:
        loss = F.cross_entropy(logits, batch.labels, reduction="none", label_smoothing=smoothing)
    return {"loss": loss, "accuracy": (logits.detach().argmax(1) == batch.labels).float()}
