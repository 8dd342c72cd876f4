"""SynCLR: crops find the teacher's crops of their caption, and hidden patches the prototypes that the teacher sees.

Tian et al. 2023 (arXiv 2312.17742, section 3.3, equation 4): the multi-positive loss of the crops of full size, the
mean of the smaller crops' and iBOT's loss (Zhou et al. 2021) of hidden patches, added. The student's crops, of which
some are masked, are compared with those of the moving average of its weights, the teacher, which sees crops of full
size alone, without masks; a crop is not compared with itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synclones.models.folder import export_backbone
from synclones.train.augmentation.masking import hidden_patches, num_hidden
from synclones.train.contrast.contrastive import one_way_losses
from synclones.train.contrast.masked_learner import MaskedLearner
from synclones.train.contrast.prototypes import balance, patch_losses
from synclones.train.network.networks import new_network
from synclones.train.objective import Task
from synclones.train.objectives import multipositive
from synclones.train.settings import TrainConfig
from synclones.train.shares import Shares
from synclones.train.training_batch import TrainingBatch

COLUMNS = ("caption_id",)
SETTINGS = (
    *multipositive.SETTINGS,
    *(
        "projection_norm",
        "mask_probability",
        "mask_ratio",
        "patch_loss_weight",
        "prototypes",
        "prototype_dim",
        "prototype_hidden",
    ),
    *("target_temperature", "target_temperature_from", "target_temperature_steps"),
)


def check_settings(config: TrainConfig) -> None:
    """Refuse a training in which no crop of full size has a positive.

    Raises:
        InputError: one image of a caption, and one such crop of it.
    """
    multipositive.check_settings(replace(config, local_views=0))


@dataclass(frozen=True)
class Lesson:
    """The outputs of the teacher: of all crops of the global batch, and of the hidden patches of one part."""

    first: int
    """Position of the part's first image in the global batch."""
    columns: Tensor
    """float32[crops, d] of length 1, of the global batch, image by image."""
    groups: Tensor
    """int64[crops]; equal numbers belong together."""
    weights: Tensor
    """float32[crops]."""
    global_scale: Tensor
    """float32[]: images over those of them that have a positive."""
    patches: "Patches"


@dataclass(frozen=True)
class Patches:
    """The hidden patches of a part; without masks none, and no prototypes."""

    hidden: Tensor
    """int64[k], numbered view by view, image by image."""
    image: Tensor
    """int64[c]: which image of the part each masked crop shows; each has the same number of hidden patches."""
    rows: Tensor | None = None
    """float32[k, d] of length 1."""
    prototypes: Tensor | None = None
    """float32[m, d], the teacher's."""
    factors: Tensor | None = None
    """float32[m]: what balances them over the global batch."""
    temperature: float = 1.0
    scale: Tensor | None = None
    """float32[]: images over masked crops, of the global batch."""


def build(task: Task) -> nn.Module:
    """Return a timm vision transformer with SynCLR's heads.

    Raises:
        InputError: the architecture is another one.
    """
    return MaskedLearner(new_network(task.config, 0), task.preprocessing, task.config)


# ------------------------------------------------------------------ the teacher


def teach(
    parts: Iterable[TrainingBatch], teacher: nn.Module, config: TrainConfig, step: int, own: Shares
) -> list[Lesson]:
    """Look at all parts of this process' images, and with the other processes at the global batch."""
    # The teacher's rows of every part; what is hidden from the student follows from the names of the images.
    rows, groups, weights, patches = [], [], [], []
    for batch in parts:
        hidden = _hidden(batch, teacher.num_patches, config)
        outputs = teacher.targets(batch.views[: config.views], hidden)
        image = hidden[:: num_hidden(teacher.num_patches, config.mask_ratio)] // teacher.num_patches
        rows.append(outputs["global"])
        groups.append(_groups(batch, config))
        weights.append(batch.weights)
        patches.append(Patches(hidden, image % len(batch.weights), outputs.get("patches"), outputs.get("prototypes")))
    # Crops of all processes, in the order of the global batch.
    columns, group, weight = (own.gathered(torch.cat(x)) for x in (rows, groups, weights))
    images, alike = (weight != 0).sum(), _with_positives(group, weight, config.views).sum()
    if config.mask_probability:
        patches = _balanced(patches, weights, target_temperature(config, step), images, own)
    crops, group, weight = columns.flatten(0, 1), *(x.repeat_interleave(config.views) for x in (group, weight))
    firsts, scale = [own.first + part.start for part in own.parts], images / alike.clamp(min=1)
    return [Lesson(at, crops, group, weight, scale, each) for at, each in zip(firsts, patches, strict=True)]


