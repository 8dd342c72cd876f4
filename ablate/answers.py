"""What learners, and a teacher, answer for candidate images: what a score of `ablate/scores/` is computed from.

In: probabilities of each network for the same images. Out: `Answers`.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Answers:
    """Probabilities of the classes for the same images, from one learner or several, and from a teacher."""

    learners: tuple[np.ndarray, ...]
    """float64[n, classes] of each learner, rows of sum 1."""
    labels: np.ndarray
    """int64[n]: the class that each image was drawn for."""
    teacher: np.ndarray | None = None
    """float64[n, classes]; None where the score asks for none."""
