"""Which rows of a shard are one group: images of one caption.

In: rows, and the caption of each. Out: rows, as many together as a group has.
"""

import numpy as np


def grouped_rows(rows: np.ndarray, captions: np.ndarray, size: int) -> np.ndarray:
    """Return the rows of one caption ``size`` together, int64[groups, size]: captions in the order of their first rows.

    What is left of a caption, too few for a group, is in none.
    """
    _, firsts, numbers = np.unique(captions, return_index=True, return_inverse=True)
    turn = np.argsort(np.argsort(firsts))[numbers]  # the how many-th caption each row has
    order = np.argsort(turn, kind="stable")
    counts = np.bincount(turn)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    used = within < np.repeat(counts // size * size, counts)
    return rows[order[used]].reshape(-1, size)
