"""Supervised classification: cross-entropy with label smoothing, one number per image.

In: logits float32[n, classes], labels int64[n]. Out: losses float32[n].
"""

import torch.nn.functional as F
from torch import Tensor


def losses(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy in nats; ``label_smoothing`` is spread over all classes (Szegedy et al. 2016, section 7)."""
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
