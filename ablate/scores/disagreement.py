"""How far two learners of different seeds are apart: the Jensen-Shannon divergence of their answers, 0 to ln 2 nats.

What one learner is unsure of may be noise in the image; what two are sure of in different ways is not learned yet
(Seung et al. 1992, query by committee).
"""

import numpy as np

from synclones.ablate.answers import Answers

LEARNERS, TEACHER = 2, False


def score(answers: Answers) -> np.ndarray:
    """Return the divergences, float64[n] in nats."""
    first, second = answers.learners
    apart: np.ndarray = _entropy((first + second) / 2) - (_entropy(first) + _entropy(second)) / 2
    positive: np.ndarray = np.maximum(apart, 0)  # rounding may leave it just below
    return positive


def _entropy(p: np.ndarray) -> np.ndarray:
    entropy: np.ndarray = -(p * np.log(np.maximum(p, np.finfo(np.float64).tiny))).sum(axis=1)
    return entropy