def target_temperature(config: TrainConfig, step: int) -> float:
    """Return the teacher's temperature of step 0, 1, ...: it rises linearly, then stays."""
    steps, first, last = config.target_temperature_steps, config.target_temperature_from, config.target_temperature
    return last if step >= steps else first + (last - first) * step / steps


def _hidden(batch: TrainingBatch, patches: int, config: TrainConfig) -> Tensor:
    chance, share = config.mask_probability, config.mask_ratio
    masks = hidden_patches(batch.names, config.seed, config.views, patches, probability=chance, ratio=share)
    return torch.from_numpy(np.flatnonzero(masks)).to(batch.images.device)


def _groups(batch: TrainingBatch, config: TrainConfig) -> Tensor:
    groups: Tensor = batch.labels if config.positives == "label" else batch.caption
    return groups


def _with_positives(group: Tensor, weight: Tensor, views: int) -> Tensor:
    """Return bool[n]: which images count and have a crop of their group that is another one."""
    present = weight != 0
    if views > 1:
        return present
    # Neighbours once sorted; those that do not count are alone, as numbers that no group has.
    alone = -1 - torch.arange(len(group), device=group.device)
    ordered, order = torch.where(present, group, alone).sort()
    same = F.pad(ordered[1:] == ordered[:-1], (1, 1))
    return torch.empty_like(present).scatter(0, order, same[1:] | same[:-1]) & present


def _balanced(
    patches: list[Patches], weights: list[Tensor], temperature: float, images: Tensor, own: Shares
) -> list[Patches]:
    """Return the patches with what makes their prototypes equally likely over the hidden patches of all processes."""
    theirs, rows = patches[0].prototypes, torch.cat([each.rows for each in patches])
    crops = torch.cat([weight[each.image] for weight, each in zip(weights, patches, strict=True)])
    factors = balance(rows, theirs, temperature, crops.repeat_interleave(len(rows) // max(1, len(crops))), own)
    scale = images / own.of_each((crops != 0).sum()).sum().clamp(min=1)
    return [replace(each, factors=factors, temperature=temperature, scale=scale) for each in patches]


# ------------------------------------------------------------------ the student


def losses(batch: TrainingBatch, model: nn.Module, config: TrainConfig) -> dict[str, Tensor]:
    """Return the sum of the losses of each image, and each by itself; their means are those of what has such a loss."""
    lesson, views, n = batch.lesson, config.views, len(batch.weights)
    outputs = model(batch.views[:views], batch.views[views:], lesson.patches.hidden)
    # The teacher's crop of the same pixels, at the same place, is no candidate for the student's of full size.
    parts = {"global_loss": _contrast(outputs["global"], batch, config, lesson.first * views) * lesson.global_scale}
    if config.local_views:
        parts["local_loss"] = _contrast(outputs["local"], batch, config, None)
    if config.mask_probability:
        parts["patch_loss"] = _of_patches(outputs, lesson.patches, n) * config.patch_loss_weight
    logged = {name: loss.detach() for name, loss in parts.items()}
    return {"loss": sum(parts.values(), start=batch.weights * 0), **logged}


def _contrast(rows: Tensor, batch: TrainingBatch, config: TrainConfig, first_self: int | None) -> Tensor:
    """Return float32[n], the mean over an image's crops, of rows float32[n, crops, d] against the teacher's."""
    n, crops, _ = rows.shape
    lesson, scale = batch.lesson, rows.new_tensor(1 / config.temperature)
    group, weight = (x.repeat_interleave(crops) for x in (_groups(batch, config), batch.weights))
    others = lesson.groups, weight, lesson.weights
    each, _ = one_way_losses(rows.flatten(0, 1), lesson.columns, group, *others, scale, first_self)
    return each.view(n, crops).mean(1)


def _of_patches(outputs: dict[str, Tensor], patches: Patches, n: int) -> Tensor:
    """Return float32[n]: of each image the losses of its masked crops, each the mean over its hidden patches."""
    teacher = patches.rows, patches.prototypes, patches.factors, patches.temperature
    each = patch_losses(outputs["patches"], outputs["prototypes"], *teacher)
    crops = each.view(len(patches.image), -1).mean(1) if len(patches.image) else each
    return crops.new_zeros(n).index_add(0, patches.image, crops) * patches.scale


def export(task: Task, learner: nn.Module, folder: Path, card: str) -> str:
    """Write the backbone as a timm folder without a classifier; return the sha256 of its weights.

    The learner holds the average of the weights by now: what is exported is the teacher.
    """
    return export_backbone(folder, learner.backbone, task.preprocessing, task.config.model_args(), card)
