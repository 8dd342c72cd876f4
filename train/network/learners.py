"""What is trained besides a classifier: networks with the heads by which images are compared, and text towers.

In: pixels in 0..1, and token ids. Out: rows of length 1, by name. Every learner has ``network``, whose state is what
checkpoints keep; normalisation is the learner's, as it is a classifier's.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synclones.base.errors import InputError
from synclones.models.network import Preprocessing


class Normalising(nn.Module):  # type: ignore[misc]  # torch's own types are left out
    """A network that takes pixels in 0..1."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing):
        super().__init__()
        self.network, self.preprocessing = network, preprocessing
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Return float[n, 3, s, s] as the network takes them."""
        return (pixels - self.mean) / self.std


def projection(width: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return StableRep's head: three linear layers with batch normalisation between them (Tian et al. 2023)."""
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outputs),
    )


def begin_layer(linear: nn.Linear) -> nn.Linear:
    """Give a layer of a head its first weights and no bias; return it.

    Weights have a deviation of 0.02, as in DINO, MoCo v3's and SynCLR's code; more below a width of 625, where rows
    would all but vanish from layer to layer.
    """
    nn.init.trunc_normal_(linear.weight, std=max(0.02, 0.5 * linear.in_features**-0.5))
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear


def normalised_layers(widths: Sequence[int], norm: Literal["batch", "layer"]) -> nn.Sequential:
    """Return linear layers between ``widths``, normalised after each, with nonlinearities between them.

    ``norm``: batch with ReLU are the heads of MoCo v3 (Chen et al. 2021), which see the images of one part; layer with
    GELU those of SynCLR's released code (Tian et al. 2023), for which no batch matters. The last has no scale or shift.
    """
    kind = nn.BatchNorm1d if norm == "batch" else nn.LayerNorm
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        linear = begin_layer(nn.Linear(before, after, bias=norm == "layer"))
        layers += [linear, kind(after), nn.ReLU(inplace=True) if norm == "batch" else nn.GELU()]
    last = begin_layer(nn.Linear(widths[-2], widths[-1], bias=False))
    bare = nn.BatchNorm1d(widths[-1], affine=False) if norm == "batch" else kind(widths[-1], elementwise_affine=False)
    return nn.Sequential(*layers, last, bare)


class ProjectedLearner(Normalising):
    """A backbone and the projection by which its images are compared."""

    def __init__(self, backbone: nn.Module, head: nn.Module, preprocessing: Preprocessing):
        """``backbone``: images to features float[n, w]; ``head``: those to float[n, d]."""
        super().__init__(nn.ModuleDict({"backbone": backbone, "projection": head}), preprocessing)

    @property
    def backbone(self) -> nn.Module:
        """What remains when training is over."""
        backbone: nn.Module = self.network["backbone"]
        return backbone

    def forward(self, views: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return ``features`` float[n, views, d], of length 1, of views float[n, 3, s, s] each."""
        # Views of one size go through the backbone together, all of them through the head: it normalises by the batch.
        features = [self.backbone(self.normalised(pixels)) for pixels in joined_by_size(views)]
        rows = self.network["projection"](torch.cat(features))
        n = len(views[0])
        return {"features": F.normalize(rows.float(), dim=-1).view(len(views), n, -1).transpose(0, 1)}


def joined_by_size(views: Sequence[Tensor]) -> list[Tensor]:
    """Join neighbouring views of one size into batches, the order of all images unchanged."""
    joined: list[list[Tensor]] = []
    for view in views:
        if joined and joined[-1][0].shape[1:] == view.shape[1:]:
            joined[-1].append(view)
        else:
            joined.append([view])
    return [torch.cat(group) for group in joined]


def image_width(tower: nn.Module) -> int:
    """Return how many features an open_clip image tower has before its joint embedding.

    Raises:
        InputError: a tower that is neither open_clip's vision transformer nor a timm network.
    """
    if hasattr(tower, "trunk"):
        return int(tower.trunk.num_features)
    if isinstance(getattr(tower, "proj", None), nn.Parameter):
        return int(tower.proj.shape[0])
    raise InputError(f"--architecture: the features of a {type(tower).__name__} cannot be read; take a transformer")


class PlusLearner(Normalising):
    """An open_clip model and the projection by which the features of its image tower are compared."""

    def __init__(self, clip: nn.Module, head: nn.Module, preprocessing: Preprocessing):
        """``clip``: an open_clip model; ``head``: features of its image tower to float[n, d]."""
        super().__init__(nn.ModuleDict({"clip": clip, "projection": head}), preprocessing)

    def forward(self, views: Sequence[Tensor], tokens: Tensor) -> dict[str, Tensor]:
        """Return ``features`` float[n, views, d], ``image`` of the first view and ``text`` float[n, e], and ``scale``.

        All rows have length 1. ``views``: float[n, 3, s, s] in 0..1 each. ``tokens``: int64[n, text_length].
        """
        clip, n = self.network["clip"], len(views[0])
        parts = [self._features(self.normalised(pixels)) for pixels in joined_by_size(views)]
        features = torch.cat([pooled for pooled, _ in parts])
        image = torch.cat([joint for _, joint in parts])[:n]
        rows = self.network["projection"](features)
        return {
            "features": F.normalize(rows.float(), dim=-1).view(len(views), n, -1).transpose(0, 1),
            "image": F.normalize(image.float(), dim=-1),
            "text": clip.encode_text(tokens, normalize=True).float(),
            "scale": clip.logit_scale.float().exp(),
        }

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image tower's features, and its joint embedding."""
        tower = self.network["clip"].visual
        if hasattr(tower, "trunk"):
            pooled = tower.trunk(images)
            return pooled, tower.head(pooled)
        pooled, _ = tower._pool(tower.transformer(tower._embeds(images)))
        return pooled, pooled @ tower.proj


class ImageTextLearner(Normalising):
    """An open_clip model."""

    def forward(self, images: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """Return ``image`` and ``text`` float[n, d] of length 1, ``scale`` of their logits, and ``bias`` if it has one.

        ``images``: float[n, 3, s, s] in 0..1. ``tokens``: int64[n, text_length].
        """
        image = self.network.encode_image(self.normalised(images), normalize=True)
        text = self.network.encode_text(tokens, normalize=True)
        rows = {"image": image.float(), "text": text.float(), "scale": self.network.logit_scale.float().exp()}
        bias = getattr(self.network, "logit_bias", None)
        return rows if bias is None else rows | {"bias": bias.float()}
