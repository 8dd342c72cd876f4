"""Stochastic depth whose choices know no batches: a branch is left out by (seed, image, showing, view, layer).

In: a timm network with ``DropPath`` modules, and which images come next. Out: the same network, whose branches are kept
or dropped alike on any rank, in micro-batches of any size, and after any kill.
"""

import numpy as np
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from synclones.base.draws import Words, uniform

DROP_PATH = 0x44524F50  # tells these numbers from those that crops and augmentation draw from the same seed


class ShownImages:
    """The images that a network is about to see; the loop sets them before every forward pass in training."""

    def __init__(self, seed: int):
        """Begin without images."""
        self.seed = seed
        self.rates: list[float] = []
        """Of each layer with stochastic depth, in the network's order."""
        self.kept: Tensor | None = None
        """float32[layers, n]: 0, or one over the probability to be kept."""
        self.crops: tuple[int, ...] = (1,)
        """How many crops of each image may go through the network together, all first crops before all second ones;
        they share the image's decisions."""

    def show(
        self, source: np.ndarray, index: np.ndarray, times_seen: np.ndarray, view: Words = 0, *, device: torch.device
    ) -> None:
        """Decide for the n images that int64[n] arrays name, in the order of the batch."""
        keep = 1 - np.asarray(self.rates)[:, None]
        layers = np.arange(len(self.rates))[:, None]
        drawn = uniform(self.seed, DROP_PATH, source, index, times_seen, view, layers)
        kept = np.where(drawn < keep, 1 / np.maximum(keep, 1e-12), 0)
        self.kept = torch.from_numpy(kept).float().to(device, non_blocking=True)


class SeededDropPath(nn.Module):  # type: ignore[misc]
    """Leave out a branch for some images and scale it up for the others, as timm's ``DropPath`` does.

    A module that a network calls twice in one pass decides alike both times, where timm would draw anew.
    """

    def __init__(self, layer: int, scale_by_keep: bool, shown: ShownImages):
        """Stand for the ``layer``-th module with stochastic depth of a network."""
        super().__init__()
        self.layer, self.scale_by_keep, self.shown = layer, scale_by_keep, shown

    def forward(self, branch: Tensor) -> Tensor:
        """Scale ``branch`` [n, ...] image by image; unchanged in evaluation.

        Raises:
            RuntimeError: in training, without as many images shown as the branch has.
        """
        if not self.training:
            return branch
        kept, crops = self.shown.kept, self.shown.crops
        if kept is None or len(branch) not in [kept.shape[1] * number for number in crops]:
            raise RuntimeError(f"stochastic depth of {len(branch)} images: they were not shown before the forward pass")
        factors = kept[self.layer] if self.scale_by_keep else (kept[self.layer] > 0).float()
        factors = factors.repeat(len(branch) // len(factors))
        return branch * factors.to(branch.dtype).view(-1, *[1] * (branch.dim() - 1))


def seed_drop_path(network: nn.Module, seed: int) -> ShownImages:
    """Replace every ``DropPath`` of timm in ``network``; return what the loop shows images to.

    Without such modules nothing changes, and ``rates`` of the result is empty. No names of weights change.
    """
    shown = ShownImages(seed)
    seats = [(parent, name) for parent in network.modules() for name, m in parent.named_children() if _is_drop(m)]
    for layer, (parent, name) in enumerate(seats):
        old = getattr(parent, name)
        shown.rates.append(float(old.drop_prob))
        setattr(parent, name, SeededDropPath(layer, bool(old.scale_by_keep), shown))
    return shown


def _is_drop(module: nn.Module) -> bool:
    return isinstance(module, DropPath)
