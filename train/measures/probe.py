"""Linear classifiers of features: several learning rates trained at once, one of them chosen.

In: features float[n, d] and classes, or a learner that computes them. Out: `Heads`; the logits of all of them come from
one product. Ten rates together, each times batch / 256, plain SGD with momentum, a cosine to 0: the linear probe of
StableRep and SynCLR (syn-rep-learn, StableRep/main_linear.py), normal weights of deviation 0.01 to begin with.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synclones.base.draws import hash64

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
REFERENCE_BATCH = 256  # a rate is that of so many images
MOMENTUM, FIRST_DEVIATION = 0.9, 0.01
NORM_EPSILON = 1e-6  # of the normalisation before the heads, as MAE and SynCLR have it
PROBE = 0x50524F42  # tells these numbers from others of the same seed


class Heads(nn.Module):  # type: ignore[misc]  # torch's own types are left out
    """Several linear classifiers of the same features, which begin with the same weights.

    Attributes:
        chosen: the one that is exported.
    """

    def __init__(self, count: int, width: int, num_classes: int):
        """Draw the first weights; the draws do not depend on ``count``."""
        super().__init__()
        weight = torch.empty(num_classes, width)
        nn.init.normal_(weight, std=FIRST_DEVIATION)
        self.weight = nn.Parameter(weight.repeat(count, 1, 1))
        self.bias = nn.Parameter(torch.zeros(count, num_classes))
        self.chosen = 0

    def forward(self, features: Tensor) -> Tensor:
        """Return logits float32[heads, n, classes] of features float[n, d]."""
        heads, classes, _ = self.weight.shape
        device = features.device.type
        if device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self.forward(features)
        rows = features.float() @ self.weight.flatten(0, 1).T + self.bias.flatten()
        return rows.unflatten(1, (heads, classes)).transpose(0, 1)


def head_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each head and image in nats: float[heads, n] of float[heads, n, classes]."""
    losses: Tensor = F.cross_entropy(logits.movedim(-1, 1), labels.expand(len(logits), -1), reduction="none")
    return losses


def weighted(losses: Tensor, rates: Sequence[float], batch_size: int) -> Tensor:
    """Return what is minimised of each image, float[n]: with SGD at a rate of 1 every head trains at its own.

    A gradient that is scaled by a rate moves plain SGD as that rate would, momentum included.
    """
    return losses.new_tensor(rates) * (batch_size / REFERENCE_BATCH) @ losses


def folded(weight: Tensor, bias: Tensor, norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    """Return the linear layer [classes, d], [classes] that does what ``norm`` and the layer do in evaluation."""
    if norm is None:
        return weight, bias
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scaled = weight.double() * scale
    return scaled.float(), (bias.double() - scaled @ norm.running_mean.double()).float()


def train_heads(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    epochs: int,
    batch_size: int = REFERENCE_BATCH,
    rates: Sequence[float] = RATES,
    seed: int = 0,
) -> Heads:
    """Return heads trained on features float[n, d] with classes int64[n]; torch's generators are left alone.

    Features are standardised by their own mean and deviation, which the returned heads have folded in. The order of
    every epoch is a function of the seed.
    """
    # The same standardisation as a batch normalisation that has seen all images.
    norm = nn.BatchNorm1d(features.shape[1], eps=NORM_EPSILON, affine=False).to(features.device)
    norm.running_mean, norm.running_var = features.double().mean(0).float(), features.double().var(0).float()
    rows = norm.eval()(features.float())
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(int(hash64(seed, PROBE) >> 1))
        heads: Heads = Heads(len(rates), features.shape[1], num_classes).to(features.device)
        optimizer = torch.optim.SGD(heads.parameters(), lr=1.0, momentum=MOMENTUM)
        per_epoch = -(-len(rows) // batch_size)
        order = torch.zeros(0)
        for step in range(epochs * per_epoch):
            # One batch of this epoch's order, then the cosine.
            epoch, number = divmod(step, per_epoch)
            if number == 0:
                order = torch.from_numpy(np.argsort(hash64(seed, PROBE, epoch, np.arange(len(rows))), kind="stable"))
            at = order[number * batch_size : (number + 1) * batch_size].to(rows.device)
            losses = head_losses(heads(rows[at]), labels[at])
            optimizer.param_groups[0]["lr"] = 0.5 * (1 + math.cos(math.pi * step / (epochs * per_epoch)))
            optimizer.zero_grad()
            weighted(losses.mean(1, keepdim=True), rates, batch_size).sum().backward()
            optimizer.step()
    with torch.no_grad():
        for head in range(len(rates)):
            heads.weight[head], heads.bias[head] = folded(heads.weight[head], heads.bias[head], norm)
    heads.requires_grad_(False)
    return heads


def accuracies(heads: Heads, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of images that each head puts into their class, and its mean loss in nats: float64[heads]."""
    logits = heads(features)
    right = logits.argmax(-1) == labels
    return right.double().mean(1), head_losses(logits, labels).double().mean(1)


def best_head(shares: Tensor, losses: Tensor) -> int:
    """Return the number of the head with the highest share, of equals that with the lowest loss."""
    order = sorted(range(len(shares)), key=lambda head: (-float(shares[head]), float(losses[head])))
    return order[0]


def apart(n: int, share: float, seed: int) -> np.ndarray:
    """Return which of ``n`` images choose the head and train none of them, one at least: bool[n]."""
    drawn = hash64(seed, PROBE, np.arange(n))
    mask = np.zeros(n, dtype=bool)
    mask[np.argsort(drawn, kind="stable")[: max(1, round(share * n))]] = True
    return mask
