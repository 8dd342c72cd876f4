"""Which patches are hidden from a network, as functions of (seed, image, showing, view): no batch or process matters.

In: the names of images. Out: a mask per crop, of whole crops by chance and of a fixed number of patches in each.
"""

import numpy as np

from synclones.base.draws import uniform

MASK = 0x4D41534B  # tells these numbers from those that other random choices draw from the same seed


def num_hidden(patches: int, ratio: float) -> int:
    """Return how many of a crop's patches are hidden, once it is masked: the share rounded down, one at least."""
    return max(1, int(patches * ratio))


def hidden_patches(
    names: tuple[np.ndarray, np.ndarray, np.ndarray],
    seed: int,
    views: int,
    patches: int,
    *,
    probability: float,
    ratio: float,
) -> np.ndarray:
    """Return bool[views, n, patches]: of each crop by itself whether it is masked, and if so which patches.

    ``names``: set, number and showing of each image, int64[n]. ``probability``: how often a crop is masked.
    ``ratio``: share of its patches that are hidden then, chosen at random one by one.
    """
    source, index, times_seen = names
    masks = np.zeros((views, len(index), patches), dtype=bool)
    for view in range(views):
        # Number 0 decides about the crop, the others rank its patches.
        drawn = uniform(seed, MASK, source, index, times_seen, view, 0)
        chosen = np.flatnonzero(drawn < probability)
        words = (array[chosen, None] for array in (source, index, times_seen))
        ranks = np.argsort(uniform(seed, MASK, *words, view, 1 + np.arange(patches)), axis=1, kind="stable")
        masks[view, chosen[:, None], ranks[:, : num_hidden(patches, ratio)]] = True
    return masks
