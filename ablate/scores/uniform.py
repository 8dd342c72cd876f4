"""No score at all: every candidate counts the same, so that chance alone chooses; what other scores have to beat."""

import numpy as np

from synclones.ablate.answers import Answers

LEARNERS, TEACHER = 0, False


def score(answers: Answers) -> np.ndarray:
    """Return zeros, float64[n]."""
    return np.zeros(len(answers.labels))
