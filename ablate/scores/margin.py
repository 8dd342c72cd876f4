"""One minus the distance of the learner's two largest probabilities: 1 where two classes are equally likely.

Margin sampling of active learning (Scheffer et al. 2001); doubts beyond two classes do not count.
"""

import numpy as np

from synclones.ablate.answers import Answers

LEARNERS, TEACHER = 1, False


def score(answers: Answers) -> np.ndarray:
    """Return the scores, float64[n] in 0..1."""
    largest = np.sort(answers.learners[0], axis=1)[:, -2:]
    margin: np.ndarray = 1 - (largest[:, 1] - largest[:, 0])
    return margin
