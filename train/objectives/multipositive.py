"""Multi-positive contrast: images of one caption, or of one label, and their crops are each other's positives.

StableRep (Tian et al. 2023, arXiv 2306.00984, equation 2): cross-entropy between the softmax of the cosines over
temperature and a target uniform over the positives. Of labels it is SupCon (Khosla et al. 2020).
"""

from pathlib import Path

from torch import Tensor, nn

from synclones.base.errors import InputError
from synclones.models.folder import export_backbone
from synclones.train.contrast.contrastive import one_way_losses, self_losses
from synclones.train.network.learners import ProjectedLearner, projection
from synclones.train.network.networks import new_network
from synclones.train.objective import Task
from synclones.train.settings import TrainConfig
from synclones.train.training_batch import Embedded, TrainingBatch

COLUMNS = ("caption_id",)
SETTINGS = (
    *("temperature", "images_per_caption", "positives", "views", "local_views", "local_size_px", "local_scale_min"),
    *("local_scale_max", "projection_dim", "projection_hidden", "drop_path"),
)


def check_settings(config: TrainConfig) -> None:
    """Refuse a training in which no image has a positive.

    Raises:
        InputError: one image of a caption, and one crop of it.
    """
    if config.positives == "caption" and config.images_per_caption * (config.views + config.local_views) == 1:
        raise InputError(
            f"--objective {config.objective}: every image is compared with others of its caption, and none is shown; "
            "give --images-per-caption or --views of 2 or more"
            + (", or --positives label" if config.objective in ("multipositive", "synclr") else "")
        )


def build(task: Task) -> nn.Module:
    """Return a timm backbone and StableRep's projection."""
    config = task.config
    backbone = new_network(config, 0)
    head = projection(int(backbone.num_features), config.projection_hidden, config.projection_dim)
    return ProjectedLearner(backbone, head, task.preprocessing)


def embed(batch: TrainingBatch, model: nn.Module, config: TrainConfig) -> dict[str, Tensor]:
    """Return ``features`` float32[n, views, d] of length 1."""
    features: dict[str, Tensor] = model(batch.views)
    return features


def contrast(own: Embedded, everyone: Embedded, config: TrainConfig) -> tuple[dict[str, Tensor], Tensor]:
    """Return the loss of each own image, the mean over its crops, and which have a positive at all."""
    mine, all_rows = own.rows["features"], everyone.rows["features"]
    n, views, _ = mine.shape
    scale = mine.new_tensor(1 / config.temperature)
    group, weight = (_of_crops(x, views) for x in (_groups(own, config), own.weights))
    rows = mine.reshape(n * views, -1)
    if everyone is own:
        losses, counts = self_losses(rows, group, weight, scale)
    else:
        columns = all_rows.reshape(-1, rows.shape[1])
        column_group, column_weight = (_of_crops(x, views) for x in (_groups(everyone, config), everyone.weights))
        first = own.first * views
        losses, counts = one_way_losses(rows, columns, group, column_group, weight, column_weight, scale, first)
    return {"loss": losses.view(n, views).mean(1)}, counts.view(n, views).all(1)


def _groups(images: Embedded, config: TrainConfig) -> Tensor:
    return images.labels if config.positives == "label" else images.caption


def _of_crops(values: Tensor, views: int) -> Tensor:
    """Return each image's value for each of its crops: [n] to [n * views]."""
    return values.repeat_interleave(views)


def export(task: Task, learner: nn.Module, folder: Path, card: str) -> str:
    """Write the backbone as a timm folder without a classifier; return the sha256 of its weights."""
    return export_backbone(folder, learner.backbone, task.preprocessing, task.config.model_args(), card)
