"""Distillation: the student follows the outputs of a teacher that a side column of the set holds.

Hinton et al. 2015 (arXiv 1503.02531, section 2): the divergence of softened distributions, times the square of their
temperature, and the rest of the weight on the cross-entropy with the labels.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from synclones.base.errors import InputError
from synclones.models.network import Classifier
from synclones.train.network.networks import new_network
from synclones.train.objective import Task
from synclones.train.settings import TrainConfig
from synclones.train.training_batch import TrainingBatch

COLUMNS = ("label", "vector")
SETTINGS = ("drop_path", "label_smoothing", "teacher_column", "teacher_temperature", "teacher_share")


def build(task: Task) -> nn.Module:
    """Return a timm network with one output per class.

    Raises:
        InputError: the teacher has another number of classes.
    """
    classes = len(task.class_ids)
    if task.vector_width != classes:
        raise InputError(
            f"--teacher-column {task.config.teacher_column}: holds {task.vector_width} numbers an image, expected the "
            f"logits of {classes} classes; annotate the set with a teacher of its classes"
        )
    return Classifier(new_network(task.config, classes), task.preprocessing, task.class_ids)


def losses(batch: TrainingBatch, model: nn.Module, config: TrainConfig) -> dict[str, Tensor]:
    """Return the weighted loss of each image, its divergence from the teacher in nats, and whether it is right."""
    logits, softness = model(batch.images).float(), config.teacher_temperature
    assert batch.array is not None, "it is among the columns"
    student, teacher = (values.div(softness).log_softmax(1) for values in (logits, batch.array))
    divergence = (teacher.exp() * (teacher - student)).sum(1)
    of_labels = F.cross_entropy(logits, batch.labels, reduction="none", label_smoothing=config.label_smoothing)
    loss = config.teacher_share * softness**2 * divergence + (1 - config.teacher_share) * of_labels
    right = (logits.detach().argmax(1) == batch.labels).float()
    return {"loss": loss, "divergence": divergence.detach(), "accuracy": right}
