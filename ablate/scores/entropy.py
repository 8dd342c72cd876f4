"""The entropy of the learner's answer in nats: 0 where it is sure, ln(classes) where it cannot tell any apart.

What Deliberate Practice (Askari-Hemmat et al. 2025, arXiv 2502.15588) guides its generator by.
"""

import numpy as np

from synclones.ablate.answers import Answers

LEARNERS, TEACHER = 1, False


def score(answers: Answers) -> np.ndarray:
    """Return the entropies, float64[n] in nats."""
    p = answers.learners[0]
    entropy: np.ndarray = -(p * np.log(np.maximum(p, np.finfo(np.float64).tiny))).sum(axis=1)
    return entropy
