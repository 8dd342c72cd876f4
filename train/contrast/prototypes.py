"""Predicting the prototypes of hidden patches: iBOT's loss, with targets that Sinkhorn and Knopp balance.

In: rows of length 1 of student and teacher, and the prototypes of each. Out: a cross-entropy per patch. Logits are made
a block of patches at a time and again for the backward pass, in float32 also under autocast. The targets of a patch
are a softmax of its own logits plus a number per prototype, and that number alone depends on the global batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from synclones.train.contrast.logits import without_autocast
from synclones.train.network.learners import begin_layer
from synclones.train.shares import Shares

STUDENT_TEMPERATURE = 0.1
"""Of DINO, iBOT and SynCLR."""
SINKHORN_ITERATIONS = 3
LOGITS_AT_ONCE = 2**26
"""Logits that are held together: 256 MiB."""


class PatchHead(nn.Module):  # type: ignore[misc]  # torch's own types are left out
    """DINO's head (Caron et al. 2021): three layers to rows of length 1, and prototypes; with it what hides a patch."""

    def __init__(self, width: int, hidden: int, outputs: int, prototypes: int):
        """``width``: of the patches' features; ``outputs``: numbers by which patches and prototypes are compared."""
        super().__init__()
        self.token = nn.Parameter(torch.empty(width))
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, outputs)
        )
        # Directions and lengths apart: weight normalisation (Salimans and Kingma 2016).
        self.directions = nn.Parameter(torch.empty(prototypes, outputs))
        self.lengths = nn.Parameter(torch.ones(prototypes))
        nn.init.normal_(self.token, std=0.02)
        nn.init.uniform_(self.directions, -(outputs**-0.5), outputs**-0.5)
        for layer in self.layers[::2]:
            begin_layer(layer)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows float32[k, d] of length 1 of patches float[k, w], and the prototypes float32[m, d]."""
        rows = F.normalize(self.layers(patches).float(), dim=-1)
        return rows, F.normalize(self.directions.float(), dim=-1) * self.lengths.float()[:, None]


def balance(rows: Tensor, prototypes: Tensor, temperature: float, weight: Tensor, own: Shares) -> Tensor:
    """Compute what makes all prototypes equally likely over the patches of all processes, float[m].

    The targets of a row are the softmax of its logits over temperature plus this: the columns of the matrix that three
    iterations of Sinkhorn and Knopp leave (Cuturi 2013; Caron et al. 2020), their last step being that of the rows.

    Args:
        rows: float[k, d] of this process; there may be none.
        prototypes: float[m, d], the same on all processes.
        temperature: what logits are divided by.
        weight: float[k]; 0 for a patch that does not count.
        own: the processes.

    Returns:
        The logarithm of a factor per prototype; 0 for all of them when no patch counts.
    """
    absent = torch.where(weight != 0, 0.0, -torch.inf).to(rows.dtype)
    factors = prototypes.new_zeros(len(prototypes))
    for iteration in range(SINKHORN_ITERATIONS):
        total = torch.full_like(factors, -torch.inf)
        for block, left_out in zip(_blocks(rows, prototypes), _blocks(absent, prototypes), strict=True):
            logits = _logits(block, prototypes, temperature)
            # Each patch weighs one in all, once the prototypes have factors.
            if iteration:
                logits = logits - (logits + factors).logsumexp(1, keepdim=True)
            total = torch.logaddexp(total, (logits + left_out[:, None]).logsumexp(0))
        factors = -own.of_each(total).logsumexp(0)
        factors = torch.where(factors.isfinite(), factors, 0.0)
    return factors


def patch_losses(
    student: Tensor, prototypes: Tensor, teacher: Tensor, theirs: Tensor, factors: Tensor, temperature: float
) -> Tensor:
    """Compute the cross-entropy of each patch's prototypes, the student's against the teacher's.

    Args:
        student: float[k, d], and the student's ``prototypes`` float[m, d]; both get a gradient.
        teacher: float[k, d] of the same patches, and ``theirs`` float[m, d]; without gradients.
        factors: float[m], as `balance` returned them.
        temperature: of the teacher.

    Returns:
        float[k] in nats.
    """
    blocks = zip(_blocks(student, prototypes), _blocks(teacher, prototypes), strict=True)
    fixed = theirs, factors, temperature
    keep = {"use_reentrant": False, "preserve_rng_state": False}
    return torch.cat([checkpoint(_block_losses, mine, prototypes, other, *fixed, **keep) for mine, other in blocks])


def _block_losses(
    student: Tensor, prototypes: Tensor, teacher: Tensor, theirs: Tensor, factors: Tensor, temperature: float
) -> Tensor:
    targets = (_logits(teacher, theirs, temperature) + factors).softmax(1)
    logits = _logits(student, prototypes, STUDENT_TEMPERATURE)
    return logits.logsumexp(1) - (targets * logits).sum(1)


def _blocks(rows: Tensor, prototypes: Tensor) -> tuple[Tensor, ...]:
    # Of no rows there is one block, of none: so that parameters take part in every backward pass.
    parts: tuple[Tensor, ...] = rows.split(max(1, LOGITS_AT_ONCE // len(prototypes)))
    return parts


def _logits(rows: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    with without_autocast(rows):
        return rows @ prototypes.T / temperature
