"""Cosine softmax on several crops: the classifier of ImageNet-SD (Sariyildiz et al. 2023) and t-ReX.

Logits are cosines of features and class weights over a temperature, without a bias; the cross-entropy is averaged over
all crops of an image, global and local. Source: Sariyildiz et al. 2023 (arXiv 2206.15369), section 3.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synclones.models.folder import export_classifier
from synclones.models.network import Classifier, Preprocessing
from synclones.train.network.learners import Normalising, joined_by_size
from synclones.train.network.networks import new_network
from synclones.train.objective import Task
from synclones.train.settings import TrainConfig
from synclones.train.training_batch import TrainingBatch

COLUMNS = ("label",)
SETTINGS = (
    *("drop_path", "temperature", "label_smoothing", "views", "local_views", "local_size_px", "local_scale_min"),
    "local_scale_max",
)


class CosineLearner(Normalising):
    """A timm network whose classifier compares directions alone."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, temperature: float):
        """``network``: with a linear classifier, whose bias becomes 0 and stays so."""
        super().__init__(network, preprocessing)
        self.temperature = temperature
        head = network.get_classifier()
        if getattr(head, "bias", None) is not None:
            nn.init.zeros_(head.bias)
            head.bias.requires_grad_(False)

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """Return logits float[views, n, classes] of views float[n, 3, s, s] each."""
        parts = []
        for pixels in joined_by_size(views):
            features = self.network.forward_features(self.normalised(pixels))
            parts.append(self.network.forward_head(features, pre_logits=True))
        rows = F.normalize(torch.cat(parts).float(), dim=-1)
        weights = F.normalize(self.network.get_classifier().weight.float(), dim=-1)
        return (rows @ weights.T / self.temperature).view(len(views), len(views[0]), -1)


class CosineClassifier(Classifier):
    """The same classifier of single images, as training sees them."""

    def __init__(self, network: nn.Module, task: Task):
        """``network``: of a learner."""
        super().__init__(network, task.preprocessing, task.class_ids)
        self.learner = CosineLearner(network, task.preprocessing, task.config.temperature)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits float[n, classes] of pixels float[n, 3, s, s] in 0..1."""
        logits: Tensor = self.learner([pixels])[0]
        return logits


def classifier(task: Task, network: nn.Module) -> nn.Module:
    """Return what classifies by weights ``network``."""
    return CosineClassifier(network, task)


def build(task: Task) -> nn.Module:
    """Return a timm network with one output per class."""
    network = new_network(task.config, len(task.class_ids))
    return CosineLearner(network, task.preprocessing, task.config.temperature)


def losses(batch: TrainingBatch, model: nn.Module, config: TrainConfig) -> dict[str, Tensor]:
    """Return the cross-entropy of each image, the mean over its crops, and whether its first crop is right."""
    logits: Tensor = model(batch.views)
    views, n, classes = logits.shape
    labels = batch.labels.repeat(views)
    smoothing = config.label_smoothing
    each = F.cross_entropy(logits.reshape(-1, classes), labels, reduction="none", label_smoothing=smoothing)
    right = (logits[0].detach().argmax(1) == batch.labels).float()
    return {"loss": each.view(views, n).mean(0), "accuracy": right}


def export(task: Task, learner: nn.Module, folder: Path, card: str) -> str:
    """Write a timm classifier with weights of length 1: its largest logit is that of the largest cosine.

    Its logits are cosines times the length of the features; confidences are those of such a network, not of training.
    """
    head = learner.network.get_classifier()
    with torch.no_grad():
        head.weight.copy_(F.normalize(head.weight, dim=-1))
    classifier = Classifier(learner.network, task.preprocessing, task.class_ids)
    return export_classifier(folder, classifier, task.config.model_args(), card)
