"""A teacher's difficulty: its cross-entropy for the class that the image was drawn for, in nats.

High where the teacher sees another class: hard images, and wrong ones. A policy's ``skip`` leaves the highest out.
"""

import numpy as np

from synclones.ablate.answers import Answers

LEARNERS, TEACHER = 0, True


def score(answers: Answers) -> np.ndarray:
    """Return the difficulties, float64[n] in nats, at most 708."""
    assert answers.teacher is not None, "the caller asks for a teacher where TEACHER is set"
    own = answers.teacher[np.arange(len(answers.labels)), answers.labels]
    difficulty: np.ndarray = -np.log(np.maximum(own, np.finfo(np.float64).tiny))
    return difficulty
