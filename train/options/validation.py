"""The settings of what is measured during a training, on images that it is not trained on.

In and out: nothing; `TrainConfig` inherits them, so that every one is a flag and a key of recipes.
"""

import math
from dataclasses import dataclass
from typing import Literal

from synclones.base.config import Count

# What each number may be: (lowest, highest).
VALIDATION_RANGES: dict[str, tuple[float, float]] = {
    "validate_every": (0, 10**12),
    "validate_features": (1, 10**8),
    "validate_probe": (0, 10**4),
    "knn_neighbours": (1, 10**6),
    "knn_temperature": (0.001, 100),
    "hold_out": (0, 0.9),
}
TIMES = 10  # how often is measured where nobody says
HELD_OUT = "held-out"


@dataclass(frozen=True, kw_only=True)
class ValidationSettings:
    """What is measured while training, and how often."""

    validate: tuple[str, ...] = ()
    """Sets to measure on, each NAME=DATA or DATA: classifiers by accuracy, backbones by k-NN (docs/validation.md)."""
    validate_every: Count = 0
    """Steps between measurements, and the last step always; 0: ten times in the training."""
    validate_features: Count = 50_000
    """Most images that neighbours are looked for among; of larger sets a seeded choice, the smaller in the larger."""
    validate_probe: int = 0
    """Epochs of a linear probe on the features of those images at every measurement (90 in papers); 0: none."""
    knn_bank: str = ""
    """Labelled set that neighbours are looked for in; empty for the training's own."""
    knn_neighbours: int = 20
    """Neighbours that vote."""
    knn_temperature: float = 0.07
    """What cosines are divided by before they are exponentiated to votes."""
    hold_out: float = 0.0
    """Share of each class of the training images that is never shown, and measured as the set held-out."""
    select: Literal["last", "best"] = "last"
    """Weights to export: of the last step, or of the measurement with the best accuracy on held-out images."""

    def measured_every(self, num_steps: int) -> int:
        """Return the steps between measurements of a training of ``num_steps``."""
        return self.validate_every or math.ceil(num_steps / TIMES)
